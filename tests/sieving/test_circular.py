"""The sieve against plain Python, its invariants over random histories, and its switches by hand."""

import math
import random
import warnings
from fractions import Fraction
from typing import Any

import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st
from torch import nn

from spfde import SparseTraining, settings_for
from spfde.errors import SpfdeError, SpfdeWarning
from spfde.experiments.resolve import expand, resolve
from spfde.settings import RunSettings, SievingSettings
from spfde.sieving.circular import Sieve


def half_up(value: Fraction) -> int:
    return math.floor(value + Fraction(1, 2))


class PlainSieve:
    """Reference: lists, sets, dicts. What is random it takes from the sieve under test, and checks that it may be."""

    def __init__(self, sieve: Sieve, samples: int, removed: Fraction, setting: SievingSettings) -> None:
        self.setting, self.samples = setting, samples
        self.queue: list[int] = sieve.queue.tolist()
        assert len(self.queue) == half_up(removed * samples)
        self.partial = set(range(samples)) - set(self.queue)
        base = samples if setting.exchange == "total" else len(self.partial)
        self.moved = min(max(1, half_up(removed * base)), len(self.queue), len(self.partial))
        self.initial = set(self.queue)
        self.history: dict[int, list[bool]] = {i: [] for i in range(samples)}  # since it was last in the queue
        self.interval: dict[int, int] = dict.fromkeys(range(samples), 0)  # predictions within the interval

    def observe(self, sample: int, correct: bool) -> None:
        self.history[sample].append(correct)
        self.interval[sample] += 1

    def score(self, sample: int) -> float:
        recent = self.interval[sample]
        history = self.history[sample]
        if self.setting.never_learned == "hard" and not any(history[len(history) - recent :]):
            return math.inf
        before = history[len(history) - recent - 1 : -1] if len(history) > recent else [False, *history[:-1]]
        now = history[len(history) - recent :]
        return sum(was and not is_ for was, is_ in zip(before, now, strict=True)) if recent else 0

    def decided(self) -> float:
        """Share of the leaving samples that stay the same whichever way ties are broken."""
        if self.moved in (0, len(self.partial)):
            return 1.0
        if self.setting.criterion == "random":
            return 0.0
        scores = sorted(map(self.score, self.partial))
        last, first_to_stay = scores[self.moved - 1], scores[self.moved]
        return sum(score < first_to_stay or last < first_to_stay for score in scores[: self.moved]) / self.moved

    def check_update(self, before: list[int], after: list[int], partial_after: set[int]) -> None:
        assert before == self.queue
        arriving = partial_after - self.partial
        leaving = self.partial - partial_after
        assert len(arriving) == len(leaving) == self.moved
        if self.setting.criterion == "forgetting":
            stays = self.partial - leaving
            assert max(map(self.score, leaving)) <= min(map(self.score, stays), default=math.inf)
        self.initial -= arriving
        if self.setting.returns == "head":
            assert arriving == set(before[: self.moved])
        staying = [sample for sample in before if sample not in arriving]
        if self.setting.returns == "head" and self.initial:
            assert after[: len(staying)] == staying and set(after[len(staying) :]) == leaving
        else:
            assert set(after) == set(staying) | leaving
        for sample in leaving:
            self.history[sample] = []
        self.interval = dict.fromkeys(range(self.samples), 0)
        self.queue, self.partial = after, partial_after


def members(sieve: Sieve) -> set[int]:
    return set(sieve.partial.nonzero().flatten().tolist())


