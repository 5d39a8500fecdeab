"""Freezing schedules: hand-written counts, the closed form of what they save, per-block cosines."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from spfde import freezing
from spfde.cost.profile import LayerProfile, Profile
from spfde.errors import SpfdeError
from spfde.settings import FreezingSettings


def profile_of(macs: list[int]) -> Profile:
    """One layer a block, and a last one in no block."""
    layers = tuple(
        LayerProfile(str(index), "conv", mac, 10, 10, 10, index, index - 1) for index, mac in enumerate(macs)
    )
    blocks = len(macs) - 1
    return Profile(layers, blocks, 10 * len(macs), (0,) * (blocks + 1), (0,) * (blocks + 1))


def solve(reduction: float, epochs: int = 20, interval: int = 2, share: float = 2 / 3) -> freezing.Schedule:
    ones = np.ones((epochs, 4))
    settings = FreezingSettings(flops_reduction=reduction, share=share)
    return freezing.solve(settings, interval, profile_of([30, 20, 10, 40]), ones, ones, np.ones(4))


def test_one_more_block_freezes_every_interval() -> None:
    first = next(schedule for schedule in freezing.single_shot(12, 3, 2) if schedule.t_frz == 3)
    assert first.counts == (0, 0, 0, 1, 1, 1, 2, 2, 2, 2, 2, 2)


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
    with pytest.raises(SpfdeError, match=r"at most 0\.287"):
        solve(0.9)


def test_no_reduction_freezes_nothing() -> None:
    assert solve(0.0) == freezing.Schedule((0,) * 20)


def test_a_denser_beginning_lowers_what_late_freezing_saves() -> None:
    epochs = 20
    dense_first = np.ones((epochs, 4))
    dense_first[:10] = 2.0
    settings = FreezingSettings(flops_reduction=0.1)
    found = freezing.solve(settings, 2, profile_of([30, 20, 10, 40]), dense_first, dense_first, np.ones(4))
    by_hand = 0.0
    for epoch, frozen in enumerate(found.counts):
        density = dense_first[epoch, 0]
        by_hand += sum((30, 20)[:frozen]) * (3 * density - 1)
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
    for schedule in freezing.single_shot(epochs, interval, wanted):
        assert len(schedule.counts) == epochs
        assert list(schedule.counts) == sorted(schedule.counts)
        changes = [e for e in range(1, epochs) if schedule.counts[e] != schedule.counts[e - 1]]
        assert all(epoch % interval == 0 for epoch in changes)
        assert schedule.t_frz in changes and max(schedule.counts) <= wanted


@pytest.mark.parametrize(
    ("blocks", "share", "count"), [(15, 2 / 3, 10), (3, 2 / 3, 2), (9, 2 / 3, 6), (4, 0.1, 1), (5, 1, 5)]
)
def test_share_of_blocks(blocks: int, share: float, count: int) -> None:
    assert freezing.blocks_to_freeze(FreezingSettings(share=share), blocks) == count
