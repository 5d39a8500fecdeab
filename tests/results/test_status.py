"""How far a scale's runs have come, and how long the rest will take."""

from pathlib import Path

import pytest

from spfde.errors import SpfdeError
from spfde.experiments.resolve import expand
from spfde.planning import describe, plan_settings
from spfde.results.status import ordered, status
from spfde.training.trust import seal

SCALE = """
settings: {data: {name: digits}, model: {name: resnet8}, training: {epochs: 20}, sparsity: {interval: 2}}
seeds: [1, 2]
"""
TIERS = "tiers: [{name: A, rows: [around/set-s90, around/dense], seeds: [1, 2]}, {name: B, rows: [ROW], seeds: [1, 3]}]"


def write(folder: Path, tiers: str = "") -> None:
    (folder / "config/scales").mkdir(parents=True, exist_ok=True)
    (folder / "config/scales/mine.yaml").write_text(SCALE + tiers)


def test_tiers_are_trained_seed_by_seed_over_all_their_rows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    write(tmp_path, TIERS.replace("ROW", "around/dense"))
    found = [(tier, row, run.seed) for tier, row, run in ordered("mine")]
    assert found == [
        ("A", "around/set-s90", 1),
        ("A", "around/dense", 1),
        ("A", "around/set-s90", 2),
        ("A", "around/dense", 2),
        ("B", "around/dense", 3),
    ]
    write(tmp_path, TIERS.replace("ROW", "around/dence"))
    with pytest.raises(SpfdeError, match='tier B of scale mine names an unknown row "around/dence"'):
        ordered("mine")


def test_states_and_the_time_that_is_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    write(tmp_path)
    runs = {(run.row, run.seed): run for run in expand("mine", "around")}
    cost = {row: describe(plan_settings(run))["flops"]["full"] for (row, _), run in runs.items()}
    results = tmp_path / "results"
    records, published = results / "mine/runs", results / "published/mine"

    def record(folder: Path, row: str, seed: int, **values: object) -> None:
        path = folder / runs[row, seed].run_id
        path.mkdir(parents=True)
        for name in ("settings.yaml", "epochs.csv", "layers.csv"):
            (path / name).write_text(name)
        seal(path, {"run_id": path.name, "flops": {"full": cost[row]}, **values})

    record(records, "dense", 1, time={"total": 100.0})
    record(published, "dense", 2, time={"cpu": 140.0, "total": 999.0})
    record(records, "set-s90", 1, time={"total": 50.0}, status="diverged")
    record(records, "rigl-s90", 2, time={"total": 1e9})
    (records / runs["rigl-s90", 2].run_id / "epochs.csv").write_text("half")
    checkpoint = records / ".checkpoints" / f"{runs['set-s90', 2].run_id}.safetensors"
    checkpoint.parent.mkdir()
    checkpoint.touch()

    found = {(one.row, one.run.seed): one for one in status("mine", results, ["around"])}
    states = {key: one.state for key, one in found.items()}
    assert states["around/dense", 1] == states["around/dense", 2] == "done"
    assert states["around/set-s90", 1] == "diverged" and states["around/set-s90", 2] == "begun"
    assert states["around/rigl-s90", 1] == states["around/rigl-s90", 2] == "missing"
    assert found["around/dense", 2].seconds == 140.0
    pace = (100 / cost["dense"] + 140 / cost["dense"] + 50 / cost["set-s90"]) / 3
    assert found["around/rigl-s90", 1].seconds == pytest.approx(pace * cost["rigl-s90"])
