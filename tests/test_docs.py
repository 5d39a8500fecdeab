"""What the documentation says about methods and settings is what they are."""

import importlib
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pandas as pd
import pytest
import scipy.stats
import yaml
from jsonschema import Draft202012Validator
from referencing import Registry, Resource

from spfde.cli.plan import plans
from spfde.experiments.files import default_scale
from spfde.experiments.resolve import expand
from spfde.methods import METHODS
from spfde.results.status import ordered
from spfde.results.tables import build
from spfde.results.tables.render import markdown

ROOT = Path(__file__).parents[1]
CARDS = sorted((ROOT / "docs/methods").glob("*.md"))


@pytest.fixture(scope="module")
def generator() -> Iterator[ModuleType]:
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(ROOT / "docs"))
        yield importlib.import_module("generate")


@pytest.fixture
def shown(generator: ModuleType) -> ModuleType:
    """What the generator says of measured results."""
    return generator.of_measured


def test_nothing_generated_is_stale(generator: ModuleType) -> None:
    assert not generator.stale(), "run `python docs/generate.py`"


def test_a_changed_option_makes_its_card_stale(generator: ModuleType) -> None:
    """The tables come from the models: name, values, default and description of every option are in them."""
    text = (ROOT / "docs/methods/set.md").read_text()
    for name, field in METHODS["set"].Options.model_fields.items():
        default = f"{field.default:g}" if isinstance(field.default, float) else json.dumps(field.default)
        assert re.search(rf"^\| `{name}` \| .* \| `{re.escape(default)}` \|", text, re.MULTILINE)
        assert (field.description or "").replace("|", "\\|") in text
    settings = (ROOT / "config/README.md").read_text()
    assert "| `sparsity.target` | number ≥ 0 and < 1 | `0.9` |" in settings
    assert "| `data.train_limit` | whole number ≥ 1 and ≤ 1e+09, null | `null` |" in settings


def test_pages_say_which_measured_numbers_are_of_earlier_settings(
    shown: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shown, "MEASURED", tmp_path)
    settings = {run.row: run.row_digest for run in expand("smoke", "table2")}
    for digest, earlier in ((settings["dense"], False), ("0" * 8, True)):
        for name in ("headline", "methods"):
            frame = pd.read_csv(ROOT / f"docs/measured/{name}.csv").query("row == 'dense'")
            frame.assign(scale="smoke", row_digest=digest).to_csv(tmp_path / f"{name}.csv", index=False)
        assert ("earlier" in shown.first_result()) == earlier
        assert ("earlier" in shown.measured("dense")) == earlier


