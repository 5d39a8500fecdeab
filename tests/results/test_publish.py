"""Published records say what fresh ones do, are whole and small; analyses of the snapshots they lack go with them."""

import gzip
import json
import os
import shutil
import sys
from pathlib import Path

import pandas as pd
import pytest

from spfde import cli
from spfde.data import load as load_data
from spfde.errors import SpfdeError
from spfde.experiments.resolve import resolve
from spfde.results import load
from spfde.results.analyses import analysis_path
from spfde.results.claims import Claim
from spfde.results.evidence import Evidence
from spfde.results.material import Material
from spfde.results.measured import MEASURED, measured_path
from spfde.results.publish import publish
from spfde.settings import parse
from spfde.training.loop import train

SMALL = {
    "sparsity.method": "static",
    "training.epochs": 2,
    "training.snapshots": 1,
    "data.train_limit": 192,
}
KEPT = ["epochs.csv", "layers.csv.gz", "predictions.safetensors", "settings.yaml", "summary.json"]


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A results folder with two records, each with snapshots."""
    results = tmp_path_factory.mktemp("results")
    for seed in (1, 2):
        settings = resolve("smoke", SMALL, seed)
        train(settings, load_data(settings.data, None, None), results / "smoke/runs")
    return results


@pytest.fixture
def results(trained: Path, tmp_path: Path) -> Path:
    return shutil.copytree(trained, tmp_path / "results")


def write_analysis(path: Path, *runs: str) -> Path:
    """An analysis of one layer at one epoch; its value tells where it was read from."""
    path.parent.mkdir(parents=True, exist_ok=True)
    rows = [{"run_id": run, "row": "r", "seed": 1, "epoch": 5, "number": 1, "similarity": 0.95} for run in runs]
    pd.DataFrame(rows).assign(source=str(path)).to_csv(path, index=False)
    return path


def test_a_published_record_says_what_the_fresh_one_did(results: Path) -> None:
    fresh, runs = load("smoke", results), results / "smoke/runs"
    written, kept = publish("smoke", results)
    home = results / "published/smoke"
    assert (sorted(path.name for path in written), kept) == (sorted(fresh["run_id"]), [])
    for folder in written:
        assert sorted(path.name for path in folder.iterdir()) == KEPT
        source = runs / folder.name
        for name in KEPT[:-1]:
            data = (folder / name).read_bytes()
            plain = gzip.decompress(data) if name.endswith(".gz") else data
            assert plain == (source / name.removesuffix(".gz")).read_bytes(), name
        assert (folder / "summary.json").stat().st_mtime == (source / "summary.json").stat().st_mtime
        files = json.loads((folder / "summary.json").read_text())["files"]
        assert sorted(files) == KEPT[:-1]  # the digests of what it holds, not of what the fresh record held
    assert sorted(path.name for path in home.iterdir()) == sorted(fresh["run_id"])  # no temporary names left

    shutil.rmtree(runs)
    published = load("smoke", results)
    assert published["published"].all() and not fresh["published"].any()
    pd.testing.assert_frame_equal(published.drop(columns="published"), fresh.drop(columns="published"))


def test_published_records_are_copied_as_they_are(results: Path, tmp_path: Path) -> None:
    """Into another folder of published records, which has none of them or one."""
    written, _ = publish("smoke", results)
    shutil.rmtree(results / "smoke/runs")
    first, *others = sorted(written)
    elsewhere = tmp_path / "elsewhere"
    shutil.copytree(first, elsewhere / "smoke" / first.name)
    copied, kept = publish("smoke", results, to=elsewhere)
    assert kept == [elsewhere / "smoke" / first.name]
    assert copied == [elsewhere / "smoke" / folder.name for folder in others]
    for folder, copy in zip(others, copied, strict=True):
        assert {path.name: path.read_bytes() for path in copy.iterdir()} == {
            path.name: path.read_bytes() for path in folder.iterdir()
        }
        assert (copy / "summary.json").stat().st_mtime == (folder / "summary.json").stat().st_mtime


def test_what_is_published_stays_and_is_said(
    results: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    first, second = sorted(path.name for path in (results / "smoke/runs").glob("smoke-*"))
    publish("smoke", results, [first])
    home = results / "published/smoke"
    os.utime(home / first / "epochs.csv", (1, 1))
    monkeypatch.setattr(sys, "argv", ["spfde", "publish", "--scale", "smoke", "--results", str(results)])
    with pytest.raises(SystemExit) as stop:
        cli.main()
    assert not stop.value.code
    assert capsys.readouterr().out.splitlines() == [f"already published: {home / first}", str(home / second)]
    assert (home / first / "epochs.csv").stat().st_mtime == 1
    with (home / first / "epochs.csv").open("a") as file:  # a damaged one takes nobody's place
        file.write("8,0.1")
    written, kept = publish("smoke", results)
    assert written == [home / first] and kept == [home / second]


def test_what_cannot_be_published_is_said(results: Path, capsys: pytest.CaptureFixture[str]) -> None:
    runs = sorted((results / "smoke/runs").glob("smoke-*"))
    with pytest.raises(SpfdeError, match=f'unknown finished run "{runs[0].name}x"; did you mean "{runs[0].name}"'):
        publish("smoke", results, [f"{runs[0].name}x"])
    with pytest.raises(SpfdeError, match="no finished records of scale cifar100"):
        publish("cifar100", results)
    (runs[0] / "epochs.csv").unlink()
    (runs[1] / "layers.csv").write_text("epoch,layer\n0,a\n")
    with pytest.raises(SpfdeError, match="no finished records of scale smoke"):
        publish("smoke", results)
    said = capsys.readouterr().err
    assert f"{runs[0]} is left out: epochs.csv is missing" in said
    assert f"{runs[1]} is left out: layers.csv has 16 bytes instead of" in said
    assert not list((results / "published").rglob("*"))  # no half record


def test_analyses_are_published_unless_they_say_less(results: Path) -> None:
    name = Path("analysis/figure1.similarity.csv")
    fresh, published = write_analysis(results / "smoke" / name, "a"), results / "published/smoke" / name
    run = next((results / "smoke/runs").glob("smoke-*")).name
    assert publish("smoke", results, [run])[0] == [results / "published/smoke" / run, published]
    assert published.read_bytes() == fresh.read_bytes()
    assert publish("smoke", results, [run])[0] == []
    write_analysis(fresh, "a", "b")
    assert publish("smoke", results, [run])[0] == [published]
    whole = published.read_bytes()
    write_analysis(fresh, "b")
    assert publish("smoke", results, [run])[0] == [] and published.read_bytes() == whole


@pytest.mark.parametrize(
    ("scale", "shared"), [("smoke", {"steps.csv", "scaling.csv"}), ("cifar100", {*MEASURED})]
)  # a test scale measures epochs beside other jobs, and a few of them
def test_measured_times_are_published_also_without_records(scale: str, shared: set[str], tmp_path: Path) -> None:
    folder = tmp_path / "results" / scale
    folder.mkdir(parents=True)
    for name in MEASURED:
        (folder / name).write_text(name)
    written, kept = publish(scale, tmp_path / "results")
    assert {path.name for path in written} == shared and not kept
    assert all(path.read_text() == path.name for path in written)
    assert publish(scale, tmp_path / "results") == ([], [])  # nothing is new
    (folder / "steps.csv").write_text("measured again")
    assert [path.read_text() for path in publish(scale, tmp_path / "results")[0]] == ["measured again"]
    assert measured_path(folder, "steps.csv") == folder / "steps.csv"
    (folder / "steps.csv").unlink()
    assert measured_path(folder, "steps.csv") == tmp_path / "results/published" / scale / "steps.csv"


def test_an_analysis_is_the_fresh_one_or_else_the_published_one(tmp_path: Path) -> None:
    name = "figure1.similarity"
    fresh, published = tmp_path / f"s/analysis/{name}.csv", tmp_path / f"published/s/analysis/{name}.csv"
    assert analysis_path(name, "s", tmp_path) == fresh  # where it is to be made
    write_analysis(published, "a", "b")
    assert analysis_path(name, "s", tmp_path) == published
    for runs, expected in ((["a", "b"], fresh), (["a", "c"], fresh), (["b"], published)):
        write_analysis(fresh, *runs)
        assert analysis_path(name, "s", tmp_path) == expected
    published.unlink()
    assert analysis_path(name, "s", tmp_path) == fresh


def test_figures_and_claims_read_published_analyses(tmp_path: Path) -> None:
    published = write_analysis(tmp_path / "published/cifar100/analysis/figure1.similarity.csv", "a")
    material = Material("cifar100", pd.DataFrame(), [], pd.DataFrame(), tmp_path)
    assert set(material.analysis("figure1.similarity")["source"]) == {str(published)}
    values = {
        "id": "early", "claim": "It settles early.", "source": "SpFDE", "kind": "analysis", "experiment": "figure1",
        "metric": "similarity.first", "relation": "value", "comparisons": [["r"]],
        "expected": {"low": 5, "high": 5, "standing": "F"},
    }  # fmt: skip
    evidence = Evidence("smoke", tmp_path).decide(parse(Claim, values))["evidence"]
    assert (evidence["n"], evidence["effect"]) == (1, 5.0)