@given(
    samples=st.integers(2, 40),
    percent=st.integers(1, 70),
    criterion=st.sampled_from(["forgetting", "forgetting", "random"]),
    never_learned=st.sampled_from(["hard", "easy"]),
    exchange=st.sampled_from(["partial", "total"]),
    returns=st.sampled_from(["head", "random"]),
    epochs=st.integers(0, 3),
    updates=st.integers(1, 8),
    chance=st.sampled_from([0.1, 0.5, 0.9]),
    seed=st.integers(0, 10_000),
)
def test_agrees_with_plain_python(
    samples: int, percent: int, epochs: int, updates: int, chance: float, seed: int, **switches: Any
) -> None:
    setting = SievingSettings(removed=percent / 100, **switches)
    assume(0 < half_up(Fraction(percent, 100) * samples) < samples)
    sieve = Sieve(samples, setting, seed, "cpu")
    plain = PlainSieve(sieve, samples, Fraction(percent, 100), setting)
    assert members(sieve) == plain.partial
    draws = random.Random(seed)
    for update in range(1, updates + 1):
        for _ in range(epochs):
            order = draws.sample(sorted(plain.partial), len(plain.partial))
            for start in range(0, len(order), 7):
                batch = order[start : start + 7]
                correct = [draws.random() < chance for _ in batch]
                sieve.observe(torch.tensor(batch), torch.tensor(correct))
                for sample, hit in zip(batch, correct, strict=True):
                    plain.observe(sample, hit)
        before = sieve.queue.tolist()
        share = plain.decided()
        sieve.update(update)
        assert len(sieve.decided) == update and float(sieve.decided[-1]) == pytest.approx(share)
        plain.check_update(before, sieve.queue.tolist(), members(sieve))
        assert sorted([*members(sieve), *sieve.queue.tolist()]) == list(range(samples))


def see(sieve: Sieve, predictions: dict[int, str]) -> None:
    """Observes each sample's predictions, a string of 1 (correct) and 0, one an epoch."""
    for column in zip(*predictions.values(), strict=True):
        sieve.observe(torch.tensor(list(predictions)), torch.tensor([hit == "1" for hit in column]))


def test_least_forgotten_leave_and_the_head_returns() -> None:
    sieve = Sieve(10, SievingSettings(removed=0.2), seed=3)
    assert (sieve.removed, sieve.exchanged, int(sieve.partial.sum())) == (2, 2, 8)
    head = sieve.queue.tolist()
    first, *rest = sorted(members(sieve))
    # forgotten twice; forgotten once; never; never, but learned late; never learned; ...
    patterns = ["10101", "11011", "11111", "00011", "00000", "10111", "01010"]
    see(sieve, {first: "10101", **dict(zip(rest, patterns, strict=True))})
    sieve.update(5)
    assert set(sieve.queue.tolist()) == {rest[2], rest[3]}
    assert set(head) <= members(sieve)


def test_never_learned_counts_literally_when_easy() -> None:
    sieve = Sieve(10, SievingSettings(removed=0.2, never_learned="easy"), seed=3)
    first, second, *rest = sorted(members(sieve))
    see(sieve, {first: "000", second: "000", **dict.fromkeys(rest, "101")})
    sieve.update(3)
    assert set(sieve.queue.tolist()) == {first, second}


def test_last_prediction_crosses_the_boundary_but_counts_do_not() -> None:
    sieve = Sieve(4, SievingSettings(removed=0.25), seed=0)
    a, b, c = sorted(members(sieve))
    see(sieve, {a: "101", b: "010", c: "010"})  # a: forgotten once, last correct; b, c: once, last wrong
    queued = set(sieve.queue.tolist())
    sieve.update(3)
    (gone,) = {a, b, c} - members(sieve)
    stayed = sorted({a, b, c} - {gone})
    (returned,) = queued
    # One event each in this interval for those that were correct before it, none for the one that comes back unknown.
    see(sieve, {**dict.fromkeys(stayed, "01"), returned: "01"})
    expected = {sample: int(sample == a) for sample in stayed} | {returned: 0}
    assert {sample: int(sieve.state_dict()["forgotten"][sample]) for sample in expected} == expected


def test_a_returned_sample_starts_unknown() -> None:
    sieve = Sieve(2, SievingSettings(removed=0.5), seed=0)
    (trained,), (queued,) = members(sieve), sieve.queue.tolist()
    see(sieve, {trained: "1"})
    sieve.update(1)
    see(sieve, {queued: "1"})
    sieve.update(2)
    see(sieve, {trained: "0"})  # correct when it left
    assert sieve.state_dict()["forgotten"].sum() == 0


