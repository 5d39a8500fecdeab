"""A scale's results as an RO-Crate (RO-Crate 1.1, profile Workflow Run Crate): files with metadata that machines read.

A crate holds the records without their weights, the tables, figures, claims, plans and report, the settings and the
workflow that made them, licence and citation.
"""

import mimetypes
import os
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from spfde.errors import SpfdeError
from spfde.files import writing
from spfde.results.collect import collect, read_costs, record_folders

if TYPE_CHECKING:
    from rocrate.model import ContextEntity, DataEntity, Entity
    from rocrate.rocrate import ROCrate

WORKFLOW = ("config", "notebooks", "profiles", "workflow")
PAPERS = ("CITATION.cff", "LICENSE", "README.md", "constraints.txt", "environment.yml")
RECORD = ("settings.yaml", "summary.json", "epochs.csv", "layers.csv", "layers.csv.gz")
SHOWN = (
    "claims.*",
    "costs.csv",
    "figures/*",
    "notebooks/*",
    "overview.html",
    "plans/*",
    "report.html",
    "runs.csv",
    "tables/*",
)
PROFILES = {
    "https://w3id.org/ro/wfrun/process/0.5": "Process Run Crate",
    "https://w3id.org/ro/wfrun/workflow/0.5": "Workflow Run Crate",
    "https://w3id.org/workflowhub/workflow-ro-crate/1.0": "Workflow RO-Crate",
}
FORMATS = {
    ".cff": "application/yaml",
    ".ipynb": "application/x-ipynb+json",
    ".md": "text/markdown",
    ".smk": "text/x-snakemake",
    ".tex": "application/x-tex",
    ".yaml": "application/yaml",
    ".yml": "application/yaml",
}


def export(scale: str, results: Path, out: Path, project: Path = Path()) -> int:
    """Writes the crate: a zip file where `out` ends in .zip, else a folder.

    Args:
        results: the folder of all results.
        out: replaced where it is a crate already.
        project: the folder with the Snakefile.

    Returns:
        the number of files in the crate, its own metadata not counted.

    Raises:
        SpfdeError: nothing was run at this scale, no project, a broken record, `out` is something else than a crate.
    """
    folders = record_folders(scale, results)
    if not folders:
        raise SpfdeError(f"no records of scale {scale} in {results}", f"run `snakemake --config scale={scale}` first")
    if not (project / "Snakefile").is_file():
        raise SpfdeError(f"no Snakefile in {project.resolve()}", "export from the project's folder")
    if out.is_dir() and any(out.iterdir()) and not (out / "ro-crate-metadata.json").is_file():
        raise SpfdeError(f"{out} is a folder with other files", "name a new one, or a .zip file")
    crate = _crate(scale, results, folders, project)
    with writing(out) as temporary:
        if out.suffix == ".zip":
            crate.write_zip(temporary)
        else:
            crate.write(temporary)
    return len(crate.get_by_type("File"))


def _crate(scale: str, results: Path, folders: list[Path], project: Path) -> "ROCrate":
    from rocrate.model import ContextEntity
    from rocrate.rocrate import ROCrate

    crate = ROCrate(version="1.1")
    citation = yaml.safe_load((project / "CITATION.cff").read_text(encoding="utf-8"))
    authors = [_agent(crate, author) for author in citation["authors"]]
    spdx = f"https://spdx.org/licenses/{citation['license']}"
    licence = crate.add(ContextEntity(crate, spdx, {"@type": "CreativeWork", "name": citation["license"]}))
    workflow = crate.add_workflow(project / "Snakefile", "Snakefile", main=True, lang="snakemake")
    described = {"license": licence, "author": authors, "version": citation["version"]}
    _describe(workflow, {"name": citation["title"], **described})
    settings = [_file(crate, path, path.relative_to(project)) for path in _sources(project)]
    records = _records(crate, folders, scale, read_costs(scale, results))
    home = results / scale
    shown = [path for pattern in SHOWN for path in sorted(home.glob(pattern)) if path.is_file()]
    made = [_file(crate, path, Path("results", scale) / path.relative_to(home)) for path in shown]
    times = [path.stat().st_mtime for path in [*(folder / "summary.json" for folder in folders), *shown]]
    begin, end = (datetime.fromtimestamp(time, UTC).isoformat(timespec="seconds") for time in (min(times), max(times)))
    _describe(
        crate.root_dataset,
        {
            **described,
            "name": f"{citation['title']} (scale {scale})",
            "description": f"{len(folders)} training runs at the scale {scale}: settings, histories, traces, costs, "
            "and the tables, figures and claims made of them. Weights are not included.",
            "datePublished": end,
            "keywords": ["sparse training", "layer freezing", "data sieving", "reproducibility"],
            "citation": [_article(crate, reference) for reference in citation.get("references", ())],
            "conformsTo": [
                crate.add(ContextEntity(crate, address, {"@type": "CreativeWork", "name": name}))
                for address, name in PROFILES.items()
            ],
        },
    )
    action = crate.add_action(
        workflow,
        identifier=f"#reproduction-{scale}",
        object=[entity for entity in settings if entity.id.startswith("config/")],
        result=[*records, *made],
        properties={"name": f"Reproduction at scale {scale}", "startTime": begin, "endTime": end},
    )
    action["agent"] = authors[0]
    crate.root_dataset["mentions"] = action
    return crate


