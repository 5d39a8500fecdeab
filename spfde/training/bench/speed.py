"""What `spfde bench` measures: how much faster than the best dense training, part by part, with the goal of each.

Steps are whole training steps (forward, backward, optimizer, masks) through the public API on a fixed batch, against
the fastest dense fp32 step of PyTorch: oneDNN's, in the faster of both memory layouts. All numbers are ratios within a
turn (`turns`).
"""

import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pandas as pd
import torch

from spfde.data import Split
from spfde.experiments.resolve import resolve
from spfde.plans import plan_settings
from spfde.sieving import SCHEDULES
from spfde.training.bench import composed, sparseprop, turns
from spfde.training.bench.networks import (
    BATCH,
    SAMPLES,
    Network,
    dense_step,
    fixed_masks,
    sgd,
    sparse_step,
)
from spfde.training.bench.random_data import random_splits
from spfde.training.bench.research_loop import ResearchLoop
from spfde.training.bench.turns import Ratio, ratio, take_turns
from spfde.training.clock import Clock
from spfde.training.loop import step as training_step
from spfde.training.run import Training

SPARSITIES = (0.8, 0.9, 0.95, 0.98)
RESNET32, RESNET20 = Network("resnet32_2x"), Network("resnet20")
VGG19, RESNET18 = Network("vgg19"), Network("torchvision resnet18", 64)
FROZEN = 10  # of the 15 blocks of ResNet-32
PAPER = {"sparsity.method": "spfde", "sparsity.target": 0.9}
SPFDE = {**PAPER, "freezing.flops_reduction": 0.25, "sieving.removed": 0.25}

Goals = tuple[float, float, float, float]  # at SPARSITIES
ROWS: dict[str, Callable[[int], list[Ratio]]] = {}


def row(name: str) -> Callable[[Callable[[int], list[Ratio]]], Callable[[int], list[Ratio]]]:
    """Makes a measurement known by its name; it takes the number of turns."""

    def known(measure: Callable[[int], list[Ratio]]) -> Callable[[int], list[Ratio]]:
        ROWS[name] = measure
        return measure

    return known


def bench(names: list[str], count: int) -> Iterator[Ratio]:
    """The ratios of these rows, one after the other; one thread unless the row says otherwise."""
    for name in names:
        torch.set_num_threads(1)
        yield from ROWS[name](count)


def steps(name: str, network: Network, goals: Goals, count: int, frozen: int = 0, bf16: bool = False) -> list[Ratio]:
    """Dense steps over sparse ones, at each sparsity."""
    if bf16:
        dense = {"dense": dense_step(network, bf16=True)}
    else:
        layouts = {"dense": torch.channels_last, "dense NCHW": torch.contiguous_format}
        dense = {kind: dense_step(network, frozen, layout) for kind, layout in layouts.items()}
    found = take_turns(dense | {str(s): sparse_step(network, s, frozen) for s in SPARSITIES}, count)
    best = found[found[list(dense)].median().idxmin()]
    return [
        ratio(f"{name} at {sparsity:.0%}", best, found[str(sparsity)], goal)
        for sparsity, goal in zip(SPARSITIES, goals, strict=True)
    ]


@row("resnet32_2x")
def resnet32(count: int) -> list[Ratio]:
    return steps("resnet32_2x", RESNET32, (2.7, 4.2, 5.8, 8.0), count)


@row("frozen")
def frozen(count: int) -> list[Ratio]:
    name = f"resnet32_2x, {FROZEN} blocks frozen, against dense frozen,"
    return steps(name, RESNET32, (2.6, 4.1, 5.8, 8.5), count, FROZEN)


@row("bf16")
def bf16(count: int) -> list[Ratio]:
    return steps("resnet32_2x against bf16 autocast", RESNET32, (1.5, 2.2, 3.0, 4.2), count, bf16=True)


@row("resnet20")
def resnet20(count: int) -> list[Ratio]:
    return steps("resnet20", RESNET20, (2.5, 3.6, 4.5, 6.0), count)


@row("vgg19")
def vgg19(count: int) -> list[Ratio]:
    return steps("vgg19", VGG19, (2.0, 3.0, 4.0, 5.0), count)


@row("resnet18")
def resnet18(count: int) -> list[Ratio]:
    return steps("torchvision resnet18 at 64x64", RESNET18, (1.5, 2.2, 2.8, 3.3), count)


@row("two-threads")
def two_threads(count: int) -> list[Ratio]:
    torch.set_num_threads(2)
    return steps("resnet32_2x, two threads,", RESNET32, (2.5, 3.7, 4.7, 6.0), count)


@row("sparseprop")
def against_sparseprop(count: int) -> list[Ratio]:
    """SparseProp beside ours, where it is installed: dense steps over its steps, without a goal."""
    if not sparseprop.installed():
        return []
    jobs = {"dense": dense_step(RESNET32)}
    jobs |= {f"sparseprop {sparsity}": sparseprop.step(RESNET32, sparsity) for sparsity in SPARSITIES}
    found = take_turns(jobs, count)
    return [ratio(f"SparseProp, resnet32_2x at {s:.0%}", found["dense"], found[f"sparseprop {s}"]) for s in SPARSITIES]


