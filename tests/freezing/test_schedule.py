"""Freezing schedules: hand-written counts, the closed form of what they save, per-block cosines."""

import math
import re

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from spfde import freezing
from spfde.cost.profile import LayerProfile, Profile
from spfde.errors import SpfdeError
from spfde.experiments.resolve import resolve
from spfde.freezing import schemes
from spfde.freezing.schedule import blocks_to_freeze
from spfde.plans import plan_settings
from spfde.settings import FreezingSettings


def profile_of(macs: list[int]) -> Profile:
    """One layer a block, and a last one in no block."""
    layers = tuple(
        LayerProfile(str(index), "conv", mac, 10, 10, 10, index, index - 1) for index, mac in enumerate(macs)
    )
    blocks = len(macs) - 1
    return Profile(layers, blocks, 10 * len(macs), (0,) * (blocks + 1), (0,) * (blocks + 1))


def ledger_of(epochs: int, interval: int, macs: list[int], density: np.ndarray | None = None) -> freezing.Ledger:
    ones = np.ones((epochs, len(macs)))
    trained = ones if density is None else ones * density[:, None]
    return freezing.Ledger(interval, profile_of(macs), trained, trained, np.ones(len(macs)))


def solve(reduction: float, epochs: int = 20, interval: int = 2, share: float = 2 / 3) -> freezing.Schedule:
    settings = FreezingSettings(flops_reduction=reduction, share=share)
    return freezing.solve(settings, ledger_of(epochs, interval, [30, 20, 10, 40]))


def test_one_more_block_freezes_every_interval() -> None:
    assert (0, 0, 0, 1, 1, 1, 2, 2, 2, 2, 2, 2) in list(schemes.single_shot(schemes.Grid(12, 3, 4, 2)))


def test_the_latest_schedule_that_saves_enough_is_chosen() -> None:
    def saved(t_frz: int) -> float:
        """Backward is two thirds of a layer's cost; block 0 holds 0.3 of the MACs, block 1 0.2."""
        return 2 / 3 * (0.3 * (20 - t_frz) + 0.2 * (20 - t_frz - 2)) / 20

    for reduction in (0.05, 0.1, 0.2, 0.25):
        found = solve(reduction)
        assert found.t_frz is not None
        assert found.achieved == pytest.approx(saved(found.t_frz))
        assert saved(found.t_frz) >= reduction > saved(found.t_frz + 2)


def test_more_than_freezing_can_save_is_refused_with_what_it_can() -> None:
    with pytest.raises(SpfdeError, match=r"at most 0\.287\); lower it$"):
        solve(0.9)
    with pytest.raises(SpfdeError, match=r"at most 0\.000"):
        solve(0.9, epochs=3, interval=5)


@pytest.mark.parametrize(
    ("epochs", "interval", "share", "remedy", "changed"),
    [
        (40, 2, 1 / 3, "raise freezing.share", {"share": 1.0}),
        (10, 5, 2 / 3, "set sparsity.interval=2", {"interval": 2}),
        (20, 2, 1 / 3, "raise freezing.share and set sparsity.interval=1", {"share": 1.0, "interval": 1}),
    ],
)
def test_what_is_named_as_a_remedy_is_one(
    epochs: int, interval: int, share: float, remedy: str, changed: dict[str, float]
) -> None:
    wanted, told = {10: 0.2, 20: 0.35, 40: 0.33}[epochs], {"epochs": epochs, "interval": interval, "share": share}
    with pytest.raises(SpfdeError, match=f"lower it, or {re.escape(remedy)}$"):
        solve(wanted, **told)
    assert solve(wanted, **(told | changed)).achieved >= wanted


def test_no_reduction_freezes_nothing() -> None:
    assert solve(0.0) == freezing.Schedule((0,) * 20)


def test_a_denser_beginning_lowers_what_late_freezing_saves() -> None:
    epochs = 20
    density = np.where(np.arange(epochs) < 10, 2.0, 1.0)
    settings = FreezingSettings(flops_reduction=0.1)
    found = freezing.solve(settings, ledger_of(epochs, 2, [30, 20, 10, 40], density))
    by_hand = 0.0
    for epoch, frozen in enumerate(found.counts):
        by_hand += sum((30, 20)[:frozen]) * (3 * density[epoch] - 1)
    assert found.achieved == pytest.approx(by_hand / (100 * 3 * (10 * 2 + 10)))


def test_every_block_follows_its_own_cosine() -> None:
    schedule = freezing.Schedule((0, 0, 1, 1, 2, 2))
    rates = schedule.learning_rates(3, 0.1, 0.0)
    assert rates.shape == (6, 4)
    assert rates[:, 0] == pytest.approx([0.1, 0.05, 0, 0, 0, 0])
    assert rates[:, 1] == pytest.approx([0.05 * (1 + math.cos(math.pi * t / 4)) for t in range(4)] + [0, 0])
    assert rates[:, 3] == pytest.approx([0.05 * (1 + math.cos(math.pi * t / 6)) for t in range(6)])


