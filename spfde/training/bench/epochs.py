"""What freezing and sieving save in time: SpFDE's Tables A11 and A12, measured on sparse training as the paper says.

Every case is a real training of consecutive epochs on random images: dense, sparse, sparse with freezing or sieving at
each level, and with both. Its mask updates, sieve updates, frozen blocks and partial sets are those of its schedule.
The cases take turns epoch by epoch, so that other work of the machine affects all of them alike. Only the ratios within
a repeat count. Evaluation is not timed.
"""

import time
from typing import Any

import pandas as pd
import torch

from spfde.execution import Wanted
from spfde.experiments.resolve import resolve
from spfde.kernels import available
from spfde.training.bench.random_data import random_splits
from spfde.training.bench.turns import clock
from spfde.training.clock import Clock
from spfde.training.environment import environment
from spfde.training.loop import step
from spfde.training.recorded import Steps, own_stream
from spfde.training.run import Training

LEVELS = (0.10, 0.15, 0.20, 0.25)
MODEL, SAMPLES, EPOCHS = "resnet20", 2000, 50  # the epochs are those of the paper, App. F


def bench(
    scale: str,
    device: torch.device,
    model: str | None = MODEL,
    epochs: int = EPOCHS,
    samples: int = SAMPLES,
    repeats: int = 2,
    batch_size: int | None = None,
) -> pd.DataFrame:
    """Measured seconds per epoch, one row for each kind, level and repeat.

    `kind` is `dense` (no masks), `masks` (sparse, nothing else), `freezing`, `sieving` or `both`; `flops_reduction` the
    wanted share that freezing removes, or the share of data removed, or each of both. Beside the seconds of a mean
    epoch stand its `steps`, `step_seconds` (of one) and `mask_updates` (seconds of all that happens between epochs:
    mask updates, sieve updates, freezing).

    Args:
        scale: whose data shape and recipe are timed.
        device: where.
        model: the network; by default that of the scale.
        epochs: consecutive epochs of each training.
        samples: random images of the training set.
        repeats: how often all trainings are timed.
        batch_size: samples per step; by default those of the scale.
    """
    told: dict[str, Any] = {"training.epochs": epochs, "sparsity.interval": max(2, epochs // 10)}
    told |= {"freezing.flops_reduction": 0.0, "sieving.removed": 0.0} | ({"model.name": model} if model else {})
    told |= {} if batch_size is None else {"training.batch_size": batch_size}
    cases: dict[tuple[str, float], dict[str, Any]] = {}
    cases |= {("dense", 0.0): {"sparsity.method": "dense"}, ("masks", 0.0): {"sparsity.method": "spfde"}}
    for level in LEVELS:
        shares = {"freezing": {"freezing.flops_reduction": level}, "sieving": {"sieving.removed": level}}
        for kind, share in {**shares, "both": shares["freezing"] | shares["sieving"]}.items():
            cases[kind, level] = {"sparsity.method": "spfde", **share}
    splits = random_splits(scale, samples)
    kernels: Wanted = "sparse" if device.type == "cpu" and available() else "dense"
    rows = []
    for repeat in range(repeats):
        with own_stream(device):
            trainings = {
                case: Steps(Training(resolve(scale, {**told, **own}), splits, device, Clock(), kernels=kernels), step)
                for case, own in cases.items()
            }
            between, steps, counts = (dict.fromkeys(cases, 0.0) for _ in range(3))
            for epoch in range(epochs):
                for case, make_step in trainings.items():
                    run = make_step.run
                    marks = [_now(device)]
                    run.begin(epoch)
                    marks.append(_now(device))
                    for batch in run.batches():
                        make_step(*batch)
                    make_step.forget()
                    marks.append(_now(device))
                    between[case] += marks[1] - marks[0]
                    steps[case] += marks[2] - marks[1]
                    counts[case] += run.done
            for (kind, level), count in counts.items():
                case = kind, level
                mean = count / epochs, steps[case] / count, between[case] / epochs
                rows.append((kind, level, repeat, *mean, (steps[case] + between[case]) / epochs))
    columns = ["kind", "flops_reduction", "repeat", "steps", "step_seconds", "mask_updates", "seconds_per_epoch"]
    frame = pd.DataFrame(rows, columns=columns)
    base = frame[frame.kind == "masks"].set_index("repeat").seconds_per_epoch
    frame["speedup"] = base.reindex(frame.repeat).to_numpy() / frame.seconds_per_epoch
    where, settings = environment(device), trainings["masks", 0.0].run.settings
    frame["scale"], frame["model"], frame["batch_size"] = scale, settings.model.name, settings.training.batch_size
    frame["samples"], frame["epochs"], frame["kernels"] = samples, epochs, kernels
    frame["device"], frame["threads"], frame["torch"] = where["device"], where["threads"], where["torch"]
    return frame


def summarise(repeats: pd.DataFrame) -> pd.DataFrame:
    """Mean, standard deviation and n over the repeats, one row for each kind and level."""
    told = ["scale", "model", "batch_size", "samples", "epochs", "kernels", "device", "threads", "torch"]
    groups = repeats.groupby(["kind", "flops_reduction", *told], sort=False)
    return groups.agg(
        seconds_per_epoch=("seconds_per_epoch", "mean"),
        std=("seconds_per_epoch", "std"),
        speedup=("speedup", "mean"),
        speedup_std=("speedup", "std"),
        n=("repeat", "count"),
    ).reset_index()


def _now(device: torch.device) -> float:
    """The time in seconds, after the device has finished its work."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
        return time.perf_counter()
    return clock()
