"""Structural similarity of a network in training to the final one (SpFDE, structural similarity, Fig. 1a)."""

import math
from pathlib import Path

import pandas as pd
from torch import Tensor

from spfde.analysis.snapshots import Snapshots, numbers

TOP = 0.5  # the larger half of the non-zero weights counts


def structure(folder: Path) -> pd.DataFrame:
    """Structural similarity by epoch and sparse layer.

    Args:
        folder: a record with snapshots.

    Returns:
        Columns epoch, layer, number, similarity (a fraction). A dense run has no rows.

    Raises:
        SpfdeError: no snapshots, or they cannot be read.
    """
    snapshots = Snapshots.of(folder)
    final, masked = snapshots.final, set(snapshots.masked)
    shown = {name: number for name, number in numbers(snapshots.model()).items() if name in masked}
    rows = [
        (epoch, name, number, similarity(state[f"{name}.weight"], final[f"{name}.weight"]))
        for epoch, state in snapshots.trained()
        for name, number in shown.items()
    ]
    return pd.DataFrame(rows, columns=["epoch", "layer", "number", "similarity"])


def similarity(weight: Tensor, final: Tensor) -> float:
    """Share of the top half of a weight's non-zero positions (by magnitude, rounded up) that are non-zero in `final`.

    The final weight itself has a similarity of 1, whatever its magnitudes are. A weight without a non-zero position has
    NaN.
    """
    magnitude = weight.abs().flatten()
    count = math.ceil(TOP * int(magnitude.count_nonzero()))
    if not count:
        return math.nan
    return float((final.flatten()[magnitude.topk(count).indices] != 0).double().mean())
