"""The plans of runs on known data sets and networks, without data and without training, and what is printed of them."""

import functools
from collections.abc import Iterable
from typing import Any

import torch
from torch import nn

from spfde.cost.profile import Profile, profile
from spfde.data import DataInfo, info
from spfde.experiments.recipes import recipe_of
from spfde.models import build
from spfde.planning import Plan, plan_run
from spfde.settings import RunSettings, SievingSettings
from spfde.sieving import update_epochs

PLANNED_FLOPS = ("paper", "full", "executed", "extra")
PLANNED_MEMORY = ("paper_min", "paper_avg", "full_peak")


def describe(plan: Plan) -> dict[str, Any]:
    """A plan as `spfde plan --json` prints it: shares as fractions, FLOPs and bytes as plain numbers.

    Costs are null where they depend on the mask that a method finds in training (`Method.unplannable`), the seed where
    all seeds have this plan.
    """
    settings = plan.settings
    flops: dict[str, float | None] = dict.fromkeys(PLANNED_FLOPS)
    memory: dict[str, Any] = dict.fromkeys(PLANNED_MEMORY)
    if not plan.method.unplannable:
        counted, ledger = plan.costs(plan.trace())
        flops = {name: counted[name] for name in flops}
        memory = {name: value for name, value in ledger.items() if name in memory}
    return {
        "row": settings.row,
        "row_digest": settings.row_digest,
        "seed": planned_seed(settings),
        "recipe": recipe_of(settings),
        "method": settings.sparsity.method,
        "title": plan.method.title,
        "sparsity": settings.sparsity.target,
        "sparsity_scheme": settings.sparsity.scheme,
        "freezing": settings.freezing.flops_reduction,
        "sieving": settings.sieving.removed,
        "sieving_achieved": plan.sieving.removed,
        **_exchanges(settings, plan.sieving),
        "dense_layers": settings.sparsity.dense_layers,
        "t_frz": plan.schedule.t_frz,
        "freezing_achieved": plan.schedule.achieved,
        "freezing_scheme": settings.freezing.scheme,
        "blocks": plan.profile.blocks,
        "frozen_blocks": list(plan.schedule.counts),
        "flops": flops,
        "not_in_paper": [product.name for product in plan.profile.products],
        "memory": memory,
    }


def _exchanges(settings: RunSettings, sieving: SievingSettings) -> dict[str, Any]:
    """How often samples change places, and what share of the removed set changes each time."""
    removed = sieving.removed
    if not removed:
        return {"sieving_updates": 0, "turnover": 0.0}
    updates = update_epochs(sieving, settings.sparsity.interval, settings.training.epochs)
    moved = removed * (1 if sieving.exchange == "total" else 1 - removed)
    turnover = 1.0 if sieving.schedule == "once" else min(moved, removed, 1 - removed) / removed
    return {"sieving_updates": len(updates), "turnover": turnover}


def planned_seed(settings: RunSettings) -> int | None:
    """The seed that a run's plan depends on, or none where all seeds of its row have the same plan."""
    return settings.seed if settings.freezing.flops_reduction and settings.freezing.scheme == "random" else None


def describe_rows(runs: Iterable[RunSettings], seeds: bool = False) -> list[dict[str, Any]]:
    """The plans of these runs, one per row and row digest, since nearly all rows have the same plan for all seeds.

    Args:
        runs: the runs.
        seeds: whether a row whose plan depends on the seed has one for each; else it has that of its first seed, which
            the plan names.
    """
    first: dict[tuple[str, str, int | None], RunSettings] = {}
    for run in runs:
        first.setdefault((run.row, run.row_digest, planned_seed(run) if seeds else None), run)
    return [describe(plan_settings(run)) for run in first.values()]


def plan_settings(settings: RunSettings) -> Plan:
    """The plan of a run on a known data set and model; needs no data."""
    data = info(settings.data.name)
    model, costs = known_model(settings.model.name, data, settings.model.width)
    return plan_run(settings, model, data.training_samples(settings.data), costs)


@functools.cache
def known_model(name: str, data: DataInfo, width: float) -> tuple[nn.Module, Profile]:
    """A model to plan with, and its profile: the same for all runs of a process, since profiling takes seconds."""
    with torch.random.fork_rng(devices=[]):
        model = build(name, data.classes, data.channels, data.size, width)
    return model, profile(model, (data.channels, data.size, data.size))