def test_the_last_epoch_of_the_paper_runs_at_its_learning_rate() -> None:
    rates = freezing.Schedule((0,) * 160).learning_rates(1, 0.1, 4e-8)
    assert rates[-1, -1] == pytest.approx(9.6e-6, rel=0.01)


def test_a_thawed_block_goes_on_with_its_cosine() -> None:
    rates = freezing.Schedule((0, 1, 1, 0)).learning_rates(1, 1.0, 0.0)
    assert rates[:, 0] == pytest.approx([1.0, 0, 0, 0.5])


@given(st.integers(2, 60), st.integers(1, 10), st.integers(1, 8))
def test_freezing_is_monotone_and_on_the_grid(epochs: int, interval: int, wanted: int) -> None:
    for counts in schemes.single_shot(schemes.Grid(epochs, interval, 8, wanted)):
        assert len(counts) == epochs
        assert list(counts) == sorted(counts)
        changes = [e for e in range(1, epochs) if counts[e] != counts[e - 1]]
        assert all(epoch % interval == 0 for epoch in changes)
        assert freezing.Schedule(counts).t_frz in changes and max(counts) <= wanted


@pytest.mark.parametrize(
    ("blocks", "share", "count"), [(15, 2 / 3, 10), (3, 2 / 3, 2), (9, 2 / 3, 6), (4, 0.1, 1), (5, 1, 5)]
)
def test_share_of_blocks(blocks: int, share: float, count: int) -> None:
    assert blocks_to_freeze(FreezingSettings(share=share), blocks) == count


GRID = schemes.Grid(epochs=16, interval=2, blocks=4, wanted=2, resume=0.25)
SHOT = (0,) * 10 + (1, 1) + (2,) * 4


def test_resume_freezes_earlier_by_what_it_thaws_at_the_end() -> None:
    first = next(schemes.resume(GRID, SHOT))
    assert first == (0,) * 6 + (1, 1) + (2,) * 4 + (0,) * 4
    epochs = np.array([SHOT, first])
    assert [(row >= 1).sum() for row in epochs] == [6, 6] and [(row >= 2).sum() for row in epochs] == [4, 4]
    ledger = ledger_of(16, 2, [30, 20, 10, 15, 25])
    assert ledger.saved(freezing.Schedule(first)) == pytest.approx(ledger.saved(freezing.Schedule(SHOT)))


def test_resume_stays_as_frozen_as_single_shot_ends_until_it_thaws() -> None:
    """Whatever the thaw epoch: those from the first freeze epoch of single-shot on, nearest to the wanted one first."""
    earlier = (0,) * 6 + (1, 1) + (2,) * 8
    thaws = [12, 11, 13, 10, 14, 15]
    assert list(schemes.resume(GRID, SHOT)) == [earlier[:thaw] + (0,) * (16 - thaw) for thaw in thaws]


def test_resume_thaws_for_one_interval_at_least() -> None:
    """A tenth of 16 epochs is less than the interval of 2."""
    grid = schemes.Grid(epochs=16, interval=2, blocks=4, wanted=2, resume=0.1)
    assert next(schemes.resume(grid, SHOT)) == (0,) * 8 + (1, 1) + (2,) * 4 + (0,) * 2


def test_resume_needs_room_before_the_first_freeze_epoch() -> None:
    assert not list(schemes.resume(GRID, (0, 0) + (1, 1) + (2,) * 12))


def test_periodic_trains_super_blocks_one_epoch_in_four_and_in_two() -> None:
    candidates = list(schemes.periodic(GRID, SHOT))
    assert (0, 2, 1, 2) * 4 in candidates
    for counts in candidates:
        assert set(counts) <= {0, 1, 2, 3}  # the last block always trains
    active = np.array((0, 2, 1, 2) * 4)[:, None] <= np.arange(3)
    assert active.mean(axis=0).tolist() == [0.25, 0.5, 1.0]


def test_delayed_periodic_trains_all_blocks_first() -> None:
    first = next(counts for counts in schemes.delayed_periodic(GRID, SHOT) if any(counts))
    assert first[:4] == (0,) * 4 and first[4:8] == (0, first[5], first[6], first[7]) and first[5] == first[7]


