"""When checkpoints are due, by a clock that the test moves."""

import pytest

from spfde.training import clock


class Hand:
    """A time that only the test moves, seconds."""

    now = 100.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def hand(monkeypatch: pytest.MonkeyPatch) -> Hand:
    hand = Hand()
    monkeypatch.setattr(clock, "time", hand)
    return hand


def test_a_checkpoint_every_few_seconds(hand: Hand) -> None:
    ours = clock.Clock()
    hand.now += 4.9
    assert not ours.due()
    hand.now += 0.1
    assert ours.due()
    ours.saved()
    assert not ours.due()
    hand.now += 5
    assert ours.due()


def test_slow_checkpoints_take_a_twentieth_of_the_time(hand: Hand) -> None:
    ours = clock.Clock()
    hand.now += 5
    assert ours.due()
    hand.now += 2  # writing it
    ours.saved()
    hand.now += 39.9
    assert not ours.due()
    hand.now += 0.1
    assert ours.due()


def test_a_time_limit_and_a_signal_make_one_due(hand: Hand) -> None:
    limited, told = clock.Clock(limit=2), clock.Clock()
    told.signal = "SIGTERM"
    assert not limited.due() and told.due() and told.stopped == "SIGTERM"
    hand.now += 2
    assert limited.due() and limited.stopped == "the time limit of 2 s"
