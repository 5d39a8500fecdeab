"""Seconds of a mean epoch from measured steps and a trace, by hand; and where tables and figures show them."""

import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

from spfde.errors import SpfdeError
from spfde.experiments.resolve import resolve
from spfde.plans import plan_settings
from spfde.results import figures, tables
from spfde.results.account import account
from spfde.results.seconds import StepSeconds
from spfde.training.bench import steps

# Half of the work takes 6 s, all of it 10 s; with two blocks frozen 2 and 4 s.
STEPS = pd.DataFrame(
    {
        "share": [0.5, 1.0, 0.5, 1.0],
        "frozen": [0, 0, 2, 2],
        "seconds": [6.0, 10.0, 2.0, 4.0],
        "model": "resnet8",
        "macs": sum(layer.macs for layer in plan_settings(resolve("smoke", {})).profile.layers),
        "batch_size": 96,
        "device": "cpu: one",
    }
)


def test_steps_between_those_measured_change_evenly() -> None:
    found = StepSeconds(STEPS)
    assert found.seconds(1.0, 0) == 10 and found.seconds(0.75, 0) == 8 and found.seconds(0.1, 0) == 6
    assert found.seconds(1.0, 1) == 7 and found.seconds(0.5, 3) == 2


def test_an_epoch_is_the_mean_over_the_trace() -> None:
    told = {"sparsity.method": "spfde", "freezing.flops_reduction": 0.2, "sieving.removed": 0.25}
    plan = plan_settings(resolve("smoke", told))
    counts = np.array(plan.schedule.counts)
    assert set(counts) >= {0, 1}
    dense = StepSeconds(STEPS).of_epoch(plan, plan.trace())  # a plan assumes dense kernels
    assert dense == pytest.approx(3 * np.interp(counts, [0, 2], [10.0, 4.0]).mean())  # 288 samples in batches of 96
    half = plan.trace(executed=np.full(plan.forward.shape, 0.5))
    assert StepSeconds(STEPS).of_epoch(plan, half) == pytest.approx(3 * np.interp(counts, [0, 2], [6.0, 2.0]).mean())
    for change in ({"model": "resnet20"}, {"macs": 1}, {"batch_size": 64}):  # another network, width or batch
        assert StepSeconds(STEPS.assign(**change)).of_epoch(plan, plan.trace()) is None


@pytest.mark.parametrize(("device", "known"), [("cpu: another", True), ("cuda: a GPU", False)])
def test_a_run_on_a_gpu_has_no_seconds_of_a_cpu(
    device: str, known: bool, fakes: SimpleNamespace, tmp_path: Path
) -> None:
    """Its kernels multiply by masks, so a CPU's steps at its executed share would be those of dense training."""
    settings = resolve("smoke", {"sparsity.method": "set"})
    folder = fakes.write_record(settings, tmp_path)
    plan_settings(settings).trace().to_csv(folder / "layers.csv", index=False)
    summary = json.loads((folder / "summary.json").read_text())
    summary["environment"]["device"] = device
    (folder / "summary.json").write_text(json.dumps(summary))
    assert ("speed" in account(folder, StepSeconds(STEPS))) == known
    (folder / "summary.json").write_text("{}")
    with pytest.raises(SpfdeError, match="does not say what it was trained on; remove it"):
        account(folder, StepSeconds(STEPS))


def test_a_file_of_something_else_is_refused(tmp_path: Path) -> None:
    assert StepSeconds.read(tmp_path / "steps.csv") is None
    (tmp_path / "steps.csv").write_text("a,b\n1,2\n")
    with pytest.raises(SpfdeError, match=r"holds no measured steps \(KeyError\); write it anew"):
        StepSeconds.read(tmp_path / "steps.csv")


def test_measured_steps_are_of_every_density_and_a_few_numbers_of_frozen_blocks() -> None:
    frame = steps.bench("smoke", 1)
    dense = frame[frame.share == 1]
    assert dense.frozen.tolist() == [0, 1, 2, 3] and (frame.seconds > 0).all()
    assert StepSeconds(frame).network == ("resnet8", STEPS.macs[0], 96)


def test_tables_and_the_tradeoff_show_seconds_where_they_are_known(smoke: Path, fakes: SimpleNamespace) -> None:
    without = tables.make("table2", "smoke", smoke)[0].read_text()
    assert "Seconds per epoch" not in without
    runs = smoke / "smoke" / "runs"
    ids = sorted(path.name for path in runs.iterdir() if (path / "summary.json").is_file())
    costs = pd.DataFrame({"run_id": ids, "speed.seconds_per_epoch": 1.25})
    path = smoke / "smoke" / "costs.csv"
    costs.to_csv(path, index=False)
    try:
        text = tables.make("table2", "smoke", smoke)[0].read_text()
        assert "Seconds per epoch" in text and " 1.25 " in text and "`spfde bench steps`" in text
        drawing = figures.draw("tradeoff", "smoke", smoke)
        assert len(drawing.figure.axes) == 6 and "speed.seconds_per_epoch" in drawing.points
        bottom = drawing.figure.axes[3]
        assert {float(line.get_xdata()[0]) for line in bottom.lines} == {1.25}
    finally:
        path.unlink()
