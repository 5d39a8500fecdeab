"""What is held out, and how many samples a run trains on."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from spfde.data.split import DataInfo, Split, divide, stratified
from spfde.errors import SpfdeError
from spfde.settings import DataSettings


def make_split(labels: list[int]) -> Split:
    numbers = torch.arange(len(labels), dtype=torch.uint8).view(-1, 1, 1, 1)  # each image is its own number
    return Split(numbers, torch.tensor(labels))


def test_first_samples_then_held_out_ones() -> None:
    train, validation = divide(make_split([0, 1] * 50), DataSettings(train_limit=40, validation=0.25))
    assert isinstance(train, Split) and isinstance(validation, Split)
    parts = [split.images.flatten().tolist() for split in (train, validation)]
    assert sorted(parts[0] + parts[1]) == list(range(40)) and [len(part) for part in parts] == [30, 10]
    assert validation.labels.bincount().tolist() == [5, 5]
    for split in (train, validation):
        assert torch.equal(split.labels, split.images.flatten() % 2)  # labels stay with their images
        assert split.images.flatten().tolist() == sorted(split.images.flatten().tolist())  # and in their order


def test_nothing_held_out() -> None:
    train, validation = divide(make_split([0, 1, 2]), DataSettings())
    assert validation is None and len(train) == 3


def test_a_share_of_less_than_one_sample() -> None:
    with pytest.raises(SpfdeError, match=r"validation = 0\.1 is less than one of 4 samples; hold out a larger share"):
        divide(make_split([0, 1, 2, 0]), DataSettings(validation=0.1))


@given(labels=st.lists(st.integers(0, 4), min_size=1, max_size=80), share=st.floats(0, 0.5))
def test_each_class_in_proportion(labels: list[int], share: float) -> None:
    held = int(share * len(labels))
    chosen = stratified(torch.tensor(labels), held, "test")
    assert int(chosen.sum()) == held
    for label in set(labels):
        members = torch.tensor(labels) == label
        assert abs(int((chosen & members).sum()) - held * int(members.sum()) / len(labels)) < 1
    assert torch.equal(chosen, stratified(torch.tensor(labels), held, "test"))


def test_held_out_samples_are_drawn_at_random() -> None:
    chosen = stratified(torch.zeros(1000, dtype=torch.long), 200, "validation")
    assert 60 < int(chosen[:500].sum()) < 140
    assert not torch.equal(chosen, stratified(torch.zeros(1000, dtype=torch.long), 200, "other"))


@pytest.mark.parametrize(
    ("limit", "share", "expected"),
    [(None, 0.0, 1001), (100, 0.0, 100), (5000, 0.0, 1001), (None, 0.5, 500), (50, 0.1, 45)],
)
def test_planned_and_real_numbers_agree(limit: int | None, share: float, expected: int) -> None:
    settings = DataSettings(train_limit=limit, validation=share)
    info = DataInfo("x", 3, 1, 1, train_samples=1001, test_samples=1, mean=(0.5,), std=(0.5,))
    split = Split(torch.zeros(1001, 1, 1, 1, dtype=torch.uint8), torch.arange(1001) % 3)
    assert info.training_samples(settings) == len(divide(split, settings)[0]) == expected