@pytest.mark.parametrize(("samples", "share", "removed", "exchanged"), [(10, 0.15, 2, 1), (100, 0.2, 20, 16)])
def test_an_exchange_is_the_share_of_the_partial_set(samples: int, share: float, removed: int, exchanged: int) -> None:
    sieve = Sieve(samples, SievingSettings(removed=share), seed=0)
    assert (sieve.removed, sieve.exchanged) == (removed, exchanged)


@pytest.mark.parametrize(("share", "exchanged"), [(0.3, 210), (0.5, 250)])
def test_first_in_first_out_until_all_removed_samples_were_back(share: float, exchanged: int) -> None:
    """The second update brings the last of them back, with some to spare or exactly."""
    sieve = Sieve(1000, SievingSettings(removed=share), seed=7)
    start = sieve.queue.tolist()
    assert sieve.exchanged == exchanged
    sieve.update(5)
    second = sieve.queue.tolist()
    assert second[: len(start) - exchanged] == start[exchanged:]  # the first ones wait in their order
    sieve.update(10)
    assert set(start[exchanged:]) <= members(sieve)
    after = sieve.queue.tolist()
    waiting = [sample for sample in second if sample in set(after)]
    assert [sample for sample in after if sample in set(waiting)] != waiting  # shuffled from now on


def test_every_sample_is_used() -> None:
    sieve = Sieve(101, SievingSettings(removed=0.6), seed=1)
    used = sieve.partial.clone()
    for epoch in range(1, 1 + math.ceil(sieve.removed / sieve.exchanged)):
        sieve.update(epoch)
        used |= sieve.partial
    assert used.all()


def test_total_exchange_returns_the_whole_queue() -> None:
    sieve = Sieve(50, SievingSettings(removed=0.2, exchange="total"), seed=1)
    queue = set(sieve.queue.tolist())
    sieve.update(1)
    assert queue <= members(sieve) and sieve.exchanged == sieve.removed == 10


def test_ties_are_broken_by_the_seed() -> None:
    def leaving(seed: int) -> set[int]:
        sieve = Sieve(60, SievingSettings(removed=0.2), seed=seed)
        sieve.load_state_dict(
            Sieve(60, SievingSettings(removed=0.2), seed=0).state_dict()
        )  # the same sets, whatever the seed
        sieve.update(5)
        return set(sieve.queue.tolist())

    assert leaving(1) == leaving(1) != leaving(2)


def test_ties_fall_on_every_sample_alike() -> None:
    times = torch.zeros(10)
    for seed in range(600):
        sieve = Sieve(10, SievingSettings(removed=0.2), seed=seed)
        before = sieve.partial.clone()
        sieve.update(1)
        times += before & ~sieve.partial
    # 600 draws of 2 among 8 of 10: each sample leaves with probability 0.2; five standard deviations
    assert (times - 120).abs().max() < 5 * math.sqrt(600 * 0.2 * 0.8)


def test_resumes_bit_for_bit() -> None:
    def batches(epoch: int, sieve: Sieve) -> None:
        draws = torch.Generator().manual_seed(epoch)
        order = sieve.partial.nonzero().flatten()
        sieve.observe(order, torch.rand(len(order), generator=draws) < 0.6)

    setting = SievingSettings(removed=0.3)
    whole = Sieve(80, setting, seed=5)
    for epoch in range(1, 8):
        batches(epoch, whole)
        if epoch == 4:
            saved = whole.state_dict()
        if epoch % 2 == 0:
            whole.update(epoch)
    resumed = Sieve(80, setting, seed=5)
    resumed.load_state_dict(saved)
    resumed.update(4)
    for epoch in range(5, 8):
        batches(epoch, resumed)
        if epoch % 2 == 0:
            resumed.update(epoch)
    for name, tensor in whole.state_dict().items():
        assert torch.equal(tensor, resumed.state_dict()[name]), name


@pytest.mark.parametrize(("share", "samples", "expected"), [(0.29, 50, 15), (0.25, 10, 3), (0.2, 50_000, 10_000)])
def test_counts_round_half_up(share: float, samples: int, expected: int) -> None:
    assert Sieve(samples, SievingSettings(removed=share), seed=0).removed == expected


