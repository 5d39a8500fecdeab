"""`spfde cost`: a line a record, JSON and nothing else, or the file that tables follow."""

import json
import sys
from pathlib import Path

import pandas as pd
import pytest

from spfde.cli import main
from spfde.cost.trace import write_trace
from spfde.experiments.resolve import resolve
from spfde.experiments.stored import write_settings
from spfde.plans import plan_settings
from spfde.training.trust import seal


@pytest.fixture
def record(tmp_path: Path) -> Path:
    """A dense run of one epoch, as far as costs need it."""
    run = resolve("smoke", {"training.epochs": 1}, 1)
    folder = tmp_path / "smoke" / "runs" / run.run_id
    write_settings(folder / "settings.yaml", run)
    trace = plan_settings(run).trace()
    write_trace(trace, folder / "layers.csv")
    (folder / "epochs.csv").write_text(f"epoch,samples,test_accuracy\n0,{trace['samples'][0]},50.0\n")
    seal(folder, {"run_id": run.run_id, "accuracy": {"test_last": 50.0}})
    return folder


def spfde(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, str, str]:
    monkeypatch.setattr(sys, "argv", ["spfde", *words])
    with pytest.raises(SystemExit) as stop:
        main()
    assert stop.value.code is None or isinstance(stop.value.code, int)
    return stop.value.code or 0, *capsys.readouterr()


def dense_flops(record: Path) -> float:
    """Three times the forward pass, two FLOPs a multiply-accumulate, for each sample."""
    profile = plan_settings(resolve("smoke", {"training.epochs": 1}, 1)).profile
    samples = pd.read_csv(record / "layers.csv")["samples"][0]
    return float(3 * 2 * samples * sum(layer.macs for layer in profile.layers))


def test_json(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], record: Path) -> None:
    code, out, err = spfde(monkeypatch, capsys, "cost", str(record), str(record), "--json")
    one, again = json.loads(out)
    assert (code, err) == (0, "") and one == again
    assert one["run_id"] == record.name
    assert one["flops"]["paper"] == pytest.approx(dense_flops(record))
    assert set(one["flops"]) == {"paper", "full", "executed", "extra"}
    assert {"paper_min", "paper_avg", "full_peak", "breakdown"} == set(one["memory"])


def test_a_line_a_record(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], record: Path) -> None:
    code, out, _ = spfde(monkeypatch, capsys, "cost", str(record))
    head, line = out.splitlines()
    assert code == 0 and head.split()[:6] == ["run", "id", "paper", "full", "executed", "extra"]
    assert line.split()[:2] == [record.name, f"{dense_flops(record):.3e}"]


def test_a_scale(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], record: Path, tmp_path: Path
) -> None:
    path = tmp_path / "smoke" / "costs.csv"
    words = ["--scale", "smoke", "--results", str(tmp_path), "--out", str(path)]
    assert spfde(monkeypatch, capsys, "cost", *words)[:2] == (0, f"1 runs in {path}\n")
    frame = pd.read_csv(path)
    assert frame["run_id"].tolist() == [record.name]
    assert frame["flops.paper"].tolist() == [pytest.approx(dense_flops(record))]
    columns = {"flops.full", "flops.executed", "flops.extra", "memory.paper_min", "memory.paper_avg"}
    assert columns | {"memory.full_peak", "memory.breakdown.masks"} <= set(frame.columns)


def test_a_folder_that_is_no_record(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    code, out, err = spfde(monkeypatch, capsys, "cost", str(tmp_path / "none"), "--json")
    assert (code, out) == (2, "")
    assert err.startswith(f"error: settings file {tmp_path}/none/settings.yaml cannot be read") and err.count("\n") == 1
