"""docs/adding.md does what it says: a method, a model and a data set of one's own, from registration to table row."""

import json
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import yaml
from safetensors.torch import load_file
from typer.testing import CliRunner

from spfde.cli import app
from spfde.data import SOURCES, load
from spfde.experiments.resolve import expand
from spfde.methods import METHODS
from spfde.models import MODELS
from spfde.plans import describe, plan_settings
from spfde.results import tables
from spfde.training.loop import train

ROOT = Path(__file__).parents[1]
BLOCKS = re.findall(r"^```python\n(.*?)^```", (ROOT / "docs/adding.md").read_text(), re.MULTILINE | re.DOTALL)


@pytest.fixture
def page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, Any]]:
    """The names that the page's code leaves behind, run in an empty folder; registrations are undone."""
    monkeypatch.chdir(tmp_path)
    registries: list[dict[str, Any]] = [METHODS, MODELS, SOURCES]
    before = [dict(registry) for registry in registries]
    names: dict[str, Any] = {"__name__": "adding"}
    try:
        exec("\n".join(BLOCKS), names)
        yield names
    finally:
        for registry, entries in zip(registries, before, strict=True):
            registry.clear()
            registry.update(entries)


def test_the_page_trains(page: dict[str, Any]) -> None:
    record = page["record"]
    summary = json.loads((record / "summary.json").read_text())
    masks = load_file(record / "state.safetensors")
    assert len(pd.read_csv(record / "epochs.csv")) == 2
    assert summary["row"] == "outliers-s80"
    assert 0 < summary["masks"]["overlap_first"] < 1
    for name, weight in load_file(record / "model.safetensors").items():
        mask = masks.get(f"mask.{name.removesuffix('.weight')}")
        assert mask is None or not weight[~mask].any()
    assert summary["sparsity"]["achieved"] == pytest.approx(0.8, abs=0.01)


def test_the_method_is_listed(page: dict[str, Any]) -> None:
    listed = json.loads(CliRunner().invoke(app, ["methods", "--json"]).stdout)
    (toy,) = [method for method in listed if method["name"] == "outliers"]
    assert toy["title"] == "Outliers" and toy["kind"] == "dynamic"
    assert toy["options"]["share"]["default"] == 0.1


def test_the_method_has_a_row_in_a_table(page: dict[str, Any], tmp_path: Path) -> None:
    """On digits, beside a method of the project's own, without a line of code more."""
    shutil.copytree(ROOT / "config", "config")
    settings = {"data": {"name": "digits", "train_limit": 200}, "model": {"name": "resnet8", "width": 0.25}}
    recipe = {"training": {"epochs": 2, "batch_size": 50}, "sparsity": {"interval": 1}}
    scale = {"settings": {**settings, **recipe}, "sparsities": [0.8]}
    Path("config/scales/tiny.yaml").write_text(yaml.safe_dump(scale))
    rows = {"rows": [{"method": "outliers"}, {"method": "set"}]}
    Path("config/experiments/table2.yaml").write_text(yaml.safe_dump(rows))
    runs = expand("tiny", "table2")
    plans = Path("results/tiny/plans")
    plans.mkdir(parents=True)
    (plans / "table2.json").write_text(json.dumps([describe(plan_settings(run)) for run in runs]))
    for run in runs:
        train(run, load(run.data, None, None), Path("results/tiny/runs"))
    tables.make("table2", "tiny", Path("results"))
    table = pd.read_csv("results/tiny/tables/table2.csv")
    assert table["row"].tolist() == ["outliers-s80", "set-s80"]
    assert table["status"].tolist() == ["run", "run"]
