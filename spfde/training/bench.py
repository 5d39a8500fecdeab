"""Measures what freezing and sieving save in time (SpFDE's Tables A11 and A12), and the overhead of masks and sieving.

These are measured in every repeat, on random images of the data set's shape (no data are needed):

* a whole training step (loader, forward, backward, optimizer, masks, sieving) of dense training, of sparse training at
  every number of frozen blocks that a schedule has, and of every sieving level on its own partial set;
* a mask update, block by block;
* a sieve update of every level, with as many samples as the data set has.

Composed of these, within the repeat: an epoch is its number of steps times their time, plus its share of the updates,
which come once in an update interval. Under freezing, steps and mask updates are the means over the schedule's epochs;
under both, a step is freezing's times what sieving at this level adds to a step of masks alone. Not timed: evaluation,
and the last pruning of a block that freezes, once in training.

All cases take turns within every repeat, so that other work of the machine affects all of them alike. Only the ratios
within a repeat count.
"""

import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import torch

from spfde.data import Split, Splits, info
from spfde.experiments.resolve import resolve
from spfde.planning import plan_settings
from spfde.sieving import SCHEDULES, Sieve, update_epochs
from spfde.training.clock import Clock
from spfde.training.environment import environment
from spfde.training.loop import step
from spfde.training.run import Training

LEVELS = (0.10, 0.15, 0.20, 0.25)


@dataclass
class Case:
    """A training whose steps are timed, with a number of leading blocks frozen."""

    training: Training
    frozen: int = 0

    def seconds(self, steps: int) -> float:
        """Mean seconds of a step."""
        self.training.sparse.freeze(self.frozen)
        batches, device = self._batches(), self.training.device
        start = _now(device)
        for _ in range(steps):
            step(self.training, *next(batches))
        return (_now(device) - start) / steps

    def _batches(self) -> Iterator[Any]:
        while True:
            self.training.done = 0
            yield from self.training.batches()