@row("epoch")
def epoch(count: int) -> list[Ratio]:
    """An epoch of SpFDE 25%+25% at 90 % against a dense one, averaged over its schedule, evaluation included."""
    plan = plan_settings(resolve("cifar100", SPFDE))
    seconds = composed.measured(RESNET32, plan, count)
    sieve = SCHEDULES[plan.settings.sieving.schedule](SAMPLES, plan.settings.sieving, 0, "cpu")
    by_name = {str(name): column.to_numpy() for name, column in seconds.items()}
    spfde, dense = composed.compose(plan, SAMPLES, by_name, sieve_update(sieve))
    return [ratio("resnet32_2x, epoch of SpFDE 25%+25% at 90%, against dense", dense, spfde, 6.0)]


@row("loop")
def loop(count: int) -> list[Ratio]:
    """A plain research loop's step over ours, both on dense kernels; and of both the making of a batch alone."""
    settings = resolve("cifar100", {**PAPER, "model.name": "resnet20", "sieving.removed": 0.25})
    splits = random_splits("cifar100", 512)
    ours = Training(settings, splits, torch.device("cpu"), Clock(), kernels="dense")
    ours.begin(0)
    batches = endless(ours)
    model = RESNET20.build()
    masks = {f"{layer.name}.weight": layer.mask.clone() for layer in ours.sparse.masks}
    assert isinstance(splits.train, Split)
    plain = ResearchLoop(model, sgd(model), masks, splits.train, BATCH)
    loading = plain.batches()
    found = take_turns(
        {
            "plain": plain.step,
            "ours": lambda: training_step(ours, *next(batches)),
            "plain batch": lambda: next(loading),
            "our batch": lambda: next(batches),
        },
        count,
    )
    return [
        ratio("plain research loop, a step of resnet20 over ours", found["plain"], found["ours"], 1.2),
        ratio("DataLoader, a batch over ours", found["plain batch"], found["our batch"], 5.0),
    ]


def endless(run: Training) -> Iterator[Any]:
    """Batches of a run's epoch, again and again."""
    while True:
        run.done = 0
        yield from run.batches()


@row("updates")
def updates(count: int) -> list[Ratio]:
    """Mask update, rebuilding of the structures and sieve update, as shares of the sparse epoch that they precede."""
    plan = plan_settings(resolve("cifar100", SPFDE))
    sparse = fixed_masks(RESNET32, 0.9, sparsity__method="spfde", sparsity__dense_layers="first")
    sieve = SCHEDULES[plan.settings.sieving.schedule](SAMPLES, plan.settings.sieving, 0, "cpu")
    interval = plan.settings.sparsity.interval

    def rebuild() -> None:
        for layer in sparse.masks:
            layer.changes += 1
        sparse.execution.prepare(0)

    found = take_turns(
        {
            "step": sparse_step(RESNET32, 0.9),
            "masks": lambda: sparse.method.update(sparse, interval, sparse.masks.trained),
            "structures": rebuild,
        },
        count,
    )
    an_epoch = -(-int(plan.samples.min()) // BATCH) * found["step"]
    exchanges = np.array([sieve_update(sieve) for _ in range(count)])
    return [
        ratio("mask update, share of the epoch after it", found["masks"], an_epoch, 0.01, at_most=True),
        ratio("kernels' structures, share of the epoch after it", found["structures"], an_epoch, 0.01, at_most=True),
        ratio("sieve update, share of the epoch after it", exchanges, an_epoch, 0.01, at_most=True),
    ]


def sieve_update(sieve: Any) -> float:
    """Seconds of an exchange, after an interval of two epochs of random predictions."""
    everything = torch.arange(len(sieve.partial))
    for _ in range(2):
        sieve.observe(everything, torch.rand(len(everything)) < 0.5)
    start = turns.clock()
    sieve.update(0)
    return turns.clock() - start


@row("start")
def start(count: int) -> list[Ratio]:
    """The first step of a training, from the start of Python on, over the import of torch alone."""

    def run(code: str) -> Callable[[], Any]:
        return lambda: subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)

    first = "from spfde.training.bench.networks import Network, sparse_step; sparse_step(Network('resnet20'), 0.9)()"
    rows = []
    for _ in range(count):
        seconds = []
        for job in (run(first), run("import torch")):
            begin = time.perf_counter()  # the processes' own time is not this thread's
            job()
            seconds.append(time.perf_counter() - begin)
        rows.append(seconds)
    found = pd.DataFrame(rows, columns=["first", "torch"])
    return [
        ratio("start-up to the first step of resnet20, over importing torch", found["first"], found["torch"], 4.0, True)
    ]
