"""Checks of what must hold in every run, from its records or its plan; a claim names one as its metric.

Each returns one number a run (or plan): how far it is from what the claim says.
"""

import json
import math
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import yaml

from spfde.planning import RunPlan, describe
from spfde.results.collect import YAML


class Check(NamedTuple):
    """`plans`: it takes a plan and returns a number; otherwise a record's folder, and yields none or one."""

    of: Callable[[Any], Any]
    plans: bool = False


def frozen_layers_move(folder: Path) -> Iterator[float]:
    """The largest gradient work in a frozen layer, or change of its density between two frozen epochs (shares)."""
    trace = _trace(folder)
    frozen = trace["frozen"].astype(bool)
    if not frozen.any():
        return
    worked = trace.loc[frozen, ["weight_grad_density", "input_grad_density"]].to_numpy().max()
    density, still = (
        trace.pivot(index="epoch", columns="layer", values=name) for name in ("forward_density", "frozen")
    )
    both = (still.to_numpy()[1:] > 0) & (still.to_numpy()[:-1] > 0)
    moved = np.abs(np.diff(density.to_numpy(), axis=0))[both]
    yield float(max(worked, moved.max(initial=0.0)))


def partial_set_changes(folder: Path) -> Iterator[float]:
    """The largest difference in samples between two epochs of a run with circular sieving."""
    sieving = _settings(folder)["sieving"]
    if sieving["removed"] and sieving.get("schedule", "circular") == "circular":
        samples = pd.read_csv(folder / "epochs.csv")["samples"]
        yield float(samples.max() - samples.min())


def misses_target(folder: Path) -> Iterator[float]:
    """Distance of the final sparsity of the sparse layers from the target (a share), in runs of MEST and SpFDE.

    Unstructured ones, as the papers' are: a scheme with larger units cannot meet every target in a small layer.
    """
    sparsity = _settings(folder)["sparsity"]
    if sparsity["method"].startswith(("mest", "spfde")) and sparsity["scheme"] == "unstructured":
        found = json.loads((folder / "summary.json").read_text(encoding="utf-8"))["sparsity"]
        yield abs(found["achieved"] - found["target"])


def renewals(plan: RunPlan) -> float:
    """How often the removed set is renewed over training: from 1 on, every sample has been trained on."""
    found = describe(plan)
    return float(found["turnover"] * found["sieving_updates"])


def overhead(plan: RunPlan) -> float:
    """Operations of masks and sieving as a share of the training FLOPs (`paper`).

    Counted: a multiplication of every weight and every gradient with its mask in each step; at every update a sort of
    all weights of the sparse layers (n log2 n comparisons, as if they were one) and one of all samples; four operations
    a sample seen.
    """
    weights = sum(math.prod(shape) for shape in plan.shapes.values())
    steps, seen = int(plan.first_steps[-1]), int(plan.samples.sum())
    updates = plan.settings.training.epochs // plan.settings.sparsity.interval + 1
    sorts = sum(count * math.log2(max(2, count)) for count in (weights, int(plan.samples.max())))
    paper = plan.costs(plan.trace())[0]["paper"]
    return float((2 * weights * steps + updates * sorts + 4 * seen) / paper)


CHECKS = {
    "frozen-layers-move": Check(frozen_layers_move),
    "partial-set-changes": Check(partial_set_changes),
    "misses-target": Check(misses_target),
    "renewals": Check(renewals, plans=True),
    "overhead": Check(overhead, plans=True),
}


def _trace(folder: Path) -> pd.DataFrame:
    path = folder / "layers.csv"
    return pd.read_csv(path if path.is_file() else folder / "layers.csv.gz")


def _settings(folder: Path) -> dict[str, Any]:
    return yaml.load((folder / "settings.yaml").read_text(encoding="utf-8"), YAML)