def test_no_sieving_leaves_everyone_in() -> None:
    sieve = Sieve(9, SievingSettings(), seed=0)
    sieve.update(1)
    assert sieve.partial.all() and len(sieve.queue) == 0


def test_nothing_left_to_train_on() -> None:
    with pytest.raises(SpfdeError, match=r"removed = 0\.95 removes all 4 samples; remove a smaller share"):
        Sieve(4, SievingSettings(removed=0.95), seed=0)


def test_state_of_other_settings() -> None:
    state = Sieve(20, SievingSettings(removed=0.3), seed=0).state_dict()
    with pytest.raises(SpfdeError, match="does not fit the settings; resume with"):
        Sieve(20, SievingSettings(removed=0.4), seed=0).load_state_dict(state)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_observes_without_a_sync_and_as_on_the_cpu() -> None:
    setting = SievingSettings(removed=0.25)
    on = {device: Sieve(200, setting, 1, device) for device in ("cpu", "cuda")}
    for epoch in range(1, 6):
        order = on["cpu"].partial.nonzero().flatten()
        correct = torch.rand(len(order)) < 0.5
        ordered, hits = order.cuda(), correct.cuda()
        torch.cuda.set_sync_debug_mode("error")
        on["cuda"].observe(ordered, hits)
        torch.cuda.set_sync_debug_mode("default")
        on["cpu"].observe(order, correct)
        for sieve in on.values():
            sieve.update(epoch)
        assert torch.equal(on["cpu"].queue, on["cuda"].queue.cpu())


def around(chosen: RunSettings) -> SparseTraining:
    """A training of these settings around a small network."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(1, 6, 3), nn.Conv2d(6, 6, 3), nn.Flatten(), nn.Linear(24, 4))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    return SparseTraining(model, optimizer, chosen, input_shape=(1, 6, 6), samples=40)


def test_a_single_look_per_interval_is_warned_of_where_it_is_trained_and_nowhere_else(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("spfde.sieving.one_shot._said", set())

    def told(**more: Any) -> RunSettings:
        return settings_for("set", **{"epochs": 6, "batch_size": 8, "interval": 1, "sieving": 0.2, **more})

    with warnings.catch_warnings(action="error"):  # to plan is not to train
        single, own = told(), told(interval=2, sieving__interval=1)
        resolve("smoke", {"sparsity.method": "spfde", "sparsity.interval": 1, "sieving.removed": 0.2})
        assert any(run.sieving.interval == 1 for run in expand("cifar100-short", "budget"))
    with pytest.warns(SpfdeWarning, match=r"sparsity.interval = 1: each sample is seen once between exchanges") as said:
        around(single)
        around(single)
    assert len(said) == 1 and said[0].filename == __file__
    with pytest.warns(SpfdeWarning, match=r"sieving.interval = 1: .*; set sieving.interval=2 or more"):
        around(own)
    with warnings.catch_warnings(action="error"):
        around(told(sieving__interval=2))
        around(told(sieving__criterion="random"))
        around(told(sieving__schedule="once"))  # counted from the first epoch on
        around(told(sieving=0.0))


@pytest.mark.parametrize(
    ("samples", "removed", "exchange", "expected"),
    [
        (10, 0.05, "partial", 1),  # 0.05 x 9 is less than half a sample: one all the same, or none would come back
        (10, 0.05, "total", 1),
        (12, 0.04, "partial", 0),  # nothing is removed, so nothing can be exchanged
        (100, 0.1, "partial", 9),
        (100, 0.1, "total", 10),
        (100, 0.9, "total", 10),  # no more than the partial set has
        (3, 0.5, "total", 1),
    ],
)
def test_how_many_samples_change_places(samples: int, removed: float, exchange: str, expected: int) -> None:
    sieve = Sieve(samples, SievingSettings.model_validate({"removed": removed, "exchange": exchange}), seed=1)
    assert sieve.exchanged == expected
    before = sieve.partial.clone()
    sieve.update(1)
    assert int((before & ~sieve.partial).sum()) == int((~before & sieve.partial).sum()) == expected
