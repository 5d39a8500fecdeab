"""What the workflow says that a result is made of, held against what making it reads and runs.

What making a result opens of results/ and config/, and every source file whose code runs meanwhile, has to be among the
inputs of its rule: otherwise an edit of it, or a new record, would leave a result of before standing.
"""

import json
import os
import re
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

import pandas as pd
import pytest

from spfde.cli.analyse import Kind, analyse
from spfde.cli.cost import cost
from spfde.cli.plan import plans
from spfde.cli.results import collect
from spfde.data import load
from spfde.experiments.files import experiment_names
from spfde.experiments.resolve import resolve
from spfde.experiments.stored import read_settings
from spfde.results import figures, overview, tables
from spfde.results.artefacts import ARTEFACTS, FIGURES, TABLES, Artefact
from spfde.results.claims import Claim, read
from spfde.results.evidence import Evidence
from spfde.results.figures import style
from spfde.results.pipeline import Pipeline, chosen
from spfde.training.loop import train

ROOT = Path(__file__).parents[2]
SHORT = "cifar100-short"  # a scale with a protocol, and with published records
opened: set[str] | None = None  # files opened while somebody listens


def listen(event: str, arguments: tuple[object, ...]) -> None:
    if opened is not None and event == "open" and isinstance(arguments[0], str | os.PathLike):
        opened.add(os.path.abspath(arguments[0]))


sys.addaudithook(listen)


class Watched:
    """What was opened and what ran while a result was made: absolute paths.

    Attributes:
        files: those below results/ and config/ of the working directory; a whole record stands for its summary.json.
        sources: the files of spfde whose code ran. Those of the command line choose and print, and compute nothing.
    """

    def __init__(self) -> None:
        self.files: set[Path] = set()
        self.sources: set[Path] = set()

    def not_among(self, inputs: list[str], outputs: str = "") -> list[str]:
        """What was read or ran and is not among these inputs, nor below the folder of outputs."""
        known = {Path(os.path.abspath(path)) for path in inputs}
        read = {path for path in self.files if not outputs or not path.is_relative_to(os.path.abspath(outputs))}
        assert read and self.sources
        return sorted(os.path.relpath(path) for path in (read | self.sources) - known)


@contextmanager
def watching(command: bool = False) -> Iterator[Watched]:
    """Watches what is opened and what runs.

    Args:
        command: whether the code of the command line counts: what it does is a part of the result.
    """
    global opened
    found, ran, before = Watched(), set(), sys.gettrace()

    def called(frame: FrameType, event: str, argument: object) -> None:
        ran.add(frame.f_code.co_filename)

    opened = set()
    sys.settrace(called)
    try:
        yield found
    finally:
        sys.settrace(before)
        here, package = Path.cwd(), ROOT / "spfde"
        below = [Path(path) for path in opened if Path(path).is_relative_to(here)]
        opened = None
        wanted = [path for path in below if path.relative_to(here).parts[0] in ("results", "config", "notebooks")]
        found.files = {_stands_for(path) for path in wanted if path.is_file()}
        ours = [Path(name) for name in ran if Path(name).is_relative_to(package)]
        found.sources = {path for path in ours if command or not path.is_relative_to(package / "cli")}
        found.sources -= {package / "__init__.py"}  # holds nothing but names


def _stands_for(path: Path) -> Path:
    """The summary of the record that a file is part of; the file itself where it is part of none."""
    record = next((parent for parent in path.parents if (parent / "summary.json").is_file()), None)
    return record / "summary.json" if record else path


