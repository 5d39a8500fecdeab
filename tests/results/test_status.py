"""How far a scale's runs have come, and how long the rest will take."""

from pathlib import Path

import pytest

from spfde.errors import SpfdeError
from spfde.experiments.resolve import expand
from spfde.plans import describe, plan_settings
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

    cpu = {"device": "cpu: some processor"}
    record(records, "dense", 1, time={"total": 100.0}, environment=cpu)
    record(published, "dense", 2, time={"cpu": 140.0, "total": 999.0}, environment=cpu)
    record(records, "set-s90", 1, time={"total": 50.0}, environment=cpu, status="diverged")
    record(records, "rigl-s90", 2, time={"total": 1e9}, environment=cpu)
    (records / runs["rigl-s90", 2].run_id / "epochs.csv").write_text("half")
    checkpoint = records / ".checkpoints" / f"{runs['set-s90', 2].run_id}.safetensors"
    checkpoint.parent.mkdir()
    checkpoint.touch()

    found = {(one.row, one.run.seed): one for one in status("mine", results, ["around"], "cpu")}
    states = {key: one.state for key, one in found.items()}
    assert states["around/dense", 1] == states["around/dense", 2] == "done"
    assert states["around/set-s90", 1] == "diverged" and states["around/set-s90", 2] == "begun"
    assert states["around/rigl-s90", 1] == states["around/rigl-s90", 2] == "missing"
    assert found["around/dense", 2].seconds == 140.0
    # The seed of SET that diverged tells no time of the others, only what a FLOP takes with this network.
    pace = (100 / cost["dense"] + 140 / cost["dense"] + 50 / cost["set-s90"]) / 3
    for key in (("set-s90", 2), ("rigl-s90", 1)):
        assert found[f"around/{key[0]}", key[1]].seconds == pytest.approx(pace * cost[key[0]])


def test_the_time_that_is_left_is_that_of_the_most_alike_runs_on_this_kind_of_device(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A row's own seeds tell first, then its method and sparsity, then its sparsity, then the network alone."""
    monkeypatch.chdir(tmp_path)
    write(tmp_path)
    one = next(run for run in expand("mine", "around") if run.row == "set-s90")
    shorter = {"training": one.training.model_copy(update={"epochs": 10}), "tag": "short"}
    changes: dict[str, dict[str, object]] = {"set-s90": {}, "set-s90-short": shorter}
    for row, method, target in (("static-s90", "static", 0.9), ("static-s80", "static", 0.8)):
        changes[row] = {"sparsity": one.sparsity.model_copy(update={"method": method, "target": target})}
    seeds = {row: [one.model_copy(update={**changes[row], "seed": seed}) for seed in (1, 2)] for row in changes}
    order = [("", row, run) for row, runs in seeds.items() for run in runs]
    monkeypatch.setattr("spfde.results.status.ordered", lambda scale, experiments: order)
    cost = {row: describe(plan_settings(runs[0]))["flops"]["full"] for row, runs in seeds.items()}

    def record(row: str, seconds: float, device: str) -> None:
        path = tmp_path / "results/mine/runs" / seeds[row][0].run_id
        path.mkdir(parents=True)
        for name in ("settings.yaml", "epochs.csv", "layers.csv"):
            (path / name).write_text(name)
        told = {"time": {"cpu": seconds}, "environment": {"device": device}, "flops": {"full": cost[row]}}
        seal(path, {"run_id": path.name, **told})

    def predicted(row: str, kind: str | None = "cpu") -> float | None:
        found = status("mine", tmp_path / "results", (), kind)
        return next(each.seconds for each in found if (each.row, each.run.seed) == (row, 2))

    record("set-s90", 10.0, "cuda: some GPU")
    assert predicted("set-s90") is predicted("set-s90-short") is None
    for row, seconds in (("static-s80", 400.0), ("static-s90", 300.0), ("set-s90-short", 60.0)):  # ever more alike
        record(row, seconds, "cpu: some processor")
        assert predicted("set-s90") == pytest.approx(seconds / cost[row] * cost["set-s90"])
        assert predicted(row) == seconds  # its own seed
    assert predicted("set-s90", "cuda") == 10.0
    for there, kind in ((True, "cuda"), (False, "cpu")):
        monkeypatch.setattr("torch.cuda.is_available", lambda there=there: there)
        assert predicted("set-s90", None) == predicted("set-s90", kind)
