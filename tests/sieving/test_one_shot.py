"""The one-shot removal of samples by hand, and its schedule."""

import pytest
import torch

from spfde.errors import SpfdeError
from spfde.settings import SievingSettings
from spfde.sieving import SCHEDULES, Removal, samples_by_epoch, update_epochs

ONCE = SievingSettings(removed=0.24, schedule="once")


def see(sieve: Removal, predictions: list[str]) -> None:
    """Observes the predictions of samples 0, 1, ...: a string of 1 (correct) and 0 each, one an epoch."""
    for column in zip(*predictions, strict=True):
        sieve.observe(torch.arange(len(predictions)), torch.tensor([hit == "1" for hit in column]))


def test_the_least_forgotten_leave_once_and_never_learned_ones_last() -> None:
    sieve = Removal(8, SievingSettings(removed=0.5, schedule="once"), seed=1)
    assert sieve.partial.all() and not len(sieve.queue) and sieve.removed == 4
    see(sieve, ["1111", "0000", "1010", "0111", "1011", "0101", "0100", "0001"])
    sieve.update(4)
    # never forgotten: 0, 3, 7; once: 4, 5, 6; twice: 2; never learned: 1
    assert {0, 3, 7} < set(sieve.queue.tolist()) <= {0, 3, 7, 4, 5, 6}
    assert sieve.partial.sum() == 4 and not sieve.partial[sieve.queue].any()
    assert sieve.updates == 1


def test_never_learned_ones_leave_where_nothing_else_is_left() -> None:
    sieve = Removal(4, SievingSettings(removed=0.75, schedule="once"), seed=1)
    see(sieve, ["0000", "1010", "1111", "0000"])
    sieve.update(4)
    assert {1, 2} < set(sieve.queue.tolist())


@pytest.mark.parametrize("saved_at", [2, 6])
def test_resumes_before_and_after_the_removal(saved_at: int) -> None:
    def go(sieve: Removal, begin: int, end: int) -> Removal:
        for epoch in range(begin, end):
            if epoch == 4:
                sieve.update(epoch)
            members = sieve.partial.nonzero().flatten()
            correct = torch.rand(len(members), generator=torch.Generator().manual_seed(epoch)) < 0.5
            sieve.observe(members, correct)
        return sieve

    whole = go(Removal(50, ONCE, seed=3), 0, 8)
    half = Removal(50, ONCE, seed=3)
    half.load_state_dict(go(Removal(50, ONCE, seed=3), 0, saved_at).state_dict())
    for name, value in go(half, saved_at, 8).state_dict().items():
        assert torch.equal(value, whole.state_dict()[name]), name


def test_state_of_other_settings() -> None:
    with pytest.raises(SpfdeError, match="does not fit the settings"):
        Removal(50, ONCE, seed=3).load_state_dict(SCHEDULES["circular"](50, ONCE, seed=3).state_dict())


def test_removes_before_epoch_70_of_160() -> None:
    assert list(update_epochs(ONCE, 5, 160)) == [70]
    samples = samples_by_epoch(ONCE, 5, 160, 50_000)
    assert samples.tolist() == [50_000] * 70 + [38_000] * 90


def test_at_other_lengths_the_epoch_is_on_the_grid_of_updates() -> None:
    assert list(update_epochs(ONCE, 2, 30)) == [12]
    assert list(update_epochs(ONCE.model_copy(update={"interval": 1}), 2, 30)) == [13]
    assert list(update_epochs(SievingSettings(removed=0.2), 5, 20)) == [5, 10, 15]
    assert samples_by_epoch(SievingSettings(removed=0.2), 5, 3, 10).tolist() == [8, 8, 8]
    assert samples_by_epoch(SievingSettings(schedule="once"), 5, 3, 10).tolist() == [10, 10, 10]


def test_a_removal_before_anything_is_known_is_refused() -> None:
    with pytest.raises(SpfdeError, match=r"sieving\.start = 0\.4375 of 10 epochs is before the first update, epoch 5"):
        update_epochs(ONCE, 5, 10)
