"""GSE's claim, measured: a step's work grows linearly with a network's width, where dense work grows quadratically.

Heddes et al. (2024) keep the number of active weights of a unit constant while the network gets wider, so that
the density falls as 1 / width, and never compute a gradient outside masks and sample. Here a step's seconds and bytes
are measured for a dense network, for RigL, whose updates need the dense gradient, and for GSE, with their updates in
the share that their intervals give them. How they grow is told by the two widest networks alone: in narrow ones most of
the time goes into starting the operations, which does not grow, so that a power fitted to all widths is too small.

Beside it: a step over sparsity at one width, and the sparsity from which on sparse kernels are the faster ones.
"""

import resource
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from spfde import kernels
from spfde.api import SparseTraining
from spfde.experiments.resolve import nested
from spfde.models import build
from spfde.settings import RunSettings, parse
from spfde.training.bench.networks import Network, dense_step, masked_stepper, sgd, sparse_step, stepper
from spfde.training.bench.turns import take_turns

WIDTHS = (1, 2, 4, 8, 16)
DENSITY = 0.32  # at width 1; 0.02 at width 16
BATCH, CLASSES, SIZE, SAMPLES = 16, 10, 16, 640
INTERVALS = {"rigl": 100, "gse-uniform": 1000}  # steps between two updates in the papers' own CIFAR runs
METHODS = ("dense", "rigl", "gse-uniform")
SPARSITIES = (0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.98, 0.99)
KEYS = ["part", "method", "width", "sparsity"]


def bench(turns: int, widths: tuple[int, ...] = WIDTHS, network: Network | None = None) -> pd.DataFrame:
    """Seconds of a mean step by turn, and bytes of a process that takes steps, one row each.

    Columns: `part` ("width" or "sparsity"), `method` ("dense", "rigl", "gse-uniform"; "sparse" of part sparsity),
    `width`, `sparsity`, `turn`, `seconds`, `bytes` (what a process of its own needs beyond width 1; of part width).

    Args:
        turns: how often everything is timed.
        widths: multiples of ResNet-8's channels.
        network: whose steps are timed over sparsity; ResNet-32 2x by default.
    """
    torch.set_num_threads(1)
    rows = [row for width in widths for row in _at_width(width, turns)]
    network = network or Network("resnet32_2x")
    jobs = {"dense": dense_step(network)} | {str(s): sparse_step(network, s) for s in SPARSITIES}
    found = take_turns(jobs, turns)
    for name in jobs:
        sparse = name != "dense"
        told = ("sparsity", "sparse" if sparse else "dense", 1, float(name) if sparse else 0.0)
        rows += [(*told, turn, seconds, np.nan) for turn, seconds in enumerate(found[name])]
    return pd.DataFrame(rows, columns=[*KEYS, "turn", "seconds", "bytes"])


def _at_width(width: int, turns: int) -> Iterator[tuple[Any, ...]]:
    jobs: dict[str, Callable[[], Any]] = {"dense": _dense(width)}
    for method in INTERVALS:
        sparse = _training(method, width)
        step = masked_stepper(sparse, _images(), CLASSES)
        jobs[method], jobs[f"{method} update"] = step, _update(sparse, step)
    found = take_turns(jobs, turns)
    for method, interval in INTERVALS.items():  # RigL's update takes the place of a step, GSE's comes after one
        steps = interval + (method == "rigl")
        found[method] = (interval * found[method] + found[f"{method} update"]) / steps
    for method in METHODS:
        size = _measure_bytes(method, width) if width > 1 else np.nan  # what width 1 needs is taken off everywhere
        sparsity = 0.0 if method == "dense" else 1 - DENSITY / width
        yield from (
            ("width", method, width, sparsity, turn, seconds, size) for turn, seconds in enumerate(found[method])
        )


def _images() -> Tensor:
    images = torch.randn(BATCH, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(1))
    return images.to(memory_format=torch.channels_last)


def _dense(width: int) -> Callable[[], Any]:
    model = build("resnet8", CLASSES, 3, SIZE, float(width)).train()
    return stepper(model, sgd(model), _images(), classes=CLASSES)


def _training(method: str, width: int) -> SparseTraining:
    """A training of few samples, whose every step is far from an update of its own."""
    model = build("resnet8", CLASSES, 3, SIZE, float(width)).train()
    sparsity = {"method": method, "target": 1 - DENSITY / width, "distribution": "uniform", "dense_layers": "first"}
    told = {"sparsity": {**sparsity, "options": {"scale_interval": False, "interval_steps": 10**6}}}
    settings = parse(RunSettings, nested({**told, "training.batch_size": BATCH}))
    draws = torch.Generator().manual_seed(2)
    images, labels = torch.randn(SAMPLES, 3, SIZE, SIZE, generator=draws), torch.arange(SAMPLES) % CLASSES
    sparse = SparseTraining(
        model,
        sgd(model),
        settings,
        input_shape=(3, SIZE, SIZE),
        samples=SAMPLES,
        fetch=lambda indices: (images[indices], labels[indices]),
        kernels="sparse" if kernels.available() else "dense",
    )
    sparse.begin_epoch(0)
    return sparse