def test_random_freeze_epochs_are_ordered_on_the_grid_and_follow_the_seed() -> None:
    for counts, _ in zip(schemes.random(GRID, SHOT), range(50), strict=False):
        assert list(counts) == sorted(counts) and counts[0] == 0 and counts[-1] == 2
        assert all(counts[epoch] == counts[epoch - 1] for epoch in range(1, 16, 2))
    one, two = (next(schemes.random(schemes.Grid(160, 5, 15, 10, seed=seed), SHOT)) for seed in (1, 2))
    assert one != two and one == next(schemes.random(schemes.Grid(160, 5, 15, 10, seed=1), SHOT))


def test_a_thawed_block_keeps_its_final_density_until_the_next_update() -> None:
    settled = freezing.Schedule((0, 0, 1, 0, 0, 1, 0)).settled(1, 2)
    assert settled[:, 0].tolist() == [False, False, True, True, False, True, False]
    assert not settled[:, 1].any()


def test_savings_of_a_thawed_block_by_hand() -> None:
    """Dense 2 while trained, 1 once settled; an epoch costs 6 trained, 1 frozen, 3 thawed and not grown yet."""
    ledger = ledger_of(4, 4, [1, 0], np.full(4, 2.0))
    assert ledger.saved(freezing.Schedule((0, 1, 0, 0))) == pytest.approx(1 - (6 + 1 + 3 + 3) / 24)


@pytest.mark.parametrize("scale", ["smoke", "cifar100"])
@pytest.mark.parametrize("level", [0.1, 0.15, 0.2, 0.25])
def test_schemes_cost_the_same_in_the_ledger(scale: str, level: float) -> None:
    """The plan's trace, and so the `paper` column, is counted apart from the solver."""
    flops = {}
    for scheme in ("single-shot", *schemes.SCHEMES):
        values = {"sparsity.method": "spfde", "freezing.flops_reduction": level, "sieving.removed": 0.0}
        plan = plan_settings(resolve(scale, {**values, "freezing.scheme": scheme}))
        flops[scheme] = plan.costs(plan.trace())[0]["paper"]
        without = plan_settings(resolve(scale, {**values, "freezing.flops_reduction": 0.0}))
        full = without.costs(without.trace())[0]["paper"]
        assert plan.schedule.achieved == pytest.approx(1 - flops[scheme] / full, abs=1e-9)
    for scheme in schemes.SCHEMES:
        assert flops[scheme] == pytest.approx(flops["single-shot"], rel=0.01)


def test_a_scheme_that_cannot_cost_the_same_is_refused() -> None:
    settings = FreezingSettings(flops_reduction=0.28, scheme="single-shot-resume")
    with pytest.raises(SpfdeError, match=r"single-shot-resume cannot save the 0\.287 that single-shot saves"):
        freezing.solve(settings, ledger_of(20, 2, [30, 20, 10, 40]))


FREEZES = {"freezing.flops_reduction": 0.1, "sparsity.target": 0.9}


@pytest.mark.parametrize("method", ["static", "dense", "set", "spfde", "mest-ems", "rigl", "swat-u", "deepr"])
@pytest.mark.parametrize("scheme", ["single-shot", "single-shot-resume"])
def test_what_was_planned_and_happens_saves_what_was_planned(method: str, scheme: str) -> None:
    plan = plan_settings(resolve("smoke", {**FREEZES, "sparsity.method": method, "freezing.scheme": scheme}))
    near = 2e-3 if method == "rigl" else 1e-12  # the ledger takes dense gradients of a thawed layer as sparse ones
    assert plan.saved_by_freezing(plan.trace()) == pytest.approx(plan.schedule.achieved, abs=near)


@pytest.mark.parametrize("method", ["snip", "dsr"])
def test_what_freezing_saved_goes_by_the_real_densities(method: str) -> None:
    """A frozen layer of real density f costs f in place of 3 f; samples do not matter (shares before sieving)."""
    plan = plan_settings(resolve("smoke", {**FREEZES, "sparsity.method": method}))
    layers, epochs = plan.profile.layers, plan.settings.training.epochs
    density = np.random.default_rng(0).uniform(0.02, 0.4, (1, len(layers))).repeat(epochs, axis=0)
    trace = plan.trace(density, np.arange(100, 100 + epochs))
    macs = np.array([layer.macs for layer in layers])
    saved = 2 * (macs * density * plan.frozen).sum() / (3 * macs * density).sum()
    assert plan.saved_by_freezing(trace) == pytest.approx(saved)
    assert abs(saved - plan.schedule.achieved) > 0.005


def test_nothing_frozen_saves_exactly_nothing() -> None:
    for method in ("rigl", "swat-u", "spfde"):
        plan = plan_settings(resolve("smoke", {"sparsity.method": method, "freezing.flops_reduction": 0.0}))
        assert plan.saved_by_freezing(plan.trace()) == plan.schedule.achieved == 0.0
