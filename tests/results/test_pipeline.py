"""The registry of artefacts and what the workflow computes of it: runs, jobs, records, inputs."""

import re
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Literal

import pytest
import yaml

from spfde.errors import SpfdeError
from spfde.experiments.files import experiment_names
from spfde.results.artefacts import ARTEFACTS, FIGURES, NOTEBOOKS, TABLES
from spfde.results.dependencies import source_files
from spfde.results.jobs import MADE, RULES
from spfde.results.launch import launched
from spfde.results.pipeline import Pipeline, chosen
from spfde.training.lock import Lock, lock_of
from tests.whole import make_whole

ROOT = Path(__file__).parents[2]
TWO_ROWS = {"rows": [{"method": "static", "sparsities": [0.8]}, {"method": "set", "sparsities": [0.8]}]}
SMALL = {
    "data": {"name": "digits"},
    "model": {"name": "resnet8"},
    "training": {"epochs": 4},
    "sparsity": {"interval": 1},
}


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a scale `tiny` and two experiments that share a row."""
    monkeypatch.chdir(tmp_path)
    for name in ("scales", "experiments"):
        (tmp_path / "config" / name).mkdir(parents=True)
    scale = {"settings": SMALL, "seeds": [1, 2], "sparsities": [0.8], "runs_per_job": 4}
    (tmp_path / "config/scales/tiny.yaml").write_text(yaml.safe_dump(scale))
    (tmp_path / "config/experiments/one.yaml").write_text(yaml.safe_dump(TWO_ROWS))
    more = {"rows": [{"method": "set", "sparsities": [0.8]}, {"method": "rigl"}, {"method": "dense"}]}
    (tmp_path / "config/experiments/two.yaml").write_text(yaml.safe_dump(more))
    return tmp_path


def test_every_entry_can_be_built_and_has_experiments_and_a_caption() -> None:
    for entry in ARTEFACTS.values():
        assert callable(entry.load())
        assert {*entry.experiments, *(name.split(".")[0] for name in entry.analyses)} <= set(experiment_names())
        assert (ROOT / f"workflow/report/{entry.caption}.rst").is_file()
        assert set(entry.shows) <= set(ARTEFACTS)
    assert set(NOTEBOOKS) == {path.stem for path in (ROOT / "notebooks").glob("*.ipynb")}


def test_every_module_that_makes_an_artefact_is_in_the_registry() -> None:
    modules = {entry.module for entry in ARTEFACTS.values()}
    for folder, function in (("tables", "def build(material"), ("figures", "def draw(material")):
        makers = [path.stem for path in (ROOT / "spfde/results" / folder).glob("*.py") if function in path.read_text()]
        assert len(makers) >= 6 and {f"spfde.results.{folder}.{name}" for name in makers} <= modules


def test_one_module_makes_several_tables() -> None:
    assert len({TABLES[f"tableA{number}"].module for number in (8, 9, 10)}) == 1
    assert len({TABLES[f"tableA{number}"].module for number in (11, 12)}) == 1


def test_source_files_are_those_that_a_module_imports(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    needed = source_files("spfde.results.figures.figure4")
    assert {"spfde/results/figures/figure4.py", "spfde/results/figures/style.py", "spfde/settings.py"} <= set(needed)
    assert "spfde/results/figures/__init__.py" in needed  # runs when a figure is imported
    assert not {"spfde/results/figures/figure1.py", "spfde/training/loop.py"} & set(needed)
    with pytest.raises(ValueError, match=r"no module spfde\.none"):
        source_files("spfde.none")


def test_plans_depend_on_everything_below_data(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    inputs = set(Pipeline("smoke", chosen("all")).plan_inputs())
    assert {str(path.relative_to(ROOT)) for path in (ROOT / "spfde/data").glob("*.py")} <= inputs
    assert {"config/experiments/table2.yaml", "config/scales/smoke.yaml", "config/scales/imagenet.yaml"} <= inputs
    assert not any(path.startswith(("spfde/results", "spfde/training")) for path in inputs)


def test_a_table_depends_on_the_scales_that_it_is_computed_at(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    pipeline = Pipeline("smoke", ("table1", "table2", "table3"))
    for name, scales in {"table1": {"smoke", "cifar100"}, "table2": {"smoke"}, "table3": {"smoke", "imagenet"}}.items():
        inputs = pipeline.inputs(TABLES[name])
        assert {Path(path).stem for path in inputs if path.startswith("config/scales")} == scales


def test_rows_of_equal_seeds_are_packed_and_a_shared_run_is_trained_once(project: Path) -> None:
    """Two seeds a row, four runs a job: `two` is the larger experiment and gets the shared row."""
    jobs = Pipeline("tiny", ("one", "two")).jobs
    assert [list(job.rows) for job in jobs] == [
        [("two", "set-s80"), ("two", "rigl-s80")],
        [("two", "dense"), ("one", "static-s80")],
    ]
    assert [[run.settings.seed for run in job.runs] for job in jobs] == [[1, 2, 1, 2]] * 2
    assert jobs[1].options == [
        *("--experiment", "two", "--experiment", "one", "--row", "two/dense", "--row", "one/static-s80"),
        *("--seed", "1", "--seed", "2"),
    ]  # fmt: skip
    assert jobs[1].name == "two/dense"
    assert len(Pipeline("tiny", ("two",), (7,)).jobs) == 1  # one run a row: three of them fit


def test_a_scale_with_tiers_trains_run_by_run_in_their_order(project: Path) -> None:
    """Seed by seed over the rows of a tier; a pilot's seed comes last."""
    tiers = [
        {"name": "A", "rows": ["two/dense", "one/static-s80"], "seeds": [1, 2]},
        {"name": "B", "rows": ["two/rigl-s80"], "seeds": [2]},
    ]
    scale = {"settings": SMALL, "seeds": [1, 2], "sparsities": [0.8], "tiers": tiers}
    (project / "config/scales/tiny.yaml").write_text(yaml.safe_dump(scale))
    jobs = Pipeline("tiny", ("one", "two")).jobs
    names = ["two/dense-seed1", "one/static-s80-seed1", "two/dense-seed2", "one/static-s80-seed2", "two/rigl-s80-seed2"]
    assert [job.name for job in jobs] == names and [job.priority for job in jobs] == [6, 5, 4, 3, 2]
    assert jobs[2].options == ["--experiment", "two", "--row", "two/dense", "--seed", "2"]
    assert {job.priority for job in Pipeline("tiny", ("one", "two"), (101,)).jobs} == {1}


