"""Sieving that removes what freezing achieves: the rows of Table A10 cost the same."""

import numpy as np
import pytest

from spfde.errors import SpfdeError
from spfde.experiments.resolve import expand, resolve
from spfde.planning import Plan
from spfde.plans import describe, plan_settings
from spfde.settings import RunSettings

LEVELS = 4


def cost(run: RunSettings) -> float:
    """FLOPs in the paper column, from the plan's own arrays: the trace of every row would take seconds more."""
    plan: Plan = plan_settings(run)
    macs = np.array([layer.macs for layer in plan.profile.layers], dtype=float)
    forward = np.where(plan.at_target, plan.settled, plan.forward)
    return float(2 * (plan.samples[:, None] * macs * forward * np.where(plan.frozen, 1, 3)).sum())


@pytest.mark.parametrize("scale", ["smoke", "cifar100", "cifar100-short"])
@pytest.mark.parametrize("target", [0.6, 0.9])
def test_freezing_sieving_and_both_cost_the_same(scale: str, target: float, monkeypatch: pytest.MonkeyPatch) -> None:
    import spfde.experiments.resolve as module

    whole = module.read_scale(scale).model_copy(
        update={"experiments": {}, "tiers": []}
    )  # all levels, at all sparsities
    monkeypatch.setattr(module, "read_scale", lambda name: whole)
    found = expand(scale, "tableA10", [1])
    rows = [run for run in found if run.sparsity.target == target and not run.tag]
    kinds = {
        kind: [run for run in rows if (run.freezing.flops_reduction > 0, run.sieving.removed > 0) == kind]
        for kind in ((True, False), (False, True), (True, True))
    }
    assert [len(kind) for kind in kinds.values()] == [LEVELS] * 3
    for frozen, sieved, both in zip(*kinds.values(), strict=True):
        wanted = cost(frozen)
        assert cost(sieved) == pytest.approx(wanted, rel=0.002), sieved.row
        assert cost(both) == pytest.approx(wanted, rel=0.002), both.row


def test_the_paper_column_is_what_cost_counts() -> None:
    run = next(run for run in expand("smoke", "tableA10", [1]) if run.freezing.flops_reduction and run.sieving.removed)
    plan = plan_settings(run)
    assert cost(run) == pytest.approx(plan.costs(plan.trace())[0]["paper"])


def test_the_share_that_is_removed_follows_from_the_plan() -> None:
    values = {"sparsity.method": "spfde", "freezing.flops_reduction": 0.0, "sieving.removed": 0.3}
    told = resolve("smoke", {**values, "sieving.equal_flops": True})
    plan, frozen = plan_settings(told), plan_settings(resolve("smoke", {"freezing.flops_reduction": 0.3, **FREEZE}))
    assert told.row == "spfde-s90-d30" and told.sieving.removed == 0.3
    assert plan.sieving.removed == pytest.approx(frozen.schedule.achieved) and plan.sieving.removed > 0.31
    assert describe(plan)["sieving_achieved"] == plan.sieving.removed
    assert plan.samples[0] == round(384 * (1 - frozen.schedule.achieved))
    assert plan_settings(resolve("smoke", values)).sieving.removed == 0.3


FREEZE = {"sparsity.method": "spfde", "sieving.removed": 0.0}


@pytest.mark.parametrize("more", [{"sieving.removed": 0.0}, {"sieving.schedule": "once"}])
def test_equal_flops_is_refused_where_it_has_no_meaning(more: dict[str, object]) -> None:
    with pytest.raises(SpfdeError, match="equal_flops = true goes with circular sieving of a share of the data"):
        resolve("smoke", {"sparsity.method": "spfde", "sieving.equal_flops": True, **more})
