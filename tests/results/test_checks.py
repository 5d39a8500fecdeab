"""Checks of what must hold in every run, on plans that can be counted by hand."""

import math

import pytest

from spfde.experiments.resolve import resolve
from spfde.planning import Plan
from spfde.plans import plan_settings
from spfde.results.checks import overhead


def planned(**values: object) -> Plan:
    dotted = {key.replace("__", "."): value for key, value in values.items()}
    return plan_settings(resolve("smoke", {"sparsity.target": 0.9, **dotted}))


def operations(plan: Plan) -> float:
    return overhead(plan) * plan.costs(plan.trace())[0]["paper"]


def test_overhead_by_hand() -> None:
    """None of masks alone; four operations a sample and sorts of sieving; four a weight that freezes, once."""
    static = planned(sparsity__method="static")
    assert operations(static) == operations(planned(sparsity__method="mest")) == 0
    updates = len(range(0, static.settings.training.epochs, static.settings.sparsity.interval))
    sieved = planned(sparsity__method="static", sieving__removed=0.2)
    seen, most = int(sieved.samples.sum()), int(sieved.samples.max())
    assert operations(sieved) == pytest.approx(4 * seen + (updates - 1) * most * math.log2(most))
    frozen = planned(sparsity__method="mest", freezing__flops_reduction=0.2)
    block = {layer.name: layer.block for layer in frozen.profile.rows}
    inside = [math.prod(shape) for name, shape in frozen.shapes.items() if block[name] < max(frozen.schedule.counts)]
    assert 0 < len(inside) < len(frozen.shapes) and operations(frozen) == pytest.approx(4 * sum(inside))
    both = planned(sparsity__method="mest", freezing__flops_reduction=0.2, sieving__removed=0.2)
    assert operations(both) == pytest.approx(operations(frozen) + operations(sieved))