def test_a_published_record_counts_unless_a_fresh_one_is_there(project: Path) -> None:
    pipeline = Pipeline("tiny", ("one",))
    first = pipeline.runs["one"][0]
    fresh, published = (
        Path(f"results/{place}/{first.run_id}/summary.json") for place in ("tiny/runs", "published/tiny")
    )
    assert pipeline.record(first) == str(fresh)
    make_whole(published)
    pipeline = Pipeline("tiny", ("one",))
    first = pipeline.runs["one"][0]
    assert pipeline.record(first) == str(published)
    assert [len(job.runs) for job in Pipeline("tiny", ("one",)).jobs] == [1, 2]  # its other seed alone
    make_whole(fresh)
    pipeline = Pipeline("tiny", ("one",))
    assert pipeline.record(pipeline.runs["one"][0]) == str(fresh)


def test_a_damaged_record_counts_as_missing_unless_it_is_being_trained(project: Path) -> None:
    run = Pipeline("tiny", ("one",)).runs["one"][0]
    path, published = Path(f"results/tiny/runs/{run.run_id}/summary.json"), Path("results/published/tiny")
    make_whole(path)
    Pipeline("tiny", ("one",)).set_damaged_aside()
    assert path.is_file()
    (path.parent / "epochs.csv").write_text("grown")
    lock = Lock(lock_of(path.parents[1] / ".checkpoints" / f"{run.run_id}.safetensors"))
    assert lock.take()
    Pipeline("tiny", ("one",)).set_damaged_aside()
    assert path.is_file()  # a process is at it
    lock.release()
    Pipeline("tiny", ("one",)).set_damaged_aside()
    assert not path.is_file() and Pipeline("tiny", ("one",)).record(run) == str(path)
    shutil.copytree(path.parent, published / run.run_id)
    assert Pipeline("tiny", ("one",)).record(run) == str(path)  # damaged too
    shutil.rmtree(published / run.run_id)
    make_whole(published / run.run_id / "summary.json")
    assert Pipeline("tiny", ("one",)).record(run) == str(published / run.run_id / "summary.json")


