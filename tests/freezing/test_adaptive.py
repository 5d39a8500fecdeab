"""Freeze epochs that gradient norms choose: votes by hand, toy training, equal FLOPs, and the way back from a state."""

import copy
import itertools
from dataclasses import replace

import pytest
import torch
from torch import nn

from spfde.api import SparseTraining
from spfde.experiments.resolve import resolve
from spfde.freezing.adaptive import GradientCriterion, candidates
from spfde.freezing.schedule import Schedule
from spfde.plans import plan_settings
from tests.test_api import Net, block_state, make, train_epochs

EPOCHS = 24
ADAPTIVE = {"freezing__scheme": "adaptive", "freezing__flops_reduction": 0.15, "sparsity__target": 0.5}
Made = tuple[Net, torch.optim.SGD, SparseTraining]


def fade(model: Net, *names: str) -> None:
    """From now on these parts' gradients are a thousandth."""
    for name in names:
        for parameter in model.get_submodule(name).parameters():
            parameter.register_hook(lambda gradient: gradient * 1e-3)


def faded(*names: str) -> Made:
    """A run after all its epochs; gradients faded after the first interval."""
    run = make(EPOCHS, **ADAPTIVE)
    for epoch in train_epochs(*run, range(EPOCHS)):
        if epoch == 1:
            fade(run[0], *names)
    return run


def pool_of(sparse: SparseTraining) -> list[Schedule]:
    plan = sparse.plan
    shot = make(EPOCHS, **{**ADAPTIVE, "freezing__scheme": "single-shot"})[2].plan.schedule
    return candidates(plan.settings.freezing, plan.ledger, plan.settings.seed, shot)


def test_a_block_whose_gradients_vanish_freezes_before_one_whose_do_not() -> None:
    early, late = faded("one")[2], faded("two", "three")[2]
    first = [schedule.t_frz for schedule in pool_of(early) if schedule.t_frz != 2]  # at 2 none has faded yet
    assert early.plan.schedule.t_frz == min(first) < max(first) == late.plan.schedule.t_frz


def test_what_happened_is_in_the_trace_at_the_flops_of_single_shot() -> None:
    single = make(EPOCHS, **{**ADAPTIVE, "freezing__scheme": "single-shot"})[2].plan
    for names in (("one",), ("two", "three")):
        sparse = faded(*names)[2]
        counts = sparse.plan.schedule.counts
        assert counts != single.schedule.counts and sparse.plan.schedule in pool_of(sparse)
        trace = sparse.trace()
        frozen = trace.pivot(index="epoch", columns="layer", values="frozen").sum(axis=1)
        assert tuple(frozen) == counts  # each block has one layer
        paper = [plan.costs(plan.trace())[0]["paper"] for plan in (sparse.plan, single)]
        assert paper[0] == pytest.approx(paper[1], rel=0.01)
        assert sparse.plan.costs(trace)[0]["paper"] == pytest.approx(paper[0])
        assert sparse.plan.schedule.achieved == pytest.approx(sparse.plan.ledger.saved(Schedule(counts)))


def test_nothing_in_a_frozen_block_moves_and_rates_follow_the_plan() -> None:
    model, optimizer, sparse = make(EPOCHS, **ADAPTIVE)
    fade(model, "one")
    assert sparse.plan.schedule.counts[0] == 0
    held: dict[int, dict[str, torch.Tensor]] = {}
    happened = []
    for epoch in train_epochs(model, optimizer, sparse, range(EPOCHS)):
        happened.append(sparse.frozen_blocks)
        assert tuple(happened) == sparse.plan.schedule.counts[: epoch + 1]
        rates = sparse.plan.schedule.learning_rates(3, 0.1, 4e-8)[epoch]
        assert [group["lr"] for group in optimizer.param_groups] == pytest.approx(rates.tolist())
        for index in range(sparse.frozen_blocks):
            now = block_state(model, optimizer, sparse, index)
            assert all(torch.equal(now[name], value) for name, value in held.setdefault(index, now).items())
    assert set(held) == {0, 1}
    assert all(before <= after for before, after in itertools.pairwise(happened))


@pytest.mark.parametrize("done", [3, 4, 11])
def test_state_goes_round_while_the_schedule_is_open(done: int) -> None:
    """After epochs in and at the end of an interval."""
    one, two = make(EPOCHS, **ADAPTIVE), make(EPOCHS, **ADAPTIVE)
    fade(one[0], "two", "three")
    fade(two[0], "two", "three")
    for _ in train_epochs(*one, range(done)):
        pass
    two[0].load_state_dict(one[0].state_dict())
    two[1].load_state_dict(copy.deepcopy(one[1].state_dict()))
    two[2].load_state_dict({name: value.clone() for name, value in one[2].state_dict().items()})
    assert two[2].plan.schedule == one[2].plan.schedule
    for run in (one, two):
        for _ in train_epochs(*run, range(done, EPOCHS)):
            pass
    assert one[2].plan.schedule == two[2].plan.schedule
    assert all(
        torch.equal(a, b) for a, b in zip(one[0].state_dict().values(), two[0].state_dict().values(), strict=True)
    )
    assert one[2].trace().equals(two[2].trace())


