"""The benchmark's arithmetic, with step times put in by hand."""

import pandas as pd
import pytest
import torch

from spfde.experiments.resolve import resolve
from spfde.planning import plan_settings
from spfde.sieving import Sieve
from spfde.training import bench
from spfde.training.clock import Clock
from spfde.training.run import Training


@pytest.fixture
def timed(monkeypatch: pytest.MonkeyPatch) -> pd.DataFrame:
    """A dense step takes 1 s, a masked one 2 s less half a second a frozen block, a sieved one 4 s less its level.

    A mask update takes 15, 30, 45 and 60 s by block, a sieve update 300 s times its level.
    """

    def seconds(case: bench.Case, steps: int) -> float:
        if case.training.sparse.sieve:
            return 4.0 - case.training.settings.sieving.removed
        return 2.0 - 0.5 * case.frozen if len(case.training.sparse.masks) else 1.0

    def exchange(sieve: Sieve) -> float:
        assert len(sieve.partial) == 384  # of the data set, not of the random images
        return 300 * sieve.settings.removed

    monkeypatch.setattr(bench.Case, "seconds", seconds)
    monkeypatch.setattr(bench, "mask_update_seconds", lambda training: [15.0, 30.0, 45.0, 60.0])
    monkeypatch.setattr(bench, "sieve_update_seconds", exchange)
    return bench.bench("smoke", torch.device("cpu"), steps=1, repeats=2)


def test_epochs_are_weighted_by_the_schedule(timed: pd.DataFrame) -> None:
    frame = bench.summarise(timed).set_index(["kind", "flops_reduction"])
    steps = 4  # of 384 samples in batches of 96
    assert frame.seconds_per_epoch["dense", 0.0] == steps
    masks = 150 * 15 / 30  # 15 mask updates in 30 epochs, every second one from the first on
    assert frame.seconds_per_epoch["masks", 0.0] == 2 * steps + masks
    told = {"sparsity.method": "spfde", "freezing.flops_reduction": 0.2, "sieving.removed": 0}
    counts = plan_settings(resolve("smoke", told)).schedule.counts
    by_hand = sum(2.0 - 0.5 * count for count in counts) / len(counts)
    updates = sum(sum([15, 30, 45, 60][count:]) for count in counts[::2]) / len(counts)  # none of a frozen block
    assert updates < masks
    assert frame.seconds_per_epoch["freezing", 0.2] == pytest.approx(steps * by_hand + updates)
    assert frame.speedup["freezing", 0.2] == pytest.approx((2 * steps + masks) / (steps * by_hand + updates))
    assert (frame.n == 2).all() and (frame["std"] == 0).all()


def test_every_sieving_level_is_timed_by_itself(timed: pd.DataFrame) -> None:
    frame = bench.summarise(timed).set_index(["kind", "flops_reduction"])
    masks, exchanges = 75.0, 300 * 14 / 30  # no sieve update before the first epoch
    for level, steps in {0.1: 4, 0.15: 4, 0.2: 4, 0.25: 3}.items():  # 346, 326, 307 and 288 samples in batches of 96
        by_hand = steps * (4 - level) + masks + exchanges * level
        assert frame.seconds_per_epoch["sieving", level] == pytest.approx(by_hand)


def test_both_is_composed_of_its_measured_parts(timed: pd.DataFrame) -> None:
    parts = timed[timed.repeat == 0].set_index(["kind", "flops_reduction"])
    both, freezing, sieving = (parts.loc[kind, 0.25] for kind in ("both", "freezing", "sieving"))
    assert both.step_seconds == pytest.approx(freezing.step_seconds * 3.75 / 2)
    assert (both.steps, both.mask_updates) == (sieving.steps, freezing.mask_updates)
    by_hand = both.steps * both.step_seconds + freezing.mask_updates + sieving.sieve_updates
    assert both.seconds_per_epoch == pytest.approx(by_hand)


def test_a_levels_steps_are_of_its_own_partial_set(monkeypatch: pytest.MonkeyPatch) -> None:
    settings = resolve("smoke", {"sparsity.method": "spfde", "sieving.removed": 0.25, "training.batch_size": 16})
    run = Training(settings, bench.random_splits("smoke", 64), torch.device("cpu"), Clock())
    run.begin(0)
    seen: list[int] = []
    count = run.sparse.count

    def counted(indices: torch.Tensor, correct: torch.Tensor) -> None:
        seen.extend(indices.tolist())
        count(indices, correct)

    monkeypatch.setattr(run.sparse, "count", counted)
    assert bench.Case(run).seconds(4) > 0  # of 48 samples in batches of 16: begins anew after the third
    assert run.sparse.sieve and set(seen) == set(run.sparse.sieve.partial.nonzero().flatten().tolist())
    assert len(bench.mask_update_seconds(run)) == 4 and all(run.sparse.masks.moves()[:, 3] > 0)  # every layer changed
    before = run.sparse.sieve.updates
    assert bench.sieve_update_seconds(run.sparse.sieve) > 0 and run.sparse.sieve.updates == before + 1


def test_a_real_timing_counts_every_case() -> None:
    frame = bench.bench("smoke", torch.device("cpu"), steps=1, repeats=1, samples=128)
    assert set(frame.kind) == {"dense", "masks", "freezing", "sieving", "both"}
    assert (frame.seconds_per_epoch > 0).all() and frame.device.str.startswith("cpu").all()