def test_where_nothing_may_be_trained_what_is_there_is_taken(project: Path) -> None:
    pipeline = Pipeline("tiny", ("one", "two"), train="never")
    assert pipeline.records("one", "two") == [] and pipeline.jobs == [] and pipeline.analysable() == []
    run = pipeline.runs["two"][-1]
    path = Path(pipeline.record(run))
    make_whole(path)
    pipeline = Pipeline("tiny", ("one", "two"), train="never")
    assert pipeline.records("one", "two") == pipeline.records("two") == [str(path)]
    missing = Pipeline("tiny", ("one", "two"))
    assert len(missing.records("one", "two")) == 8


def test_nothing_missing_is_an_input_where_nothing_may_be_trained(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Records, analyses and timings: what nobody made is no input, so that nobody is asked to make it."""
    monkeypatch.chdir(tmp_path)
    pipeline = Pipeline("smoke", chosen("all"), train="never")
    for inputs in (pipeline.claims_inputs(), pipeline.inputs(FIGURES["figure1"]), pipeline.inputs(TABLES["tableA11"])):
        assert not [path for path in inputs if "/runs/" in path or "/analysis/" in path or path.endswith("bench.csv")]


def test_accounting_waits_for_what_is_asked(project: Path) -> None:
    pipeline = Pipeline("tiny", ("one", "two"))

    def waits(*targets: str) -> set[str]:
        inputs = [path for path in pipeline.account_inputs(targets) if path.startswith("results")]
        return {*inputs} - {"results/tiny/steps.csv"}

    assert waits("one") == set(pipeline.records("one"))
    assert waits("one", "two") == waits("results/tiny/report.html") == set(pipeline.records("one", "two"))
    for path in pipeline.records("one", "two"):
        make_whole(Path(path))
    assert waits("one") == set(pipeline.records("one", "two"))  # nothing has to be trained for it


def test_what_was_measured_by_hand_is_an_input_once_it_is_there(project: Path) -> None:
    pipeline = Pipeline("tiny", ("one",))
    figure = replace(FIGURES["scaling"], experiment="one")
    path = Path("results/tiny/scaling.csv")
    assert figure.by_hand == (path.name,) and str(path) not in pipeline.inputs(figure)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch()
    assert str(path) in pipeline.inputs(figure)


def test_steps_are_measured_or_published_and_missing_where_nothing_is_trained(project: Path) -> None:
    pipeline = Pipeline("tiny", ("one",))
    assert pipeline.steps == ["results/tiny/steps.csv"] and pipeline.steps[0] in pipeline.account_inputs([])
    never = Pipeline("tiny", ("one",), train="never")
    assert never.steps == []
    assert Pipeline("tiny", ("one",), on_gpu=True).steps == []  # steps of a CPU say nothing of runs on a GPU
    path = Path("results/published/tiny/steps.csv")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch()
    assert pipeline.steps == never.steps == [str(path)]


def test_measured_epochs_count_where_they_are_published(project: Path) -> None:
    never = Pipeline("tiny", ("tableA11",), train="never")
    path = Path("results/published/tiny/bench.csv")
    assert never.timings(never.artefacts) == []
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch()
    assert never.timings(never.artefacts) == [str(path)]
    Path("results/tiny").mkdir()
    Path("results/tiny/bench.csv").touch()  # its own ones come first
    assert never.timings(never.artefacts) == ["results/tiny/bench.csv"]


@pytest.mark.parametrize("train", ["missing", "never"])
def test_measured_epochs_of_the_papers_scales_are_inputs_of_the_claims_where_they_are_there(
    train: Literal["missing", "never"], project: Path
) -> None:
    """Nobody is asked to make them; those of a scale that is no paper's judge nothing elsewhere."""
    paper = {"settings": SMALL, "paper": True}
    for name, values in {"large": paper, "huge": paper, "small": {"settings": SMALL}}.items():
        (project / f"config/scales/{name}.yaml").write_text(yaml.safe_dump(values))

    def inputs(scale: str = "tiny") -> set[str]:
        found = Pipeline(scale, ("one",), train=train).claims_inputs()
        return {path for path in found if path.endswith("bench.repeats.csv")}

    def measure(folder: str) -> str:
        for name in ("bench.csv", "bench.repeats.csv"):
            Path(folder).mkdir(parents=True, exist_ok=True)
            Path(folder, name).touch()
        return f"{folder}/bench.repeats.csv"

    assert inputs() == set()
    measure("results/tiny")
    measure("results/small")
    assert inputs() == set()
    published = measure("results/published/large")
    assert inputs() == inputs("small") == {published}
    fresh = measure("results/large")
    assert inputs() == {fresh} and inputs("large") == set()  # there, they are among the workflow's own results
    another = measure("results/published/huge")
    assert inputs() == {fresh, another} and inputs("huge") == {fresh} and inputs("large") == {another}


def test_experiments_are_chosen_by_name() -> None:
    assert chosen("all") == tuple(experiment_names())
    assert chosen("table2,table1,table2") == chosen(["table2", "table1"]) == ("table2", "table1")
    with pytest.raises(SpfdeError, match='unknown experiment "tabel2"; did you mean "table2"'):
        chosen("tabel2")


@pytest.mark.parametrize("name", ["../smoke", "a b", "$(touch x)", "", ".hidden", "-scale"])
def test_a_name_that_is_none_is_unknown(name: str, project: Path) -> None:
    """Names become part of paths and commands."""
    (project / "config/scales" / f"{name.replace('/', '')}.yaml").touch()
    with pytest.raises(SpfdeError, match="unknown scale"):
        Pipeline(name, ("one",)).runs  # noqa: B018


def test_launching() -> None:
    assert launched("train", gpus_per_run=1) == ["python", "-m", "spfde", "train"]
    words = launched("train", ["0", "1"], 3, 2)
    slot, _, command = " ".join(words).partition(" -- ")
    assert slot == "python workflow/scripts/gpu_slot.py --gpus 0,1 --jobs-per-gpu 3 --count 2"
    assert command == "torchrun --standalone --nproc-per-node 2 -m spfde train"


def test_an_experiment_cannot_have_the_name_of_a_rule(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    texts = [path.read_text() for path in [ROOT / "Snakefile", *(ROOT / "workflow/rules").glob("*.smk")]]
    assert {name for text in texts for name in re.findall(r"^rule (\w+):", text, re.MULTILINE)} | {"all"} == RULES
    assert {artefact.rule.partition("_")[0] + "_" for artefact in ARTEFACTS.values()} | {"train_"} == set(MADE)
    assert chosen("all") == tuple(experiment_names())  # none of the project's own is refused
    monkeypatch.chdir(tmp_path)
    Path("config/experiments").mkdir(parents=True)
    for name in ("plan", "report", "train_table2_dense", "table_table2"):
        path = Path(f"config/experiments/{name}.yaml")
        path.write_text(yaml.safe_dump(TWO_ROWS))
        for wanted in ("all", name, ["table2", name]):
            with pytest.raises(SpfdeError, match=f'the experiment "{name}" has the name of a rule .*; rename {path}'):
                chosen(wanted)
        assert chosen("table2") == ("table2",)
        path.unlink()
