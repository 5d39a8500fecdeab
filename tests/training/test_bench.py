"""The benchmark's arithmetic, with step times put in by hand."""

import pandas as pd
import pytest
import torch

from spfde.experiments import resolve
from spfde.planning import plan_settings
from spfde.training import bench


@pytest.fixture
def timed(monkeypatch: pytest.MonkeyPatch) -> pd.DataFrame:
    """A dense step takes 1 s, a masked one 2 s less half a second a frozen block, a sieved one 3 s."""

    def seconds(case: bench.Case, steps: int) -> float:
        if case.training.sparse.sieve:
            return 3.0
        return 2.0 - 0.5 * case.frozen if len(case.training.sparse.masks) else 1.0

    monkeypatch.setattr(bench.Case, "seconds", seconds)
    return bench.bench("smoke", torch.device("cpu"), steps=1, repeats=2)


def test_epochs_are_weighted_by_the_schedule(timed: pd.DataFrame) -> None:
    frame = bench.summarise(timed).set_index(["kind", "flops_reduction"])
    steps = 5  # of 480 samples in batches of 96
    assert frame.seconds_per_epoch["dense", 0.0] == steps
    assert frame.seconds_per_epoch["masks", 0.0] == 2 * steps
    told = {"sparsity.method": "spfde", "freezing.flops_reduction": 0.2, "sieving.removed": 0}
    counts = plan_settings(resolve("smoke", told)).schedule.counts
    by_hand = sum(2.0 - 0.5 * count for count in counts) / len(counts)
    assert frame.seconds_per_epoch["freezing", 0.2] == pytest.approx(steps * by_hand)
    assert frame.speedup["freezing", 0.2] == pytest.approx(2.0 / by_hand)
    assert frame.seconds_per_epoch["sieving", 0.25] == 4 * 3.0  # 360 samples
    assert frame.seconds_per_epoch["both", 0.25] < frame.seconds_per_epoch["sieving", 0.25]
    assert (frame.n == 2).all() and (frame["std"] == 0).all()


def test_a_real_timing_counts_every_case() -> None:
    frame = bench.bench("smoke", torch.device("cpu"), steps=1, repeats=1, samples=128)
    assert set(frame.kind) == {"dense", "masks", "freezing", "sieving", "both"}
    assert (frame.seconds_per_epoch > 0).all() and frame.device.str.startswith("cpu").all()
