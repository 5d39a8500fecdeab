"""What one process of the workflow trains: the seeds of a row, several small rows, or a single run."""

import functools
from collections.abc import Iterable
from dataclasses import dataclass

from spfde.data.sources import is_streamed
from spfde.errors import SpfdeError
from spfde.settings import RunSettings

# Names of the workflow's rules, and how those begin that it makes of rows and artefacts: an experiment is a rule, too.
RULES = {"default", "data", "trained", "bench", "steps", "plan", "account", "analyse", "collect", "claims", "overview"}
RULES |= {"artefacts", "report", "all"}
MADE = ("train_", "table_", "figure_", "notebook_")
MEMORY = 4000  # megabytes of a job whose data lie in memory
# Of a job that decodes images while it trains, for each of its GPUs: cores that decode, and megabytes, of which sixteen
# batches on their way from the decoders to the GPU take most.
DECODING_CORES, DECODING_MEMORY = 8, 16_000


@dataclass(frozen=True, eq=False)
class Run:
    """A run with its id, which is a hash and is asked for thousands of times."""

    settings: RunSettings
    run_id: str
    row: str


@dataclass(frozen=True)
class Job:
    """
    Args:
        rows: its runs, by (experiment, row).
        priority: of several jobs that can start, the one with the highest priority does; 0 where the order is free.
    """

    rows: dict[tuple[str, str], list[Run]]
    priority: int = 0

    @property
    def name(self) -> str:
        """The first row, as experiment/row; with its seed where the row's seeds have jobs of their own."""
        experiment, row = next(iter(self.rows))
        return f"{experiment}/{row}-seed{self.settings.seed}" if self.priority else f"{experiment}/{row}"

    @property
    def rule(self) -> str:
        """The name of the rule that trains it."""
        return f"train_{self.name.replace('/', '_')}"

    @property
    def runs(self) -> list[Run]:
        return [run for runs in self.rows.values() for run in runs]

    @property
    def settings(self) -> RunSettings:
        """Those of its first run; data set and threads are those of all."""
        return self.runs[0].settings

    def cores(self, gpus: int) -> int:
        """Cores that it needs with so many GPUs for each run."""
        return max(1, gpus) * DECODING_CORES if self._decodes else self.settings.threads

    def megabytes(self, gpus: int) -> int:
        """Memory that it needs with so many GPUs for each run."""
        return max(1, gpus) * DECODING_MEMORY if self._decodes else MEMORY

    @functools.cached_property
    def _decodes(self) -> bool:
        return is_streamed(self.settings.data.name)

    @property
    def options(self) -> list[str]:
        """What `spfde train` is told of the rows and seeds."""
        experiments = dict.fromkeys(experiment for experiment, _ in self.rows)
        seeds = sorted({run.settings.seed for run in self.runs})
        words = [("--experiment", name) for name in experiments]
        words += [("--row", f"{experiment}/{row}") for experiment, row in self.rows]
        words += [("--seed", str(seed)) for seed in seeds]
        return [word for pair in words for word in pair]


def check_names(experiments: Iterable[str]) -> None:
    """Refuses experiments that have the name of another rule of the workflow.

    Raises:
        SpfdeError: it names the first.
    """
    for name in experiments:
        if name in RULES or name.startswith(MADE):
            cause = f'the experiment "{name}" has the name of a rule of the workflow, or of what it makes rules of'
            raise SpfdeError(cause, f"rename config/experiments/{name}.yaml")


def packed(rows: dict[tuple[str, str], list[Run]], most: int) -> list[Job]:
    """Jobs of at most so many runs, or of the runs of one row; rows share a job if seeds, data set and threads agree.

    Args:
        rows: the runs of each row, by (experiment, row).
        most: runs per job.
    """
    packs: dict[tuple[object, ...], list[dict[tuple[str, str], list[Run]]]] = {}
    for key, runs in rows.items():
        first = runs[0].settings
        alike = (first.data.name, first.threads, *(run.settings.seed for run in runs))
        open_packs = packs.setdefault(alike, [{}])
        if sum(map(len, open_packs[-1].values())) + len(runs) > most:
            open_packs.append({})
        open_packs[-1][key] = runs
    return [Job(pack) for open_packs in packs.values() for pack in open_packs if pack]