def _describe(entity: "Entity", properties: dict[str, Any]) -> None:
    """References and values, set one by one: an entity given at once keeps only plain values."""
    for name, value in properties.items():
        entity[name] = value


def _sources(project: Path) -> Iterator[Path]:
    """The files of the workflow, its settings, licence and citation."""
    for name in PAPERS:
        if (project / name).is_file():
            yield project / name
    for folder in WORKFLOW:
        for parent, children, names in os.walk(project / folder):
            children[:] = sorted(name for name in children if not name.startswith((".", "__")))
            yield from (Path(parent, name) for name in sorted(names) if not name.startswith("."))


def _records(
    crate: "ROCrate", folders: list[Path], scale: str, costs: dict[str, dict[str, float]]
) -> list["DataEntity"]:
    """A dataset for each run: its files without weights, and what it found."""
    runs = collect(folders, costs=costs).set_index("run_id")
    entities = []
    for folder in folders:
        home = Path("results", scale, "runs", folder.name)
        properties: dict[str, Any] = {"name": folder.name}
        if folder.name in runs.index:
            run = runs.loc[folder.name]
            properties["description"] = (
                f"{run['row']}, seed {run['seed']}: {run['accuracy.test_last']:.2f} % test accuracy after the last "
                f"epoch, {run['flops.paper']:.4g} training FLOPs in the paper's convention"
            )
        files = [_file(crate, folder / name, home / name) for name in RECORD if (folder / name).is_file()]
        entities.append(crate.add_dataset(dest_path=home, properties=properties))
        entities[-1]["hasPart"] = files
    return entities


def _file(crate: "ROCrate", source: Path, place: Path) -> "DataEntity":
    guessed = mimetypes.guess_type(place.name)
    kind = "application/gzip" if guessed[1] == "gzip" else FORMATS.get(place.suffix, guessed[0] or "text/plain")
    return crate.add_file(source, place, properties={"encodingFormat": kind}, record_size=True)


def _agent(crate: "ROCrate", who: dict[str, str]) -> "ContextEntity":
    """A person or an organisation of CITATION.cff."""
    from rocrate.model import ContextEntity

    person = "family-names" in who
    name = f"{who['given-names']} {who['family-names']}" if person else who["name"]
    kind = {"@type": "Person" if person else "Organization", "name": name}
    return crate.add(ContextEntity(crate, who.get("orcid", f"#{name.lower().replace(' ', '-')}"), kind))


def _article(crate: "ROCrate", reference: dict[str, Any]) -> "ContextEntity":
    """A paper that CITATION.cff refers to."""
    from rocrate.model import ContextEntity

    known = [identifier["value"] for identifier in reference.get("identifiers", ())]
    addresses = [value.replace("arXiv:", "https://arxiv.org/abs/") for value in known if value.startswith("arXiv:")]
    identifier = (addresses or [f"#{reference['title'].lower().replace(' ', '-')}"])[0]
    article = ContextEntity(
        crate,
        identifier,
        {"@type": "ScholarlyArticle", "name": reference["title"], "datePublished": str(reference["year"])},
    )
    article["author"] = [_agent(crate, author) for author in reference["authors"]]
    return crate.add(article)