def bench(
    scale: str,
    device: torch.device,
    steps: int = 4,
    repeats: int = 5,
    samples: int = 512,
    batch_size: int | None = None,
) -> pd.DataFrame:
    """Measured seconds per epoch, one row for each kind, level and repeat.

    `kind` is `dense` (no masks), `masks` (sparse, nothing else), `freezing`, `sieving` or `both`. `flops_reduction` is
    the wanted share that freezing removes, or the share of data removed, or each of both. The parts of an epoch's time
    are in the columns `steps`, `step_seconds` (of one), `mask_updates` and `sieve_updates` (their seconds per epoch).

    Args:
        scale: whose network, data shape and recipe are timed.
        device: the device to measure on.
        steps: timed steps of a case in a repeat.
        repeats: how often each case is timed.
        samples: random images that the steps are drawn from.
        batch_size: samples per step; by default the scale's.
    """
    batch = {} if batch_size is None else {"training.batch_size": batch_size}

    def training(method: str, removed: float = 0.0) -> Training:
        told = {"sparsity.method": method, "freezing.flops_reduction": 0.0, "sieving.removed": removed, **batch}
        run = Training(resolve(scale, told), random_splits(scale, samples), device, Clock())
        run.begin(0)
        return run

    plans = {
        level: plan_settings(
            resolve(
                scale, {"sparsity.method": "spfde", "freezing.flops_reduction": level, "sieving.removed": 0.0, **batch}
            )
        )
        for level in LEVELS
    }
    any_plan = plans[LEVELS[0]]
    settings, everything = any_plan.settings, int(any_plan.samples[0])
    size, epochs, interval = settings.training.batch_size, settings.training.epochs, settings.sparsity.interval
    counts = {level: np.array(plan.schedule.counts) for level, plan in plans.items()}
    most = max(int(count.max()) for count in counts.values())
    plain, sieved = training("spfde"), {level: training("spfde", level) for level in LEVELS}
    sieving = {level: run.settings.sieving for level, run in sieved.items()}
    sieves = {level: SCHEDULES[told.schedule](everything, told, 0, device) for level, told in sieving.items()}
    cases: dict[str, Case] = {"dense": Case(training("dense"))}
    cases |= {f"frozen {count}": Case(plain, count) for count in range(most + 1)}
    cases |= {f"sieved {level}": Case(run) for level, run in sieved.items()}

    def measure(cases: dict[str, Case], steps: int) -> tuple[dict[str, float], np.ndarray, dict[float, float]]:
        """Seconds of a step of each case, of a mask update by frozen blocks, and of a sieve update by level."""
        step = {name: case.seconds(steps) for name, case in cases.items()}
        blocks = mask_update_seconds(plain)
        update = np.array([sum(blocks[count:]) for count in range(most + 1)])
        return step, update, {level: sieve_update_seconds(sieve) for level, sieve in sieves.items()}

    warming = {case.training: name for name, case in reversed(cases.items())}  # the first case of each training
    measure({name: cases[name] for name in warming.values()}, 1)
    rows: list[tuple[str, float, int, int, float, float, float]] = []
    total = -(-everything // size)
    for repeat in range(repeats):
        step, update, exchange = measure(cases, steps)
        by_count = np.array([step[f"frozen {count}"] for count in range(most + 1)])
        masks = float(update[0]) * len(range(0, epochs, interval)) / epochs
        rows.append(("dense", 0.0, repeat, total, step["dense"], 0.0, 0.0))
        rows.append(("masks", 0.0, repeat, total, by_count[0], masks, 0.0))
        for level in LEVELS:
            frozen, trained = by_count[counts[level]].mean(), update[counts[level][::interval]].sum() / epochs
            seen, told = step[f"sieved {level}"], sieving[level]
            fewer = -(-(everything - sieves[level].removed) // size)
            exchanges = exchange[level] * len(update_epochs(told, interval, epochs)) / epochs
            rows.append(("freezing", level, repeat, total, frozen, trained, 0.0))
            rows.append(("sieving", level, repeat, fewer, seen, masks, exchanges))
            rows.append(("both", level, repeat, fewer, frozen * seen / by_count[0], trained, exchanges))
    columns = ["kind", "flops_reduction", "repeat", "steps", "step_seconds", "mask_updates", "sieve_updates"]
    frame = pd.DataFrame(rows, columns=columns)
    frame["seconds_per_epoch"] = frame.steps * frame.step_seconds + frame.mask_updates + frame.sieve_updates
    base = frame[frame.kind == "masks"].set_index("repeat").seconds_per_epoch
    frame["speedup"] = base.reindex(frame.repeat).to_numpy() / frame.seconds_per_epoch
    where = environment(device)
    frame["scale"], frame["model"], frame["batch_size"] = scale, settings.model.name, size
    frame["device"], frame["threads"], frame["torch"] = where["device"], where["threads"], where["torch"]
    return frame


def summarise(repeats: pd.DataFrame) -> pd.DataFrame:
    """Mean, standard deviation and n over the repeats, one row for each kind and level."""
    keys = ["kind", "flops_reduction", "scale", "model", "batch_size", "device", "threads", "torch"]
    groups = repeats.groupby(keys, sort=False)
    return groups.agg(
        seconds_per_epoch=("seconds_per_epoch", "mean"),
        std=("seconds_per_epoch", "std"),
        speedup=("speedup", "mean"),
        speedup_std=("speedup", "std"),
        n=("repeat", "count"),
    ).reset_index()


def mask_update_seconds(training: Training) -> list[float]:
    """Seconds of a mask update, by block, since frozen blocks have none. The classifier counts as the last block."""
    sparse, seconds = training.sparse, []
    for block in range(len(sparse.blocks) + 1):
        layers = [layer for layer in sparse.masks if layer.block == block]
        start = _now(training.device)
        sparse.method.update(sparse, training.settings.sparsity.interval, layers)
        seconds.append(_now(training.device) - start)
    return seconds


def sieve_update_seconds(sieve: Sieve) -> float:
    """Seconds of an exchange, after an interval of two epochs of random predictions."""
    device, everything = sieve.partial.device, torch.arange(len(sieve.partial), device=sieve.partial.device)
    for _ in range(2):
        sieve.observe(everything, torch.rand(len(everything), device=device) < 0.5)
    start = _now(device)
    sieve.update(0)
    return _now(device) - start


def _now(device: torch.device) -> float:
    """The time in seconds, after the device has finished its work."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()


def random_splits(scale: str, samples: int) -> Splits:
    """Random images and labels of the shape of a scale's data set."""
    data = info(resolve(scale, {}).data.name)
    draws = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (samples, data.channels, data.size, data.size), generator=draws, dtype=torch.uint8)
    split = Split(images, torch.randint(0, data.classes, (samples,), generator=draws))
    return Splits(split, None, split)