def test_another_measured_number_makes_the_pages_that_show_it_stale(
    generator: ModuleType, shown: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("headline", "methods"):
        frame = pd.read_csv(ROOT / f"docs/measured/{name}.csv")
        frame.loc[frame["row"] == "dense", "mean"] += 1
        if name == "methods":
            frame["dense_mean"] += 1
        frame.to_csv(tmp_path / f"{name}.csv", index=False)
    rows = pd.read_csv(ROOT / "docs/measured/speed.csv")
    rows.assign(ratio=rows["ratio"] + 1).to_csv(tmp_path / "speed.csv", index=False)
    shutil.copy(ROOT / "docs/measured/epochs-h100.csv", tmp_path)
    for name in ("pilot", "study"):
        (tmp_path / f"{name}.md").write_text("# Title\n\nOther trials.\n")
    (tmp_path / "budget-study.md").write_text("# Title\n\nOther runs.\n")
    monkeypatch.setattr(shown, "MEASURED", tmp_path)
    stale = {str(path.relative_to(ROOT)) for path in generator.stale()}
    pages = {"README.md", "docs/index.md", "docs/speed.md", "docs/evidence.md"}
    assert pages | {"docs/methods/dense.md", "docs/methods/static.md"} <= stale
    assert "config/README.md" not in stale


def test_a_method_stands_beside_a_dense_network_trained_alike_or_beside_none(
    shown: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    frame = pd.read_csv(ROOT / "docs/measured/methods.csv").set_index("method")
    whole = frame.loc["dense", "dense_mean"]
    assert (frame.loc[frame["images"].notna(), "dense_mean"] != whole).all()  # fewer images, another dense network
    assert (frame.loc[frame["images"].isna(), "dense_mean"] == whole).all()
    monkeypatch.setattr(shown, "MEASURED", tmp_path)
    told = {"images": [384, None], "epochs": [30, 60], "dense_mean": [94.7, None], "dense_std": None, "dense_n": 1}
    frame.loc[["swat-u", "snip"]].assign(**told).to_csv(tmp_path / "methods.csv")
    swat, snip = shown.measured("swat-u"), shown.measured("snip")
    assert "30 epochs on 384 images (scale" in swat and swat.endswith(
        "a dense network trained alike has 94.7 % (n = 1)"
    )
    assert "60 epochs (scale" in snip and "dense" not in snip


def test_the_first_table_says_where_it_was_made_and_which_masks_that_move_are_no_better(
    shown: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    frame = pd.read_csv(ROOT / "docs/measured/headline.csv")
    monkeypatch.setattr(shown, "MEASURED", tmp_path)
    frame["mean"] = frame["row"].map({"static-s95": 80.0, "set-s95": 79.0, "mest-em-s95": 70.0}).fillna(90.0)
    frame.assign(torch="2.9", device="cpu: Some CPU").to_csv(tmp_path / "headline.csv")
    text = shown.first_result()
    for part in ("CPU (Some CPU, avx512)", "torch 2.9", "kernels `auto`", "at least x %"):
        assert part in text
    assert "SET (79.0) and MEST+EM (70.0) are below the static random mask (80.0)" in text
    samples = [[value + shift for value in (-1.0, 0.0, 1.0)] for shift in (79, 80)]  # n = 3, standard deviation 1
    alike = {"mean": 79.0, "std": 1.0, "n": 3}
    interval = scipy.stats.ttest_ind(*samples, equal_var=False).confidence_interval()
    assert shown.difference(alike, {**alike, "mean": 80.0}).interval() == pytest.approx(interval)
    frame.assign(mean=90.0).to_csv(tmp_path / "headline.csv")
    assert "below the static" not in shown.first_result()


def test_the_page_of_the_pipeline_counts_the_runs_of_the_default_scale() -> None:
    (said,) = re.findall(r"`make reproduce` \((\d+) runs\)", (ROOT / "docs/pipeline.md").read_text())
    assert int(said) == len(ordered(default_scale()))


def test_the_study_on_the_page_is_what_the_published_records_show(tmp_path: Path) -> None:
    """Rendered anew from them alone, each table is what docs/measured/ keeps; `docs/measure.py` takes it over."""
    scale = "cifar100-short"
    (tmp_path / "published").symlink_to(ROOT / "results/published")
    plans(["budget", "pilot"], scale, tmp_path / scale / "plans")
    for table, kept in (("study", "study"), ("budget", "budget-study"), ("pilot", "pilot")):
        shown = markdown(build(table, scale, tmp_path))
        assert shown == (ROOT / f"docs/measured/{kept}.md").read_text(encoding="utf-8"), kept


def test_every_method_has_a_card() -> None:
    assert {path.stem for path in CARDS} == set(METHODS)


@pytest.mark.parametrize("card", CARDS, ids=lambda path: path.stem)
def test_a_card_is_complete_and_its_example_runs(card: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = card.read_text()
    for part in (
        "## When to use it",
        "Measured here",
        "## Cost",
        "## Caveats",
        "> **Where sources disagree",
        f"sparsity.method={card.stem}",
    ):
        assert part in text
    (example,) = re.findall(r"^```python\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    assert f'"sparsity.method": "{card.stem}"' in example
    assert len([line for line in example.splitlines() if line]) <= 5
    exec(example, {})
    assert "'paper':" in capsys.readouterr().out


PAGES = [*ROOT.glob("*.md"), *ROOT.glob("config/*.md"), *ROOT.glob("docs/**/*.md"), *ROOT.glob("results/*.md")]


@pytest.mark.parametrize("page", PAGES, ids=lambda path: str(path.relative_to(ROOT)))
def test_links_lead_to_files_that_exist(page: Path) -> None:
    text = re.sub(r"^```.*?^```", "", page.read_text(), flags=re.MULTILINE | re.DOTALL)
    for link in re.findall(r"\]\(([^)\s]+)\)", text):
        target = link.partition("#")[0]
        if target and "://" not in link:
            assert (page.parent / target).exists(), f"{page.name} links to {link}"


@pytest.mark.slow
def test_the_site_builds_without_a_warning(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(tmp_path)]
    environment = {**os.environ, "NO_MKDOCS_2_WARNING": "1"}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    pages = {str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*.html")}
    assert {"index.html", "claims.html", "settings.html", "api/api.html", "methods/spfde.html"} <= pages
    assert "SparseTraining" in (tmp_path / "api/api.html").read_text()


@pytest.mark.parametrize("kind", ["scale", "experiment"])
def test_the_projects_files_fit_the_schemas(kind: str) -> None:
    schemas = {path.name: json.loads(path.read_text()) for path in (ROOT / "workflow/schemas").glob("*.schema.json")}
    registry: Registry = Registry().with_resources(
        (name, Resource.from_contents(schema)) for name, schema in schemas.items()
    )
    validator = Draft202012Validator(schemas[f"{kind}.schema.json"], registry=registry)
    for path in (ROOT / f"config/{kind}s").glob("*.yaml"):
        assert not list(validator.iter_errors(yaml.safe_load(path.read_text()))), path
    assert list(validator.iter_errors({"sedes": [1]}))
