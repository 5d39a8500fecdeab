"""The sampler of an own loop: the orders it draws, and when it draws none."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch

from spfde import rng
from spfde.errors import SpfdeError
from spfde.sieving import PartialSetSampler


def training(epoch: int, member: list[int] | None) -> SimpleNamespace:
    inside = None if member is None else torch.tensor([index in member for index in range(20)])
    return SimpleNamespace(samples=20, epoch=epoch, partial_set=inside, generator=lambda *key: rng.generator(3, *key))


@pytest.mark.parametrize("epoch", [-1, 0, 4])
def test_a_partial_set_is_seen_in_the_order_of_the_whole(epoch: int) -> None:
    """Also before the first epoch, whose order it then is."""
    whole, part = (
        list(PartialSetSampler(np.full(5, 20), lambda member=member: training(epoch, member)))  # type: ignore[misc]
        for member in (None, [1, 3, 4, 17])
    )
    assert sorted(whole) == list(range(20)) and whole != sorted(whole)
    assert part == [index for index in whole if index in (1, 3, 4, 17)]
    assert whole == torch.randperm(20, generator=rng.generator(3, "order", max(0, epoch))).tolist()


def test_its_length_is_the_epochs_count() -> None:
    counts = np.array([20, 15, 12])
    lengths = [len(PartialSetSampler(counts, lambda epoch=epoch: training(epoch, None))) for epoch in (-1, 0, 1, 2)]  # type: ignore[misc]
    assert lengths == [20, 20, 15, 12] and len(PartialSetSampler(counts, lambda: None)) == 20


def test_before_training_it_draws_nothing() -> None:
    with pytest.raises(SpfdeError, match="samples are drawn before training begins"):
        list(PartialSetSampler(np.full(5, 20), lambda: None))