@pytest.fixture(scope="module")
def planned(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The plans of all experiments at a scale with published records."""
    folder = tmp_path_factory.mktemp("plans")
    plans(experiment_names(), SHORT, folder)
    return folder


@pytest.fixture(scope="module")
def snapshots(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The record of a short run with snapshots."""
    told = {"sparsity.method": "set", "training.epochs": 2, "training.snapshots": 1, "data.train_limit": 64}
    settings = resolve("smoke", {**told, "sparsity.interval": 1})
    return train(settings, load(settings.data, None, None), tmp_path_factory.mktemp("runs"))


@pytest.fixture
def everything(smoke: Path, cifar100: Path, planned: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Results of several scales, fresh and published ones, accounted and analysed."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("spfde.results.accuracy.crossed_bootstrap", lambda *_: (0.0, 0.0))  # reads nothing, takes long
    results = tmp_path / "results"
    (results / "published").mkdir(parents=True)
    (tmp_path / "config").symlink_to(ROOT / "config")
    (tmp_path / "notebooks").symlink_to(ROOT / "notebooks")
    shutil.copytree(smoke / "smoke", results / "smoke", symlinks=True)
    (results / "cifar100").symlink_to(cifar100 / "cifar100")
    shutil.copytree(cifar100 / "published/cifar100", results / "published/cifar100")
    for path in (ROOT / "results/published/cifar100").iterdir():
        shutil.copy(path, results / "published/cifar100")
    (results / "published" / SHORT).symlink_to(ROOT / "results/published" / SHORT)
    shutil.copytree(planned, results / SHORT / "plans")
    again = next((ROOT / "results/published" / SHORT).glob("*-static-s80-seed1-*"))
    shutil.copytree(again, results / SHORT / "runs" / again.name)
    for scale in ("smoke", SHORT):
        (results / scale / "costs.csv").write_text("run_id\n")
    for scale in ("smoke", SHORT):
        (results / scale / "runs.csv").touch()
        (results / scale / "claims.json").write_text("[]")
    return results


def pipeline(scale: str) -> Pipeline:
    return Pipeline(scale, chosen("all"), train="never")


def make(entry: Artefact, scale: str) -> None:
    """Makes an artefact; of a notebook, whose kernel is another process, runs the cells here."""
    if entry.kind != "notebook":
        (tables if entry.kind == "table" else figures).make(entry.name, scale, Path("results"))
        return
    path, names = Path("notebooks", f"{entry.name}.ipynb"), dict[str, object]()
    for cell in json.loads(path.read_text(encoding="utf-8"))["cells"]:
        if cell["cell_type"] == "code":
            exec(compile("".join(cell["source"]), str(path), "exec"), names)


def unused(found: Watched, at: Pipeline) -> list[str]:
    """Records of the scale that are read with the others and are of no row that the artefact shows."""
    plans = [path for path in found.files if path.parent.name == "plans"]
    rows = {row["row"] for path in plans for row in json.loads(path.read_text(encoding="utf-8"))}
    records = {*map(str, at.home.glob("runs/*/summary.json")), *map(str, at.published.glob("*/summary.json"))}
    return [path for path in records if json.loads(Path(path).read_text(encoding="utf-8"))["row"] not in rows]


# What reads analyses, times measured by hand, or records of other scales; everything at the scale of published records.
AT_SMOKE = ("figure_figure1", "figure_figure3", "figure_scaling", "notebook_results")


@pytest.mark.parametrize(
    ("scale", "name"), [("smoke", name) for name in AT_SMOKE] + [(SHORT, name) for name in ARTEFACTS]
)
def test_an_artefact_is_made_of_its_inputs(
    scale: str, name: str, everything: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SPFDE_SCALE", scale)
    monkeypatch.setenv("SPFDE_RESULTS", "results")
    if scale == "smoke":
        for experiment in set(ARTEFACTS[name].experiments):  # the made plans are those of a few experiments
            path = everything / scale / "plans" / f"{experiment}.json"
            if not path.exists():
                path.write_text("[]")
    with watching() as found:
        make(ARTEFACTS[name], scale)
    at = pipeline(scale)
    inputs = [*at.inputs(ARTEFACTS[name]), *unused(found, at)]
    made_rows = [] if scale != "smoke" else map(str, at.home.glob("runs/*/summary.json"))  # of made settings
    folder = {"table": "tables", "figure": "figures", "notebook": "notebooks"}[ARTEFACTS[name].kind]
    assert found.not_among([*inputs, *made_rows], f"results/{scale}/{folder}") == []


@pytest.mark.parametrize("entry", [TABLES["study"], FIGURES["budget"]], ids=lambda entry: entry.rule)
def test_what_follows_a_protocol_needs_no_other_records(entry: Artefact, everything: Path) -> None:
    """The runs of a scale's tiers are those of many experiments, most of which show the same runs."""

    def values() -> pd.DataFrame:
        if entry.kind == "table":
            return tables.build(entry.name, SHORT, Path("results")).values
        with style.publication(entry.name):
            drawing = figures.draw(entry.name, SHORT, Path("results"))
        return drawing.points.assign(said=drawing.figure.get_supxlabel())

    of_all = values()
    kept = [Path(path).parent for path in pipeline(SHORT).inputs(entry) if path.endswith("/summary.json")]
    records = [path.parent for path in pipeline(SHORT).published.glob("*/summary.json")]
    (everything / "kept").mkdir()
    for folder in kept:
        shutil.copytree(folder, everything / "kept" / folder.name)
    shutil.rmtree(everything / SHORT / "runs")
    (everything / "published" / SHORT).unlink()
    (everything / "kept").rename(everything / "published" / SHORT)
    assert 20 < len(kept) < len(records)
    pd.testing.assert_frame_equal(values().reset_index(drop=True), of_all.reset_index(drop=True))


@pytest.mark.parametrize("scale", ["smoke", SHORT])
def test_the_overview_is_made_of_its_inputs(scale: str, everything: Path) -> None:
    """It reads the records once more: those that runs.csv, which is among its inputs, is made of."""
    with watching() as found:
        overview.write(scale, Path("results"))
    at = pipeline(scale)
    inputs = at.overview_inputs()
    assert str(at.home / "runs.csv") in inputs
    assert found.not_among([*inputs, *at.collect_inputs()], f"results/{scale}/overview.html") == []


@pytest.mark.parametrize("scale", ["smoke", SHORT])
def test_runs_are_collected_and_accounted_from_the_inputs(scale: str, everything: Path) -> None:
    """All records that are there, also those that no chosen experiment has."""
    with watching() as found:
        collect(scale, Path("results"), Path("results/written.csv"))
    assert found.not_among(pipeline(scale).collect_inputs(), "results/written.csv") == []
    if scale == SHORT:  # the made records have no whole traces
        with watching() as found:
            cost(scale, None, Path("results"), Path("results/written.csv"))
        assert found.not_among(pipeline(scale).account_inputs([]), "results/written.csv") == []


def test_plans_are_made_of_their_inputs(everything: Path) -> None:
    with watching(command=True) as found:
        plans(["table2", "mest"], "smoke", Path("results/written"))
    assert found.not_among(pipeline("smoke").plan_inputs(), "results/written") == []


@pytest.mark.parametrize("kind", list(Kind))
def test_an_analysis_is_made_of_its_inputs(
    kind: Kind, snapshots: Path, everything: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of one short run in place of those of figure1.

    Settings, and the code that says which records there are and whether they can be trusted, are no inputs: a record is
    analysed anew where it changes.
    """
    settings, *_ = read_settings(snapshots / "settings.yaml")
    runs = everything / "smoke/runs"
    shutil.rmtree(runs)
    shutil.copytree(snapshots, runs / snapshots.name)
    monkeypatch.setattr("spfde.experiments.resolve.expand", lambda *_: [settings])
    monkeypatch.setattr("spfde.results.pipeline.expand", lambda *_: [settings])
    with watching(command=True) as found:
        analyse(kind, "smoke", "figure1", results=Path("results"), data_root=Path("none"), cache=Path("cache"))
    at = Pipeline("smoke", ("figure1",), train="never")
    missing = found.not_among(at.analyse_inputs("figure1"), "results/smoke/analysis")
    chooses = r"config/|.*/spfde/(experiments/\w+|results/collect|training/(trust|device))\.py"
    assert at.records("figure1") and [path for path in missing if not re.match(chooses, path)] == []


def kinds(claims: list[Claim]) -> list[Claim]:
    """A claim of each kind: those that differ in nothing that decides what is read."""
    found = {(c.kind, c.scale, c.test, c.relation, c.metric.split(".")[0], bool(c.missing)): c for c in claims}
    return list(found.values())


@pytest.mark.parametrize("scale", ["smoke", SHORT])
def test_claims_are_decided_from_their_inputs(scale: str, everything: Path) -> None:
    """Records, accounts, analyses and times of every scale whose runs decide a claim, or say something of one."""
    file = read()
    with watching() as found:
        evidence = Evidence(scale, Path("results"), file)
        for claim in kinds(file.claims):
            evidence.decide(claim)
    parts = {path.relative_to(everything).parts[:2] for path in found.files if path.is_relative_to(everything)}
    others = {("published", "cifar100"), ("published", SHORT), ("cifar100", "analysis"), (SHORT, "runs")}
    assert {*others, (SHORT, "costs.csv")} <= parts
    assert found.not_among(pipeline(scale).claims_inputs()) == []


def test_nothing_of_another_scale_is_asked_for(everything: Path) -> None:
    """Its results are inputs where they are there: whole records, fresh ones before published ones."""
    at = Pipeline("digits", chosen("all"))
    shown = [path for path in at.claims_inputs() if path.startswith("results/") and "digits" not in path]
    assert shown and all(Path(path).is_file() for path in shown)
    again = next(Path("results", SHORT, "runs").iterdir())
    assert str(again / "summary.json") in shown
    published = Path("results/published", SHORT, again.name, "summary.json")
    assert published.is_file() and str(published) not in shown
    (again / "epochs.csv").write_text("grown")
    inputs = Pipeline("digits", chosen("all")).claims_inputs()
    assert str(again / "summary.json") not in inputs and str(published) in inputs
    assert not [path for job in at.jobs for run in job.runs if SHORT in (path := at.record(run))]
