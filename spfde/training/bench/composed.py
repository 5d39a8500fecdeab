"""An epoch of a schedule, composed of measured steps: a step at every number of frozen blocks and density that it has.

A method such as SpFDE changes both from epoch to epoch. Timing all epochs would take as long as training; a schedule
has some ten combinations, and an epoch is its number of steps times the seconds of one, plus its evaluation and its
share of the updates.
"""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import torch

from spfde.api import SparseTraining
from spfde.planning import Plan
from spfde.sieving import update_epochs
from spfde.training.bench import turns
from spfde.training.bench.networks import Network, begun, dense_step, evaluation, masked_stepper

TEST, TEST_BATCH = 10_000, 500  # samples of the test set, and of a batch of evaluation


class Point(NamedTuple):
    """What a step depends on: frozen blocks, and the density of each layer, rounded."""

    frozen: int
    densities: tuple[float, ...]


def points(plan: Plan) -> list[Point]:
    """The point at which each epoch of a plan trains."""
    forward = np.where(plan.at_target, plan.settled, plan.forward)
    return [
        Point(count, tuple(row.round(3).tolist())) for count, row in zip(plan.schedule.counts, forward, strict=True)
    ]


def arranged(network: Network, plan: Plan, point: Point) -> SparseTraining:
    """A training that is at this point of the plan, with random masks of its densities."""
    settings = plan.settings
    freezing = settings.freezing.model_copy(update={"flops_reduction": 0.0})
    sieving = settings.sieving.model_copy(update={"removed": 0.0})
    sparse = begun(network, settings.model_copy(update={"freezing": freezing, "sieving": sieving}))
    known = dict(zip((layer.name for layer in plan.profile.layers), point.densities, strict=True))
    for layer in sparse.masks:
        draws = torch.Generator().manual_seed(0)
        layer.set_mask(layer.scheme.random(tuple(layer.weight.shape), known[layer.name], draws), None, sparse.optimizer)
    sparse.freeze(point.frozen)
    sparse.execution.begin(0)
    return sparse


def measured(network: Network, plan: Plan, count: int) -> pd.DataFrame:
    """Seconds by turn (rows), in these columns.

    "dense step" and "dense evaluation"; for number i of the plan's distinct points "step i" and "evaluation i"; and
    "update", a mask update of all blocks with the rebuilding of the kernels' structures.
    """
    images = network.images(TEST_BATCH)
    jobs: dict[str, Callable[[], Any]] = {"dense step": dense_step(network)}
    dense = network.build().to(memory_format=torch.channels_last)
    jobs["dense evaluation"] = evaluation(dense, images.to(memory_format=torch.channels_last))
    distinct = list(dict.fromkeys(points(plan)))
    for number, point in enumerate(distinct):
        sparse = arranged(network, plan, point)
        jobs[f"step {number}"] = masked_stepper(sparse, network.images())
        jobs[f"evaluation {number}"] = evaluation(sparse.model, images)
    jobs["update"] = update(arranged(network, plan, distinct[0]))
    return turns.take_turns(jobs, count)


def update(sparse: SparseTraining) -> Callable[[], Any]:
    """A mask update of the blocks that train, as at the start of an epoch."""
    epoch = sparse.settings.sparsity.interval

    def run() -> None:
        sparse.method.update(sparse, epoch, sparse.masks.trained)
        sparse.execution.prepare(0)

    return run


def compose(plan: Plan, everything: int, seconds: Mapping[str, Any], sieve_update: float) -> tuple[Any, Any]:
    """Seconds of a mean epoch of the plan and of a dense one, evaluation included in both; by turn, (turns,) each.

    Args:
        plan: the plan.
        everything: samples of the training set; a dense epoch sees all of them.
        seconds: what `measured` gives, (turns,) each. Every mask update counts as one of all blocks.
        sieve_update: seconds of an exchange of samples.
    """
    settings, distinct = plan.settings, list(dict.fromkeys(points(plan)))
    batch, interval, epochs = settings.training.batch_size, settings.sparsity.interval, settings.training.epochs
    evaluations = TEST // TEST_BATCH
    exchanges = len(update_epochs(plan.sieving, interval, epochs)) if plan.sieving.removed else 0
    total: Any = sieve_update * exchanges + seconds["update"] * len(range(0, epochs, interval))
    for samples, point in zip(plan.samples.tolist(), points(plan), strict=True):
        number = distinct.index(point)
        total = total + -(-samples // batch) * seconds[f"step {number}"] + evaluations * seconds[f"evaluation {number}"]
    dense = -(-everything // batch) * seconds["dense step"] + evaluations * seconds["dense evaluation"]
    return total / epochs, dense
