"""What a person sees of a run: a line per finished job, the last lines of a failed one, and nothing else."""

import importlib.util
import logging
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
SCRIPTS = ROOT / "workflow/scripts"
SNAKEFILE = """
rule all:
    input: "good.txt", "bad.txt"

rule good:
    output: "good.txt"
    log: "good.log"
    shell: "touch {output}"

rule bad_luck:
    output: "bad.txt"
    log: "bad.log"
    shell: "for n in $(seq 30); do echo line $n; done > {log}; printf 'run 1\\rrun 2\\r\\n' >> {log}; exit 3"
"""


def plugin() -> Any:
    spec = importlib.util.spec_from_file_location("plugin", SCRIPTS / "snakemake_logger_plugin_spfde/__init__.py")
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def said(tmp_path: Path) -> list[str]:
    (tmp_path / "Snakefile").write_text(SNAKEFILE)
    done = subprocess.run(
        [sys.executable, "-m", "snakemake", "--cores", "1", "--keep-going", "--logger", "spfde"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": f"{SCRIPTS}{os.pathsep}{ROOT}"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 1
    assert "rule good:" in next((tmp_path / ".snakemake/log").iterdir()).read_text()  # descriptions are kept
    return (done.stdout + done.stderr).splitlines()


def test_a_line_for_a_job_and_the_last_lines_of_a_failed_one(said: list[str]) -> None:
    assert "3 jobs" in said
    (finished,) = [line for line in said if "%" in line]
    assert finished.split()[:3] == ["33", "%", "good"]
    start = said.index("FAILED bad_luck: bad.log")
    assert said[start + 1 : start + 21] == [f"    line {number}" for number in range(12, 31)] + ["    run 2"]
    assert len(said) < 40 and not [line for line in said if "rule good:" in line or "jobid:" in line]


def test_the_forecast_goes_by_kinds_of_jobs() -> None:
    """Two trainings of 10 s at once took 10 s; two more and four tables of yet unknown length are left."""
    forecast = plugin().Forecast()
    assert forecast.seconds(0) is None
    forecast.plan({"train_a": 1, "train_b": 1, "train_c": 1, "train_d": 1, "table_a": 4})
    for number, rule in enumerate(("train_a", "train_b")):
        forecast.start(number, rule, now=100)
    assert [forecast.finish(number, now=110) for number in (0, 1)] == [("train_a", 10), ("train_b", 10)]
    assert forecast.seconds(elapsed=10) == pytest.approx((2 * 10 + 4 * 10) / 2)
    forecast.start(2, "table_a", now=110)
    forecast.finish(2, now=111)
    assert forecast.seconds(elapsed=11) == pytest.approx((2 * 10 + 3 * 1) / (21 / 11))


def test_warnings_are_passed_on_and_descriptions_are_not() -> None:
    module = plugin()
    handler = module.LogHandler(None, None)
    warning = logging.makeLogRecord({"msg": "a warning", "levelno": logging.WARNING})
    assert handler.line(warning, 0) == "a warning"
    assert handler.line(logging.makeLogRecord({"msg": "Select jobs to execute", "levelno": logging.INFO}), 0) is None
