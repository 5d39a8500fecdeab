"""What Snakemake would do, asked in dry runs on a copy of the project in which nothing was made yet."""

import os
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml

from spfde.experiments.files import experiment_names
from spfde.experiments.resolve import expand
from spfde.results.artefacts import FIGURES, TABLES
from tests.whole import make_whole

ROOT = Path(__file__).parents[2]


class Project:
    """The workflow in a folder of its own, with nothing made yet."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        without = shutil.ignore_patterns("__pycache__")
        for name in ("config", "notebooks", "profiles", "spfde", "workflow"):
            shutil.copytree(ROOT / name, folder / name, ignore=without)
        config = folder / "config/config.yaml"
        config.write_text(config.read_text().replace("scale: digits", "scale: smoke"))
        for name in ("Snakefile", "environment.yml"):
            shutil.copy(ROOT / name, folder)

    def snakemake(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "snakemake", *arguments],
            cwd=self.folder,
            env={**os.environ, "PYTHONPATH": str(self.folder)},
            capture_output=True,
            text=True,
        )

    def dry_run(self, *arguments: str) -> str:
        """What a dry run prints."""
        done = self.snakemake("--dry-run", "--printshellcmds", *arguments)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout + done.stderr

    def jobs(self, *arguments: str) -> list[str]:
        """The rules that would run, once for each job."""
        text = self.dry_run(*arguments)
        return re.findall(r"^(?:local)?rule (\S+):$", text, re.MULTILINE)

    def pretend(self) -> None:
        """Writes an empty file for everything that the workflow would make, all of the same time."""
        now = time.time()
        for line in self.snakemake("--summary").stdout.splitlines()[1:]:
            path = self.folder / line.split("\t")[0]
            path.parent.mkdir(parents=True, exist_ok=True)
            path.touch()
            if path.name == "summary.json":
                make_whole(path)
            os.utime(path, (now, now))


@pytest.fixture
def project(tmp_path: Path) -> Project:
    return Project(tmp_path)


def test_bare_snakemake_makes_everything(project: Project) -> None:
    text = project.dry_run()
    made = re.findall(r"results/smoke/runs/([^/\s,]+)/summary\.json", "\n".join(re.findall(r"output: (.*)", text)))
    wanted = {run.run_id for name in experiment_names() for run in expand("smoke", name)}
    assert sorted(made) == sorted(wanted)  # each run once, whatever experiments share it
    assert len(made) >= 50
    assert "output: results/smoke/report.html" in text
    for suffix in ("md", "csv", "tex", "html"):
        assert f"results/smoke/tables/table2.{suffix}" in text
    for figure in ("tradeoff", "figure4", "timeline"):
        assert f"results/smoke/figures/{figure}.png" in text
        assert f"results/smoke/figures/{figure}.svg" in text


def test_every_artefact_is_a_target(project: Project) -> None:
    """By the name of its experiment; what belongs to the paper are these tables and figures."""
    targets = experiment_names()
    assert {"table1", "table2", "table3", *(f"tableA{number}" for number in range(8, 13))} <= set(TABLES)
    assert {"appendix_b", "appendix_c", "appendix_d", "mest", "swat", "gse", "around", "deviations"} <= set(TABLES)
    assert {"figure1", "figure3", "figure4", "appendix_b", "tradeoff", "timeline"} <= set(FIGURES)
    text = project.dry_run(*targets, "claims")
    for name in TABLES:
        assert f"results/smoke/tables/{name}.html" in text
    for name in FIGURES:
        assert f"results/smoke/figures/{name}.svg" in text
    assert "results/smoke/claims.json" in text
    (plans,) = re.findall(r"python -m spfde plans .*", text)
    assert set(targets) <= set(plans.split()) and "config/scales/imagenet.yaml" in text  # which table3 is of


def test_command_line_overrides_config(project: Project) -> None:
    text = project.dry_run(
        "table2", "--config", "scale=cifar100", "experiments=table2", "seeds=1,4", "data_root=/some data"
    )
    (command,) = re.findall(r"python -m spfde train .*--row table2/dense .*", text)
    assert "--scale cifar100 --experiment table2 --row table2/dense --seed 1 --seed 4" in command
    assert "--data-root '/some data'" in command
    assert "python -m spfde data cifar100 --data-root '/some data'" in text
    assert "results/smoke" not in text


def test_a_job_that_decodes_asks_for_cores_and_memory_by_its_gpus(project: Project) -> None:
    config = ["scale=imagenet", "experiments=table3", "gpus_per_run=2", "seeds=1"]
    text = project.dry_run("trained", "--cores", "64", "--config", *config)
    jobs = re.findall(r"^rule train_table3.*?(?=\n\n)", text, re.MULTILINE | re.DOTALL)
    assert jobs and all("threads: 16\n" in job and "mem_mb=32000" in job for job in jobs)


def test_what_is_timed_on_a_cpu_has_all_cores(project: Project) -> None:
    """Beside training it would time what training leaves; on a GPU it has the GPU to itself."""
    for gpus, threads in ((0, ["7"]), (1, [])):
        config = ["--config", f"gpus_per_run={gpus}"]
        text = project.dry_run("results/smoke/bench.csv", "--cores", "7", *config)
        (job,) = re.findall(r"^rule bench.*?(?=\n\n)", text, re.MULTILINE | re.DOTALL)
        assert re.findall(r"threads: (\d+)", job) == threads


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("scale=smok", 'unknown scale "smok"; did you mean "smoke"?'),
        ("experiments=tabel2", 'unknown experiment "tabel2"; did you mean "table2"?'),
        ("seed=1", "seed"),
    ],
)
def test_an_unknown_name_is_said(project: Project, setting: str, message: str) -> None:
    done = project.snakemake("--dry-run", "--config", setting)
    assert done.returncode != 0
    assert message in done.stdout + done.stderr
    assert "Traceback" not in done.stdout + done.stderr


def test_what_is_edited_is_rendered_alone(project: Project) -> None:
    """A caption, which stands in the report, and a figure, which a notebook shows too."""
    project.pretend()
    later = time.time() + 10
    os.utime(project.folder / "workflow/report/figure4.rst", (later, later))
    assert sorted(project.jobs()) == ["default", "report"]
    source = project.folder / "spfde/results/figures/figure4.py"
    source.write_text(source.read_text() + "\n# edited\n")
    os.utime(source, (later, later))
    assert sorted(project.jobs()) == ["default", "figure_figure4", "notebook_cost", "report"]


def test_only_what_is_missing_is_trained(project: Project) -> None:
    """A lost record is made again; a published one counts, and so does a row that another experiment trains."""
    scale = project.folder / "config/scales/smoke.yaml"
    values = yaml.safe_load(scale.read_text())
    values |= {"seeds": [1, 2], "runs_per_job": 1}  # each row in a job of its own
    scale.write_text(yaml.safe_dump(values))
    project.pretend()
    runs = expand("smoke", "table2")
    lost, published = (next(run for run in runs if run.row == row) for row in ("dense", "set-s90"))
    (project.folder / f"results/smoke/runs/{lost.run_id}/summary.json").unlink()
    home = project.folder / "results/published/smoke"
    home.mkdir(parents=True)
    shutil.move(project.folder / f"results/smoke/runs/{published.run_id}", home / published.run_id)
    twin = {"rows": [{"method": "dense"}, {"method": "set", "sparsities": [0.8]}]}
    (project.folder / "config/experiments/twin.yaml").write_text(yaml.safe_dump(twin))
    values["experiments"]["twin"] = {"settings": values["experiments"]["table2"]["settings"]}
    scale.write_text(yaml.safe_dump(values))

    trained = [job for job in project.jobs("table2", "twin") if job.startswith("train_")]
    assert sorted(trained) == ["train_table2_dense", "train_twin_set-s80"]

    kept = next(run for run in runs if run.row == "rigl-s90")
    (project.folder / f"results/smoke/runs/{kept.run_id}/epochs.csv").write_text("damaged")
    trained = [job for job in project.jobs("table2", "twin") if job.startswith("train_")]
    assert sorted(trained) == ["train_table2_dense", "train_table2_rigl-s90", "train_twin_set-s80"]


def test_published_records_with_snapshots_count_where_their_analyses_are_published(project: Project) -> None:
    """They have no snapshots to analyse: without analyses the runs are trained again, with them nothing is."""
    figures = ("figure1", "figure3")
    home, chosen = project.folder / "results/published/smoke", ("--config", f"experiments={','.join(figures)}")
    runs = {run.run_id: run for name in figures for run in expand("smoke", name)}
    kept = {name: [run for run in expand("smoke", name) if run.training.snapshots] for name in figures}
    again = {run.run_id for runs in kept.values() for run in runs}
    assert 0 < len(again) < len(runs)
    for run_id in runs:
        make_whole(home / run_id / "summary.json")

    text = project.dry_run(*figures, *chosen)
    assert set(re.findall(r"results/smoke/runs/([^/\s,]+)/summary\.json", text)) == again
    assert len(re.findall("^rule analyse:$", text, re.MULTILINE)) == 3

    (home / "analysis").mkdir()
    sparse = [run for run in kept["figure1"] if run.sparsity.target]  # a dense run has no structure to analyse
    fresh = project.folder / "results/smoke/analysis"
    fresh.mkdir(parents=True)
    for name, analysed in {"1.cka": kept["figure1"], "1.similarity": sparse, "3.gradients": kept["figure3"]}.items():
        lines = "\n".join(["run_id", *(run.run_id for run in analysed)])
        (home / f"analysis/figure{name}.csv").write_text(lines)
    (fresh / "figure1.cka.csv").write_text(lines)  # of one of its runs
    (fresh / "figure3.gradients.csv").write_text(lines)  # as published, and its snapshots are gone
    text = project.dry_run(*figures, *chosen)
    assert not re.findall(r"^rule (?:train_\S+|analyse):$", text, re.MULTILINE)
    assert "published/smoke/analysis/figure1.cka.csv" in text
    assert "published/smoke/analysis/figure1.similarity.csv" in text
    assert "results/smoke/analysis/figure3.gradients.csv" in text


def test_a_corrected_ledger_accounts_again_and_trains_nothing(project: Project) -> None:
    project.pretend()
    source = project.folder / "spfde/cost/flops.py"
    source.write_text(source.read_text() + "\n# corrected\n")
    later = time.time() + 10
    os.utime(source, (later, later))
    jobs = project.jobs()
    assert {"account", "plan", "collect", "claims", "overview", "table_table2", "figure_tradeoff"} <= set(jobs)
    assert jobs.count("account") == 1
    assert not [job for job in jobs if job.startswith(("train_", "data", "bench", "analyse"))]


@pytest.mark.parametrize("target", ["table2", "results/smoke/tables/table2.csv"])
def test_one_artefact_waits_for_its_own_runs_alone(project: Project, target: str) -> None:
    """Accounting for all experiments would train them all."""
    scale = project.folder / "config/scales/smoke.yaml"
    scale.write_text(re.sub("runs_per_job: .*", "runs_per_job: 1", scale.read_text()))
    text = project.dry_run(target)
    made = re.findall(r"results/smoke/runs/([^/\s,]+)/summary\.json", "\n".join(re.findall(r"output: (.*)", text)))
    assert sorted(made) == sorted(run.run_id for run in expand("smoke", "table2"))
    assert "rule account:" in text
