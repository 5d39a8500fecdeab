"""Seconds of a step of a scale's network at several densities and numbers of frozen blocks.

From them and a record's trace follow the seconds of its mean epoch (`spfde.results.seconds`): measured on an idle
machine once, where the seconds of the runs themselves depend on what else the machine did.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd
import torch

from spfde import kernels
from spfde.experiments.resolve import resolve
from spfde.training.bench.random_data import random_splits
from spfde.training.bench.turns import take_turns
from spfde.training.clock import Clock
from spfde.training.environment import environment
from spfde.training.loop import step
from spfde.training.run import Training

DENSITIES = (0.02, 0.05, 0.1, 0.2, 0.5)


@dataclass
class Step:
    """A step of a run, with loader, masks and counters, while so many of its blocks are frozen."""

    run: Training
    frozen: int
    batches: Iterator[Any] = field(init=False)

    def __post_init__(self) -> None:
        self.batches = self._endless()

    def prepare(self) -> None:
        """Before each timing, and not timed."""
        self.run.sparse.freeze(self.frozen)
        self.run.sparse.execution.begin(0)

    def __call__(self) -> None:
        step(self.run, *next(self.batches))

    def _endless(self) -> Iterator[Any]:
        while True:
            self.run.done = 0
            yield from self.run.batches()


def bench(scale: str, turns: int) -> pd.DataFrame:
    """One row for each density and number of frozen blocks.

    Columns: `share` of the dense forward pass's multiply-accumulates that a step runs (1: dense kernels), `frozen`
    blocks, `seconds` (median over the turns), `turns`, and of what and where it was: scale, model, macs (multiply-
    accumulates of its dense forward pass), batch_size, device, threads, torch.
    """
    jobs: dict[str, Callable[[], Any]] = {}
    points: list[tuple[float, int]] = []
    batch = resolve(scale, {}).training.batch_size
    splits = random_splits(scale, 2 * batch)
    for density in (*(DENSITIES if kernels.available() else ()), 1.0):
        method = {"sparsity.method": "static", "sparsity.target": round(1 - density, 6)} if density < 1 else {}
        settings = resolve(scale, method or {"sparsity.method": "dense"})
        run = Training(settings, splits, torch.device("cpu"), Clock(), kernels="sparse" if density < 1 else "dense")
        run.begin(0)
        blocks = len(run.sparse.blocks)
        for frozen in sorted({round(blocks * third / 3) for third in range(4)}):
            one = Step(run, frozen)
            one.prepare()
            one()
            points.append((_share(run), frozen))
            jobs[str(len(jobs))] = one
    found = take_turns(jobs, turns)
    frame = pd.DataFrame(points, columns=["share", "frozen"])
    frame["seconds"], frame["turns"] = found.median().to_numpy(), turns
    frame["macs"] = sum(layer.macs for layer in run.sparse.plan.profile.layers)
    where = environment(torch.device("cpu"))
    frame["scale"], frame["model"], frame["batch_size"] = scale, settings.model.name, batch
    frame["device"], frame["threads"], frame["torch"] = where["device"], where["threads"], where["torch"]
    return frame


def _share(run: Training) -> float:
    """Share of the dense forward pass that the last step ran: the density where kernels skipped the zeros."""
    sparse = run.sparse
    ran = {layer.name: float(layer.mask.mean()) for layer in sparse.masks}
    skipped = sparse.execution.executed_layers
    macs = np.array([layer.macs for layer in sparse.plan.profile.layers], dtype=float)
    shares = [ran.get(layer.name, 1.0) if layer.name in skipped else 1.0 for layer in sparse.plan.profile.layers]
    return float(macs @ np.array(shares) / macs.sum())
