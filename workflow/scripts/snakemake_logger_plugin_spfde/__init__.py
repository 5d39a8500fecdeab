"""What a person sees of a run: a line for each finished job, with percent and time left, and a failed job's last lines.

Snakemake finds it by its name in a folder of the Python path, as `make reproduce` asks for it:

    PYTHONPATH=workflow/scripts snakemake --logger spfde

Job descriptions, which Snakemake prints by the page, are in .snakemake/log, and what a job says is in its own log file.
"""

import logging
import sys
import time
from collections import Counter, deque
from pathlib import Path
from statistics import median
from typing import Any, TextIO

from snakemake_interface_logger_plugins.base import LogHandlerBase
from snakemake_interface_logger_plugins.common import LogEvent

LAST_LINES = 20  # of a failed job's log


class Forecast:
    """Predicts the time left from the jobs that have finished: jobs of a kind are taken to last equally long."""

    def __init__(self) -> None:
        self.left: Counter[str] = Counter()  # jobs of each kind that have not finished
        self.lasted: dict[str, list[float]] = {}  # seconds of those that have
        self.began: dict[int, tuple[str, float]] = {}  # running jobs: rule and time

    def plan(self, counts: dict[str, int]) -> None:
        """Takes the number of jobs of each rule."""
        for rule, count in counts.items():
            self.left[kind(rule)] += count

    def start(self, job: int, rule: str, now: float) -> None:
        self.began[job] = rule, now

    def finish(self, job: int, now: float) -> tuple[str, float]:
        """The job's rule and how many seconds it lasted."""
        rule, began = self.began.pop(job, ("", now))
        self.left[kind(rule)] -= 1
        self.lasted.setdefault(kind(rule), []).append(now - began)
        return rule, now - began

    def seconds(self, elapsed: float) -> float | None:
        """Seconds left if as many jobs run at once as so far; none before a job has finished."""
        finished = [second for seconds in self.lasted.values() for second in seconds]
        if not finished or elapsed <= 0:
            return None
        mean = {of: sum(seconds) / len(seconds) for of, seconds in self.lasted.items()}
        overall = median(mean.values())  # of kinds that have not been seen yet
        work = sum(count * mean.get(of, overall) for of, count in self.left.items() if count > 0)
        return work / max(1.0, sum(finished) / elapsed)


class LogHandler(LogHandlerBase):
    """Writes to the standard error, as Snakemake does."""

    writes_to_stream = True
    writes_to_file = False
    has_filter = True
    has_formatter = True
    needs_rulegraph = False

    def __post_init__(self) -> None:
        self.stream: TextIO = sys.stderr
        self.forecast = Forecast()
        self.begun: float | None = None

    def emit(self, record: logging.LogRecord) -> None:
        text = self.line(record, time.monotonic())
        if text:
            print(text, file=self.stream, flush=True)

    def line(self, record: logging.LogRecord, now: float) -> str | None:
        """What is printed of a record; none: nothing."""
        values: dict[str, Any] = vars(record)
        match values.get("event"):
            case LogEvent.RUN_INFO:
                counts = {rule: count for rule, count in values["stats"].items() if rule != "total"}
                self.forecast.plan(counts)
                return f"{sum(counts.values())} jobs"
            case LogEvent.JOB_INFO:
                self.begun = self.begun or now
                self.forecast.start(values["jobid"], values["rule_name"], now)
            case LogEvent.JOB_FINISHED:
                self.ended = self.forecast.finish(values["job_id"], now)
            case LogEvent.PROGRESS:
                return self._progress(values["done"], values["total"], now)
            case LogEvent.JOB_ERROR:
                return failed(values)
            case None | LogEvent.ERROR if record.levelno >= logging.WARNING:
                text = record.getMessage()
                return None if "CalledProcessError" in text else text  # a failed command, said above by its job
        return None

    def _progress(self, done: int, total: int, now: float) -> str:
        rule, lasted = self.ended
        left = self.forecast.seconds(now - (self.begun or now))
        rest = f"about {clock(left)} left" if left is not None and done < total else ""
        return f"{100 * done // total:3d} %  {rule:<44.44} {clock(lasted):>6}  {rest}".rstrip()


def failed(values: dict[str, Any]) -> str:
    """A failed job: its name, its log file, and the last lines of it."""
    lines = [f"FAILED {values['rule_name']}: {', '.join(values['log']) or 'it has no log'}"]
    for path in values["log"]:
        try:
            with Path(path).open(encoding="utf-8", errors="replace", newline="") as file:
                text = file.read()
        except OSError as error:
            text = f"cannot be read ({error.strerror})"
        # A progress bar writes over its line: what stands there last counts.
        rows = (row.rstrip("\r").rpartition("\r")[2] for row in text.split("\n"))
        lines += [f"    {row}" for row in deque((row for row in rows if row.strip()), LAST_LINES)]
    return "\n".join(lines)


def kind(rule: str) -> str:
    """Rules of a kind begin alike, e.g. train_table2_dense and train_gse_set-s90."""
    return rule.partition("_")[0]


def clock(seconds: float) -> str:
    """
    >>> clock(9.4), clock(75), clock(7260)
    ('9 s', '1:15', '2:01 h')
    """
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    return f"{whole // 60}:{whole % 60:02d}" if whole < 3600 else f"{whole // 3600}:{whole % 3600 // 60:02d} h"
