"""Checks of what must hold in every run, from its records or its plan; a claim names one as its metric.

Each returns one number per run (or plan): how far it is from what the claim says.
"""

import json
import math
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from spfde.cost.flops import UPDATE_OPERATIONS
from spfde.cost.trace import matrix
from spfde.files import read_yaml
from spfde.planning import Plan
from spfde.plans import describe


class Check(NamedTuple):
    """A check. With `plans` it takes a plan and returns a number; otherwise it takes a record's folder and yields one
    number or none.
    """

    of: Callable[[Any], Any]
    plans: bool = False


def frozen_masks_move(folder: Path) -> Iterator[float]:
    """How far the mask of a layer moves while the layer is frozen, as a share; the largest value over all layers.

    A mask has moved in an epoch if its density changed, the share of weights that were ever active, or its overlap with
    the first mask, or if a mask change dropped active weights. Weights, momentum and statistics are not in a record;
    tests/test_api.py compares them bit for bit.
    """
    trace = _trace(folder)
    if not trace["frozen"].any():
        return

    def by_epoch(name: str) -> np.ndarray:
        return trace.pivot(index="epoch", columns="layer", values=name).to_numpy(dtype=float)

    frozen = by_epoch("frozen") > 0
    stays = frozen[1:] & frozen[:-1]  # its last pruning comes before its first frozen epoch
    changes = [np.abs(np.diff(by_epoch(name), axis=0)) for name in ("forward_density", "explored", "overlap_first")]
    moved = np.maximum.reduce([*changes, 1 - by_epoch("overlap_updates")[1:]])
    yield float(moved[stays].max(initial=0.0))


def partial_set_changes(folder: Path) -> Iterator[float]:
    """The largest difference in samples between two epochs of a run with circular sieving."""
    sieving = _settings(folder)["sieving"]
    if sieving["removed"] and sieving.get("schedule", "circular") == "circular":
        samples = pd.read_csv(folder / "epochs.csv")["samples"]
        yield float(samples.max() - samples.min())


def misses_target(folder: Path) -> Iterator[float]:
    """Distance of the final sparsity of the sparse layers from the target (a share), in runs of MEST and SpFDE.

    Only unstructured ones count, as in the papers: a scheme with larger units cannot meet every target in a small
    layer.
    """
    sparsity = _settings(folder)["sparsity"]
    if sparsity["method"].startswith(("mest", "spfde")) and sparsity["scheme"] == "unstructured":
        found = json.loads((folder / "summary.json").read_text(encoding="utf-8"))["sparsity"]
        yield abs(found["achieved"] - found["target"])


def renewals(plan: Plan) -> float:
    """How often the removed set is renewed during training; from 1 on, every sample has been trained on."""
    found = describe(plan)
    return float(found["turnover"] * found["sieving_updates"])


def overhead(plan: Plan) -> float:
    """Operations of freezing and sieving as a share of the training FLOPs (`paper`).

    These are counted: the last pruning of every sparse layer, each time that it freezes, as a mask update; and where
    data are sieved, a sort of all samples at every sieving update (n log2 n comparisons) and four operations per sample
    that is trained on. Masks have their own costs without either, and are not in it.
    """
    trace, layers = plan.trace(), plan.profile.rows
    weights = np.array([layer.weights if layer.name in plan.shapes else 0 for layer in layers], dtype=float)
    frozen = matrix(trace, "frozen", len(layers)).astype(bool)
    operations = float(UPDATE_OPERATIONS * ((frozen[1:] & ~frozen[:-1]) @ weights).sum())
    if plan.settings.sieving.removed:
        seen, most = int(plan.samples.sum()), int(plan.samples.max())
        operations += describe(plan)["sieving_updates"] * most * math.log2(max(2, most)) + 4 * seen
    return float(operations / plan.costs(trace)[0]["paper"])


CHECKS = {
    "frozen-masks-move": Check(frozen_masks_move),
    "partial-set-changes": Check(partial_set_changes),
    "misses-target": Check(misses_target),
    "renewals": Check(renewals, plans=True),
    "overhead": Check(overhead, plans=True),
}


def _trace(folder: Path) -> pd.DataFrame:
    path = folder / "layers.csv"
    return pd.read_csv(path if path.is_file() else folder / "layers.csv.gz")


def _settings(folder: Path) -> dict[str, Any]:
    values: dict[str, Any] = read_yaml(folder / "settings.yaml", "settings file", "train that run again")
    return values
