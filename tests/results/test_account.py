"""Costs counted again: the same as when the run ended, and in place of what its summary.json says."""

import gzip
import json
import shutil
from pathlib import Path

import pytest
import torch

from spfde.data import load as load_data
from spfde.errors import SpfdeError
from spfde.experiments.resolve import resolve
from spfde.results import load
from spfde.results.account import account, write_costs
from spfde.results.collect import record_folders
from spfde.training.loop import train
from spfde.training.trust import seal

TOLD = {
    "sparsity.method": "spfde",
    "sparsity.target": 0.9,
    "freezing.flops_reduction": 0.1,
    "sieving.removed": 0.2,
    "training.epochs": 8,
    "data.train_limit": 128,
}


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The record of a real, short run that freezes and sieves."""
    folder = tmp_path_factory.mktemp("trained")
    run = resolve("smoke", TOLD, 1)
    train(run, load_data(run.data, folder / "data", folder / "cache"), folder / "runs", torch.device("cpu"))
    return folder / "runs" / run.run_id


@pytest.fixture
def results(trained: Path, tmp_path: Path) -> Path:
    """A results folder with that record."""
    shutil.copytree(trained, tmp_path / "smoke" / "runs" / trained.name)
    return tmp_path


def summary(folder: Path) -> dict:
    return json.loads((folder / "summary.json").read_text())


def without_measured(memory: dict) -> dict:
    return {key: value for key, value in memory.items() if key != "measured_peak"}


def test_settings_and_trace_give_what_the_run_said(trained: Path, tmp_path: Path) -> None:
    for name in ("settings.yaml", "layers.csv"):  # neither weights nor summary
        (tmp_path / trained.name).mkdir(exist_ok=True)
        shutil.copy(trained / name, tmp_path / trained.name)
    found, said = account(tmp_path / trained.name), summary(trained)
    assert found["run_id"] == said["run_id"]
    assert found["flops"] == said["flops"]
    assert found["memory"] == without_measured(said["memory"])
    assert said["freezing"]["t_frz"] is not None and found["flops"]["executed"] > 0


def test_a_published_record_is_accounted(trained: Path, tmp_path: Path) -> None:
    home = tmp_path / "published" / "smoke" / trained.name
    shutil.copytree(trained, home)
    (home / "layers.csv.gz").write_bytes(gzip.compress((home / "layers.csv").read_bytes()))
    (home / "layers.csv").unlink()
    assert account(home) == account(trained)


def test_costs_overrule_the_summary(results: Path) -> None:
    """A summary of a wrong ledger; what was measured, and all that is no cost, stays the record's."""
    (folder,) = record_folders("smoke", results)
    right, wrong = summary(folder), summary(folder)
    wrong["flops"] = dict.fromkeys(wrong["flops"], 1.0)
    wrong["memory"] = {"paper_min": 1.0, "paper_avg": 1.0, "full_peak": 1.0, "measured_peak": 7}
    seal(folder, wrong)
    assert load("smoke", results)["flops.paper"].tolist() == [1.0]  # nothing was accounted yet

    assert write_costs([folder], results / "smoke" / "costs.csv") == 1
    line = load("smoke", results).iloc[0]
    for column in ("paper", "full", "executed", "extra"):
        assert line[f"flops.{column}"] == right["flops"][column]
    for column in ("paper_min", "paper_avg", "full_peak"):
        assert line[f"memory.{column}"] == right["memory"][column]
    assert line["memory.breakdown.masks"] == right["memory"]["breakdown"]["masks"]
    assert line["memory.measured_peak"] == 7
    assert line["accuracy.test_last"] == right["accuracy"]["test_last"]


def test_runs_that_costs_do_not_name_keep_their_own(results: Path) -> None:
    path = results / "smoke" / "costs.csv"
    assert write_costs([], path) == 0
    (folder,) = record_folders("smoke", results)
    assert load("smoke", results)["flops.paper"].tolist() == [summary(folder)["flops"]["paper"]]


def test_costs_that_cannot_be_read_are_one_error(results: Path) -> None:
    (results / "smoke" / "costs.csv").write_text("run_id,flops.paper\na,many\n")
    with pytest.raises(SpfdeError, match=r"costs\.csv cannot be read; write it again with `spfde cost --scale smoke"):
        load("smoke", results)


def test_first_weights_that_are_gone_are_not_missed(results: Path) -> None:
    (folder,) = record_folders("smoke", results)
    settings = folder / "settings.yaml"
    settings.write_text(settings.read_text().replace("weights: null", "weights: /gone.safetensors"))
    assert "/gone" in settings.read_text()
    assert account(folder)["flops"] == summary(folder)["flops"]


@pytest.mark.parametrize(
    ("file", "old", "new", "says"),
    [
        ("settings.yaml", "scale:", "scale: [", "settings file"),
        ("settings.yaml", "name: resnet8", "name: resnet32_2x", "different layers"),
        ("layers.csv", "epoch,layer", "epoch,lair", r"layers\.csv cannot be read"),
    ],
)
def test_a_record_that_cannot_be_read_is_one_error(results: Path, file: str, old: str, new: str, says: str) -> None:
    (folder,) = record_folders("smoke", results)
    text = (folder / file).read_text()
    assert old in text
    (folder / file).write_text(text.replace(old, new, 1))
    with pytest.raises(SpfdeError, match=says) as caught:
        account(folder)
    assert folder.name in str(caught.value)
