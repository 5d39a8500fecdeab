import gzip
import json
import os
from pathlib import Path
from types import SimpleNamespace

import pandas as pd
import pytest

from spfde.errors import SpfdeError
from spfde.results import load
from spfde.results.collect import collect, record_folders, warn_of_other_code, write
from spfde.results.material import gather


def summary(folder: Path) -> dict:
    return json.loads((folder / "summary.json").read_text())


def test_a_row_a_run_with_every_setting_and_summary_value(fakes: SimpleNamespace, tmp_path: Path) -> None:
    run = fakes.settings("smoke", "spfde", 0.9, 0.2, seed=2)
    folder = fakes.write_record(run, tmp_path / "smoke" / "runs")
    frame = load("smoke", tmp_path)
    assert len(frame) == 1
    line, written = frame.iloc[0], summary(folder)
    assert line["run_id"] == folder.name == run.run_id
    assert (line["row"], line["scale"], line["seed"], line["tag"]) == ("spfde-s90-f20-d20", "smoke", 2, "")
    assert line["sparsity.method"] == "spfde"
    assert line["training.epochs"] == 30
    assert line["freezing.flops_reduction"] == line["sieving.removed"] == 0.2
    assert line["accuracy.test_last"] == written["accuracy"]["test_last"]
    assert line["flops.executed"] == written["flops"]["executed"]
    assert line["memory.paper_avg"] == written["memory"]["paper_avg"]
    assert line["freezing.achieved"] == pytest.approx(0.208)
    assert line["achieved.sieving.removed"] == 0.2  # the setting keeps its name
    assert line["achieved.sparsity.target"] == 0.9
    assert not line["published"]


def test_published_records_read_like_fresh_ones_and_fresh_ones_win(fakes: SimpleNamespace, tmp_path: Path) -> None:
    first, second = (fakes.settings("smoke", "set", 0.9, seed=seed) for seed in (1, 2))
    for run in (first, second):
        fakes.write_record(run, tmp_path / "published" / "smoke", published=True)
    fakes.write_record(first, tmp_path / "smoke" / "runs")
    frame = load("smoke", tmp_path)
    assert frame["seed"].tolist() == [1, 2]
    assert frame["published"].tolist() == [False, True]


def test_unfinished_folders_are_skipped(fakes: SimpleNamespace, tmp_path: Path) -> None:
    done = fakes.write_record(fakes.settings("smoke", "set", 0.9), tmp_path)
    unfinished = fakes.write_record(fakes.settings("smoke", "set", 0.95), tmp_path)
    (unfinished / "summary.json").unlink()
    assert collect([done, unfinished])["run_id"].tolist() == [done.name]
    assert collect([unfinished]).empty
    assert "accuracy.test_last" in collect([])  # an empty frame still has the columns that tables ask for


@pytest.mark.parametrize(
    ("file", "text", "says"),
    [
        ("summary.json", '{"run_id": ', "summary.json"),
        ("summary.json", '{"run_id": "a", "row": "b"}', "accuracy.test_last"),
        ("settings.yaml", "sparsity: [", "settings.yaml"),
        ("settings.yaml", "scale: smoke\n", "tag"),
        ("settings.yaml", "", "settings.yaml"),
    ],
)
def test_a_broken_record_is_one_error_that_names_it(
    fakes: SimpleNamespace, tmp_path: Path, file: str, text: str, says: str
) -> None:
    folder = fakes.write_record(fakes.settings("smoke", "set", 0.9), tmp_path)
    (folder / file).write_text(text)
    with pytest.raises(SpfdeError) as caught:
        collect([folder])
    assert says in caught.value.cause and folder.name in caught.value.cause
    assert str(folder) in caught.value.remedy
    assert "\n" not in str(caught.value)


def test_runs_of_a_row_at_other_settings_never_mix(
    fakes: SimpleNamespace, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    old = [fakes.settings("smoke", "set", 0.9, seed=seed) for seed in (1, 2)]
    new = old[0].model_copy(update={"training": old[0].training.model_copy(update={"epochs": 10})})
    folders = [fakes.write_record(run, tmp_path) for run in (*old, new)]
    for age, folder in zip((300, 200, 100), folders, strict=True):
        when = (folder / "summary.json").stat().st_mtime - age
        os.utime(folder / "summary.json", (when, when))
    assert collect(folders)["run_id"].tolist() == [new.run_id]
    assert "2 records are of other settings" in capsys.readouterr().err


def test_the_wanted_settings_count_even_where_others_are_newer(
    fakes: SimpleNamespace, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A scale file that was edited and edited back: the plan says which records are its own."""
    wanted = fakes.settings("smoke", "set", 0.9)
    newer = wanted.model_copy(update={"training": wanted.training.model_copy(update={"epochs": 10})})
    for age, run in ((100, wanted), (0, newer)):
        summary = fakes.write_record(run, tmp_path / "smoke" / "runs") / "summary.json"
        when = summary.stat().st_mtime - age
        os.utime(summary, (when, when))
    fakes.write_plan(tmp_path, "smoke", [wanted])
    assert gather("smoke", tmp_path, "table2").runs["run_id"].tolist() == [wanted.run_id]
    assert "1 records are of other settings of their row" in capsys.readouterr().err
    assert load("smoke", tmp_path)["run_id"].tolist() == [newer.run_id]
    fakes.write_plan(tmp_path, "smoke", [newer.model_copy(update={"precision": "bf16"})])
    assert gather("smoke", tmp_path, "table2").runs.empty


def test_records_of_other_code_are_warned_of_in_one_line(
    fakes: SimpleNamespace, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    same = fakes.write_record(fakes.settings("smoke", "set", 0.9), tmp_path, code="new")
    other = fakes.write_record(fakes.settings("smoke", "set", 0.95), tmp_path, code="old")
    frame = collect([same, other])
    warn_of_other_code(frame, "new")
    (line,) = capsys.readouterr().err.splitlines()
    assert other.name in line and "1 of 2" in line
    warn_of_other_code(frame.iloc[:1], "new")
    warn_of_other_code(collect([]), "new")
    assert capsys.readouterr().err == ""


def test_the_frame_survives_its_csv(smoke: Path, tmp_path: Path) -> None:
    frame = load("smoke", smoke)
    write(frame, tmp_path / "deep" / "runs.csv")
    again = pd.read_csv(tmp_path / "deep" / "runs.csv")
    assert again["run_id"].tolist() == frame["run_id"].tolist()
    assert again["accuracy.test_last"].tolist() == frame["accuracy.test_last"].tolist()
    assert list((tmp_path / "deep").iterdir()) == [tmp_path / "deep" / "runs.csv"]


def test_published_traces_are_compressed(cifar100: Path) -> None:
    folders = record_folders("cifar100", cifar100)
    with gzip.open(folders[0] / "layers.csv.gz", "rt") as file:
        assert file.readline().startswith("epoch,layer,samples")


def test_no_records_can_be_asked_like_any_others(tmp_path: Path) -> None:
    runs = load("cifar100", tmp_path)
    published = runs[runs["published"]]
    assert len(published) == 0 and list(published.columns) == list(runs.columns)