def _update(sparse: SparseTraining, step: Callable[[], Any]) -> Callable[[], Any]:
    """One mask update with all that it takes: a step of dense gradients, or gradients of the sample."""
    method: Any = sparse.method

    def run() -> None:
        due, method.is_update = method.is_update, lambda step: True
        if sparse.method.name == "rigl":
            sparse.execution.prepare(sparse.step)  # the step runs dense
            step()
        else:
            method.after_step(sparse, 0)
        method.is_update = due
        sparse.execution.prepare(sparse.step)

    return run


def _measure_bytes(method: str, width: int) -> float:
    """What steps and an update need at most, in a process of their own, beyond what those of width 1 left there."""
    command = [sys.executable, "-m", "spfde.training.bench.scaling", method, str(width)]
    shown = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    return float(shown.split()[-1])


class Growth(NamedTuple):
    """With which power of the width something grows: that of the medians, and the least and greatest of all turns."""

    power: float
    low: float
    high: float

    def __str__(self) -> str:
        low, high = f"{self.low:.2f}", f"{self.high:.2f}"
        return f"{self.power:.2f}" if low == high else f"{self.power:.2f} ({low} to {high})"


def growth(frame: pd.DataFrame, column: str) -> dict[str, Growth]:
    """The power of the width between the two widest networks, by method."""
    narrow, wide = widest(frame)
    of, found = frame[frame.part == "width"], {}
    for method in METHODS:
        values = of[of.method == method].pivot(index="turn", columns="width", values=column)
        turns = np.log(values[wide] / values[narrow]) / np.log(wide / narrow)
        medians = values.median()
        power = np.log(medians[wide] / medians[narrow]) / np.log(wide / narrow)
        found[method] = Growth(float(power), float(turns.min()), float(turns.max()))
    return found


def widest(frame: pd.DataFrame) -> tuple[int, int]:
    """The two widest networks that were measured, as multiples of ResNet-8's channels."""
    narrow, wide = sorted(frame.loc[frame.part == "width", "width"].unique())[-2:]
    return int(narrow), int(wide)


def break_even(frame: pd.DataFrame) -> float | None:
    """The sparsity from which on sparse kernels are faster; none where they nowhere are.

    Between two sparsities that were measured the ratio is taken to change evenly. It is the lowest one measured where
    they are faster from there on.
    """
    of = frame[frame.part == "sparsity"]
    medians = of.groupby("sparsity").seconds.median()
    dense, sparse = medians[0.0], medians.drop(0.0)
    ratio = (dense / sparse).to_numpy()
    level = sparse.index.to_numpy(float)
    if ratio[0] >= 1:
        return float(level[0])
    above = np.flatnonzero(ratio >= 1)
    if not len(above):
        return None
    end = above[0]
    return float(np.interp(1.0, ratio[end - 1 : end + 1], level[end - 1 : end + 1]))


def summary(frame: pd.DataFrame) -> str:
    """Exponents at the wide end and the break-even point, for people."""
    lines = []
    narrow, wide = widest(frame)
    for column in ("seconds", "bytes"):
        powers = (f"{method} {one}" for method, one in growth(frame, column).items())
        lines.append(f"exponent of the width from {narrow} to {wide}, {column}: {', '.join(powers)}")
    point = break_even(frame)
    lines.append("sparse kernels are nowhere faster" if point is None else f"break-even at {point:.0%} sparsity")
    return "\n".join(lines)


def _main(method: str, width: int) -> None:
    torch.set_num_threads(1)
    _run(method, 1)  # what the libraries keep for themselves, once they have been used
    before = _forget_peak()
    _run(method, width)
    print(_peak() - before)


def _run(method: str, width: int) -> None:
    """Two steps and an update."""
    if method == "dense":
        step = update = _dense(width)
    else:
        sparse = _training(method, width)
        step = masked_stepper(sparse, _images(), CLASSES)
        update = _update(sparse, step)
    for job in (step, step, update):
        job()


def _forget_peak() -> int:
    """Bytes that the process has now; from here on `_peak` counts anew, on Linux."""
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        return _peak()
    return _status("VmRSS")


def _peak() -> int:
    """Bytes that the process has had at most."""
    try:
        return _status("VmHWM")
    except OSError:
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def _status(name: str) -> int:
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(f"{name}:"))


if __name__ == "__main__":
    _main(sys.argv[1], int(sys.argv[2]))
