"""What freezing and sieving save in time, measured: SpFDE's Tables A11 and A12, and the overhead of masks and sieving.

Times are of whole training steps (loader, forward, backward, optimizer, masks, sieving) on random images of the data
set's shape, so no data are needed. All cases take turns within every repeat: what else the machine does meets all of
them alike, and the ratios within a repeat are what counts.
"""

import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

from spfde.data import Split, Splits, info
from spfde.experiments import resolve
from spfde.planning import plan_settings
from spfde.training import record
from spfde.training.clock import Clock
from spfde.training.loop import Training

LEVELS = (0.10, 0.15, 0.20, 0.25)


@dataclass
class Case:
    """A training whose steps are timed, with a number of leading blocks frozen."""

    training: Training
    frozen: int = 0

    def seconds(self, steps: int) -> float:
        """Mean seconds of a step."""
        self.training.sparse.freeze(self.frozen)
        batches = self._batches()
        self._wait()
        start = time.perf_counter()
        for _ in range(steps):
            self.training.step(*next(batches))
        self._wait()
        return (time.perf_counter() - start) / steps

    def _batches(self) -> Iterator[Any]:
        while True:
            self.training.done = 0
            yield from self.training.batches()

    def _wait(self) -> None:
        if self.training.device.type == "cuda":
            torch.cuda.synchronize(self.training.device)


def bench(
    scale: str,
    device: torch.device,
    steps: int = 4,
    repeats: int = 5,
    samples: int = 512,
    batch_size: int | None = None,
) -> pd.DataFrame:
    """Measured seconds an epoch, a row a kind, level and repeat.

    `kind` is `dense` (no masks), `masks` (sparse, nothing else), `freezing`, `sieving` or `both`; `flops_reduction` the
    wanted share that freezing removes, or the share of data removed, or each of both. An epoch under freezing is the
    mean over all epochs of the schedule, each at the step time measured with its number of frozen blocks.

    Args:
        scale: whose network, data shape and recipe are timed.
        device: where.
        steps: timed steps of a case in a repeat.
        repeats: how often each case is timed.
        samples: random images that the steps are drawn from.
        batch_size: samples a step; the scale's unless told.
    """
    batch = {} if batch_size is None else {"training.batch_size": batch_size}

    def training(method: str, removed: float = 0.0) -> Training:
        told = {"sparsity.method": method, "freezing.flops_reduction": 0.0, "sieving.removed": removed, **batch}
        run = Training(resolve(scale, told), random_splits(scale, samples), device, Clock())
        run.begin(0, Path())
        return run

    schedules = {
        level: plan_settings(
            resolve(
                scale, {"sparsity.method": "spfde", "freezing.flops_reduction": level, "sieving.removed": 0.0, **batch}
            )
        )
        for level in LEVELS
    }
    any_plan = schedules[LEVELS[0]]
    size, total = any_plan.settings.training.batch_size, any_plan.method.plan.steps_per_epoch
    most = max(max(plan.schedule.counts) for plan in schedules.values())
    plain, sieved = training("spfde"), training("spfde", 0.2)
    cases: dict[str, Case] = {"dense": Case(training("dense")), "sieved": Case(sieved)}
    cases |= {f"frozen {count}": Case(plain, count) for count in range(most + 1)}

    for case in cases.values():
        case.seconds(1)  # warms up
    everything = int(any_plan.samples[0])
    rows = []
    for repeat in range(repeats):
        step = {name: case.seconds(steps) for name, case in cases.items()}
        by_count = np.array([step[f"frozen {count}"] for count in range(most + 1)])
        overhead = step["sieved"] / by_count[0]  # what observing predictions adds to a step
        rows += [("dense", 0.0, repeat, total * step["dense"]), ("masks", 0.0, repeat, total * by_count[0])]
        for level in LEVELS:
            frozen = float(by_count[list(schedules[level].schedule.counts)].mean())
            fewer = -(-round(everything * (1 - level)) // size)
            rows.append(("freezing", level, repeat, total * frozen))
            rows.append(("sieving", level, repeat, fewer * step["sieved"]))
            rows.append(("both", level, repeat, fewer * frozen * overhead))
    frame = pd.DataFrame(rows, columns=["kind", "flops_reduction", "repeat", "seconds_per_epoch"])
    base = frame[frame.kind == "masks"].set_index("repeat").seconds_per_epoch
    frame["speedup"] = base.reindex(frame.repeat).to_numpy() / frame.seconds_per_epoch
    where = record.environment(device)
    frame["scale"], frame["model"], frame["batch_size"] = scale, any_plan.settings.model.name, size
    frame["device"], frame["threads"], frame["torch"] = where["device"], where["threads"], where["torch"]
    return frame


def summarise(repeats: pd.DataFrame) -> pd.DataFrame:
    """Mean, standard deviation and n over the repeats, a row a kind and level."""
    keys = ["kind", "flops_reduction", "scale", "model", "batch_size", "device", "threads", "torch"]
    groups = repeats.groupby(keys, sort=False)
    return groups.agg(
        seconds_per_epoch=("seconds_per_epoch", "mean"),
        std=("seconds_per_epoch", "std"),
        speedup=("speedup", "mean"),
        speedup_std=("speedup", "std"),
        n=("repeat", "count"),
    ).reset_index()


def random_splits(scale: str, samples: int) -> Splits:
    """Random images and labels of the shape of a scale's data set."""
    data = info(resolve(scale, {}).data.name)
    draws = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (samples, data.channels, data.size, data.size), generator=draws, dtype=torch.uint8)
    split = Split(images, torch.randint(0, data.classes, (samples,), generator=draws))
    return Splits(split, None, split)
