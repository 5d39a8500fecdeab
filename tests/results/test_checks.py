"""Checks of what must hold in every run, on plans that can be counted by hand."""

import math

import pytest

from spfde.experiments.resolve import resolve
from spfde.planning import Plan, plan_settings
from spfde.results.checks import overhead


def planned(**values: object) -> Plan:
    dotted = {key.replace("__", "."): value for key, value in values.items()}
    return plan_settings(resolve("smoke", {"sparsity.target": 0.9, **dotted}))


def operations(plan: Plan) -> float:
    return overhead(plan) * plan.costs(plan.trace())[0]["paper"]


def test_overhead_by_hand() -> None:
    """Masks times weights and gradients, four operations a sample; four a weight and mask update; sorts of sieving."""
    static = planned(sparsity__method="static")
    weights, epochs = sum(map(math.prod, static.shapes.values())), static.settings.training.epochs
    steps, seen = int(static.first_steps[-1]), int(static.samples.sum())
    assert operations(static) == pytest.approx(2 * weights * steps + 4 * seen)
    updates = len(range(0, epochs, static.settings.sparsity.interval))
    assert operations(planned(sparsity__method="mest")) - operations(static) == pytest.approx(4 * weights * updates)
    sieved = planned(sparsity__method="static", sieving__removed=0.2)
    steps, seen, most = int(sieved.first_steps[-1]), int(sieved.samples.sum()), int(sieved.samples.max())
    exchanges = (updates - 1) * most * math.log2(most)
    assert operations(sieved) == pytest.approx(2 * weights * steps + 4 * seen + exchanges)