def test_votes_by_hand() -> None:
    """Each block has one weight: its norm is the gradient's size, times the root of the steps of the interval."""
    plan = make(8, freezing__flops_reduction=0.1)[2].plan
    weights = [nn.Parameter(torch.zeros(1)) for _ in range(3)]
    criterion = GradientCriterion(
        plan.candidates(), interval=2, blocks=3, block_of={weight: block for block, weight in enumerate(weights)}
    )
    counts = [(0, 0, 1, 1, 2, 2, 2, 2), (0, 0, 0, 0, 2, 2, 2, 2), (0, 0, 0, 0, 1, 1, 2, 2), (0, 0, 0, 0, 0, 0, 1, 2)]
    criterion.pool = [Schedule(each) for each in counts]
    criterion.left = list(criterion.pool)

    def interval(epoch: int, *sizes: float) -> list[tuple[int, ...]]:
        for weight, size in zip(weights, sizes, strict=True):
            weight.grad = torch.full((1,), size)
        criterion.observe()
        criterion.observe()
        criterion.decide(epoch)
        return [schedule.counts for schedule in criterion.left]

    assert interval(2, 8.0, 2.0, 1.0) == counts[1:]  # all are at 1, their first: none has settled
    assert interval(3, 0.0, 0.0, 0.0) == counts[1:]  # no boundary
    # Changes 0.5, 0.75, 0.5: the first block is below the mean, 7/12; the next one is above that of the others, 5/8.
    assert interval(4, 4.0, 1.5, 0.5) == counts[2:3]


def by_hand(counts: list[tuple[int, ...]], interval: int) -> tuple[GradientCriterion, list[nn.Parameter]]:
    """A criterion with these candidates for three blocks of one weight each."""
    weights = [nn.Parameter(torch.zeros(1)) for _ in range(3)]
    blocks = {weight: block for block, weight in enumerate(weights)}
    return GradientCriterion([Schedule(each) for each in counts], interval, 3, blocks), weights


def boundary(criterion: GradientCriterion, weights: list[nn.Parameter], epoch: int, *sizes: float) -> None:
    for weight, size in zip(weights, sizes, strict=True):
        weight.grad = torch.full((1,), size)
    criterion.observe()
    criterion.decide(epoch)


def test_gradients_count_as_long_as_two_candidates_are_left() -> None:
    counts = [(0, 0, 0, 0, 1, 1, 1, 1), (0, 0, 0, 0, 1, 1, 2, 2)]
    criterion, weights = by_hand(counts, 2)
    boundary(criterion, weights, 2, 8.0, 8.0, 8.0)
    boundary(criterion, weights, 4, 1.0, 8.0, 8.0)  # the first block has settled, as both say
    assert len(criterion.left) == 2
    boundary(criterion, weights, 6, 0.0, 1.0, 8.0)  # so has the second one
    assert criterion.schedule.counts == counts[1]


def test_at_the_first_boundary_no_block_was_frozen_before() -> None:
    """Every change is 1 there, so that no block has settled; also where that is the second epoch."""
    counts = [(0, 1, 2), (0, 0, 2)]
    criterion, weights = by_hand(counts, 1)
    boundary(criterion, weights, 1, 8.0, 4.0, 2.0)
    assert [schedule.counts for schedule in criterion.left] == counts[1:]


def test_where_no_candidate_agrees_all_stay() -> None:
    plan = make(8, freezing__flops_reduction=0.1)[2].plan
    weights = [nn.Parameter(torch.zeros(1)) for _ in range(3)]
    criterion = GradientCriterion(
        plan.candidates(), interval=2, blocks=3, block_of={weight: block for block, weight in enumerate(weights)}
    )
    criterion.left = [Schedule((0, 0, 0, 0, 1, 1, 2, 2)), Schedule((0, 0, 0, 0, 0, 0, 2, 2))]
    weights[1].grad, weights[2].grad = torch.ones(1), torch.ones(1)  # the first block has none: it has settled
    criterion.observe()
    criterion.decide(2)
    assert len(criterion.left) == 2


def test_a_planned_schedule_is_left_alone() -> None:
    model, optimizer, sparse = make(12, freezing__flops_reduction=0.2)
    planned = sparse.plan.schedule
    assert not [name for name in sparse.state_dict() if name.startswith("freezing.")]
    for _ in train_epochs(model, optimizer, sparse, range(12)):
        pass
    assert sparse.plan.schedule == planned


@pytest.mark.parametrize("level", [0.1, 0.15, 0.2, 0.25])
def test_every_candidate_costs_what_single_shot_does(level: float) -> None:
    """In the `paper` column, counted apart from the solver; there is more than one choice at every level."""
    values = {"sparsity.method": "spfde", "freezing.flops_reduction": level, "sieving.removed": 0.0}
    plan = plan_settings(resolve("smoke", {**values, "freezing.scheme": "adaptive"}))
    single = plan_settings(resolve("smoke", values))
    assert plan.schedule == single.schedule
    paper = single.costs(single.trace())[0]["paper"]
    found = candidates(plan.settings.freezing, plan.ledger, plan.settings.seed, plan.schedule)
    assert found[0] == single.schedule and len({schedule.t_frz for schedule in found}) > 1
    for schedule in found:
        other = replace(plan, schedule=schedule)
        assert other.costs(other.trace())[0]["paper"] == pytest.approx(paper, rel=0.01)
        assert list(schedule.counts) == sorted(schedule.counts) and schedule.counts[-1] == max(single.schedule.counts)
