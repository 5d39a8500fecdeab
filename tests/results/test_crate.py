"""The RO-Crate loads again and says what is in it."""

import json
import zipfile
from pathlib import Path
from types import SimpleNamespace

import pytest
from rocrate.rocrate import ROCrate

from spfde.errors import SpfdeError
from spfde.results.crate import export

ROOT = Path(__file__).parents[2]


@pytest.fixture
def results(tmp_path: Path, fakes: SimpleNamespace) -> Path:
    """One run with weights beside its record, a table and a figure."""
    home = tmp_path / "results"
    folder = fakes.write_record(fakes.settings("smoke", "set", 0.9), home / "smoke" / "runs")
    (folder / "model.safetensors").write_bytes(b"weights")
    for name in ("tables/table2.csv", "figures/tradeoff.svg", "claims.json", "overview.html"):
        (home / "smoke" / name).parent.mkdir(exist_ok=True)
        (home / "smoke" / name).write_text(name)
    return home


def test_a_folder_that_loads_again(results: Path, tmp_path: Path) -> None:
    count = export("smoke", results, tmp_path / "crate", ROOT)
    crate = ROCrate(tmp_path / "crate")
    files = {entity.id for entity in crate.get_by_type("File")}
    assert len(files) == count
    assert all((tmp_path / "crate" / name).is_file() for name in files)
    on_disk = {str(path.relative_to(tmp_path / "crate")) for path in (tmp_path / "crate").rglob("*") if path.is_file()}
    assert on_disk == files | {"ro-crate-metadata.json"}

    run = next((results / "smoke/runs").iterdir()).name
    record = {
        f"results/smoke/runs/{run}/{name}" for name in ("settings.yaml", "summary.json", "epochs.csv", "layers.csv")
    }
    assert {name for name in files if name.startswith("results/smoke/runs")} == record  # no weights
    made = {f"results/smoke/{name}" for name in ("tables/table2.csv", "figures/tradeoff.svg", "claims.json")}
    assert made | {"Snakefile", "CITATION.cff", "LICENSE", "config/config.yaml", "workflow/rules/train.smk"} <= files
    assert crate.get("results/smoke/figures/tradeoff.svg")["encodingFormat"] == "image/svg+xml"
    assert (tmp_path / "crate" / "results/smoke/claims.json").read_text() == "claims.json"


def test_its_metadata(results: Path, tmp_path: Path) -> None:
    export("smoke", results, tmp_path / "crate", ROOT)
    crate = ROCrate(tmp_path / "crate")
    root = crate.root_dataset
    assert root["license"].id == "https://spdx.org/licenses/Apache-2.0"
    assert [author["name"] for author in root["author"]] == ["spfde contributors"]
    assert {"name", "description", "datePublished", "version"} <= set(root.properties())
    (paper,) = root["citation"]
    assert paper.id == "https://arxiv.org/abs/2209.11204" and len(paper["author"]) == 8
    assert {profile["name"] for profile in root["conformsTo"]} >= {"Workflow Run Crate", "Workflow RO-Crate"}
    assert crate.mainEntity.id == "Snakefile" and crate.mainEntity["programmingLanguage"]["name"] == "Snakemake"

    (action,) = crate.get_by_type("CreateAction")
    assert root["mentions"] == action and action["instrument"] == crate.mainEntity
    assert action["startTime"] <= action["endTime"] == root["datePublished"]
    assert "config/scales/smoke.yaml" in {entity.id for entity in action["object"]}
    run = next(entity for entity in action["result"] if "runs" in entity.id and entity.type == "Dataset")
    assert "set-s90, seed 1" in run["description"] and len(run["hasPart"]) == 4

    graph = json.loads((tmp_path / "crate/ro-crate-metadata.json").read_text())["@graph"]
    known = {entity["@id"] for entity in graph}
    references = [
        value["@id"]
        for entity in graph
        for values in entity.values()
        for value in (values if isinstance(values, list) else [values])
        if isinstance(value, dict) and not str(value["@id"]).startswith(("https://w3id.org/ro/crate", "https://doi"))
    ]
    assert set(references) - known <= {"https://snakemake.readthedocs.io"}


def test_a_zip_file(results: Path, tmp_path: Path) -> None:
    count = export("smoke", results, tmp_path / "crate.zip", ROOT)
    names = [name for name in zipfile.ZipFile(tmp_path / "crate.zip").namelist() if not name.endswith("/")]
    assert len(names) == len(set(names)) == count + 1
    assert ROCrate(tmp_path / "crate.zip").root_dataset["license"].id.endswith("Apache-2.0")


def test_what_cannot_be_exported_is_said(results: Path, tmp_path: Path) -> None:
    with pytest.raises(SpfdeError, match="no records of scale cifar100"):
        export("cifar100", results, tmp_path / "crate", ROOT)
    with pytest.raises(SpfdeError, match="no Snakefile"):
        export("smoke", results, tmp_path / "crate", tmp_path)
    with pytest.raises(SpfdeError, match="folder with other files"):
        export("smoke", results, results, ROOT)
    assert (results / "smoke").is_dir()
    export("smoke", results, tmp_path / "crate", ROOT)
    export("smoke", results, tmp_path / "crate", ROOT)  # a crate is replaced
