"""What a workflow has to do: the runs of each chosen experiment, where their records lie, and what each result needs.

The rules in workflow/ ask this module for their inputs and write them down; they compute nothing themselves. A dry run
asks for hundreds of runs, so of a record that is there only names and sizes are looked at, in its summary.
"""

import functools
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from spfde.configuration import config_file, config_files
from spfde.data import info
from spfde.errors import SpfdeError, nearest
from spfde.experiments.files import experiment_names, read_scale, scale_names, scale_of, settings_of
from spfde.experiments.resolve import expand
from spfde.results.analyses import analysed_runs, analysis_path
from spfde.results.artefacts import ARTEFACTS, FILES, FIRST_PAGE, FIRST_TABLE, Artefact
from spfde.results.dependencies import shown, source_file, source_files
from spfde.results.elsewhere import analyses_there, published_scales, records_there, results_there
from spfde.results.jobs import Job, Run, check_names, packed
from spfde.results.measured import EPOCHS, STEPS, measured_path, repeats_path
from spfde.results.status import ordered
from spfde.settings import RunSettings
from spfde.training.record import set_aside
from spfde.training.trust import is_whole

LARGEST = 64  # pixels: a step on larger images takes a CPU minutes
ANALYSES = ("similarity", "cka", "gradients")
# The modules that make what is no artefact: their files, and all that they import, are among its inputs.
PLANNER = ("spfde.plans", "spfde.experiments.resolve")
LEDGER = ("spfde.results.account",)
COLLECTOR = ("spfde.results.collect", "spfde.training.environment")
ANALYSIS = ("spfde.analysis",)
JUDGE = ("spfde.results.evidence", "spfde.results.verdicts")
OVERVIEW = ("spfde.results.overview",)


@dataclass(frozen=True)
class Pipeline:
    """
    Args:
        scale: name of a scale.
        experiments: those that are wanted.
        seeds: those that are trained; none: the scale's.
        train: `missing` trains every run without a record; `never` takes what is finished or published as it is.
        results: the folder of all results, in the working directory.
        on_gpu: whether runs train on GPUs, about whose seconds the steps of a CPU say nothing: none are measured.
    """

    scale: str
    experiments: tuple[str, ...]
    seeds: tuple[int, ...] | None = None
    train: Literal["missing", "never"] = "missing"
    results: Path = Path("results")
    on_gpu: bool = False

    # Places

    @property
    def home(self) -> Path:
        return self.results / self.scale

    @property
    def published(self) -> Path:
        return self.results / "published" / self.scale

    @property
    def costs(self) -> str:
        return str(self.home / "costs.csv")

    @property
    def bench(self) -> str:
        """The file of measured epochs; it may be published."""
        return str(measured_path(self.home, EPOCHS))

    @property
    def steps(self) -> list[str]:
        """The file of measured steps, where the scale's images are small enough for a CPU; it may be published."""
        path = measured_path(self.home, STEPS)
        small = info(settings_of(self.scale).data.name).size <= LARGEST
        made = self.train == "missing" and not self.on_gpu
        return [str(path)] if small and (made or path.is_file()) else []

    def plans(self, experiments: Iterable[str]) -> list[str]:
        return [str(self.home / "plans" / f"{experiment}.json") for experiment in experiments]

    def data(self, experiment: str) -> list[str]:
        """The file that says that the data of an experiment's runs are ready."""
        return sorted({self.ready(run.settings) for run in self.runs[experiment]})

    def ready(self, settings: RunSettings) -> str:
        return str(self.home / "data" / f"{settings.data.name}.ready")

    def outputs(self, artefact: Artefact) -> tuple[str, list[str]]:
        """The file that the report shows, and the others that are written with it."""
        kind = FILES[artefact.kind]
        stem = self.home / kind.folder / artefact.name
        return f"{stem}{kind.shown}", [f"{stem}{suffix}" for suffix in kind.others]

    # Runs and their records

    @functools.cached_property
    def runs(self) -> dict[str, list[Run]]:
        """The runs of each experiment; none where it belongs to another scale."""
        wanted = {name: expand(self.scale, name, self.seeds) for name in self.experiments}
        return {name: [Run(one, one.run_id, one.row) for one in runs] for name, runs in wanted.items()}

    def record(self, run: Run) -> str:
        """The file that says a run is done: the fresh record's, or else a published one's.

        A published record has no snapshots, so it does not count where they have to be analysed.
        """
        if run not in self._records:
            fresh, published = (parent / run.run_id for parent in (self.home / "runs", self.published))
            counts = run.run_id not in self._need_snapshots and is_whole(published) and not is_whole(fresh)
            self._records[run] = str((published if counts else fresh) / "summary.json")
        return self._records[run]

    @functools.cached_property
    def _records(self) -> dict[Run, str]:
        return {}

    def set_damaged_aside(self) -> None:
        """Takes the summary.json of damaged records away, so that their runs count as missing and are trained again.

        A workflow engine would take the file for the result, since it is there.
        """
        for run in {run.run_id: run for runs in self.runs.values() for run in runs}.values():
            set_aside(self.home / "runs" / run.run_id)

    def records(self, *experiments: str) -> list[str]:
        """The records that these experiments need; where nothing may be trained, those that are there."""
        found = dict.fromkeys(self.record(run) for name in experiments for run in self.runs[name])
        return [path for path in found if self.train == "missing" or is_whole(Path(path).parent)]

    @functools.cached_property
    def jobs(self) -> list[Job]:
        """What has to be trained, finished or not, packed into processes.

        Rows of the same seeds share a process up to the scale's `runs_per_job`. Where the scale has tiers, each run has
        a process of its own, and those of the first tier come first, seed by seed. A run that several experiments share
        belongs to the largest one, which has its other seeds too.
        """
        if self.train == "never":
            return []
        at, rows = read_scale(self.scale), self._rows()
        if at.tiers:
            order = {run.run_id: place for place, (_, _, run) in enumerate(ordered(self.scale, self.experiments))}
            last = len(order)  # runs of other seeds than the tiers', e.g. of a pilot
            jobs = [
                Job({key: [run]}, 1 + last - order.get(run.run_id, last)) for key, runs in rows.items() for run in runs
            ]
            return sorted(jobs, key=lambda job: -job.priority)
        return packed(rows, at.runs_per_job)

    def _rows(self) -> dict[tuple[str, str], list[Run]]:
        rows: dict[tuple[str, str], list[Run]] = {}
        seen: set[str] = set()
        for experiment, runs in sorted(self.runs.items(), key=lambda item: len(item[1]), reverse=True):
            for run in runs:
                if run.run_id not in seen and not Path(self.record(run)).is_relative_to(self.published):
                    rows.setdefault((experiment, run.row), []).append(run)
                seen.add(run.run_id)
        return rows

    # Artefacts

    @functools.cached_property
    def artefacts(self) -> list[Artefact]:
        """Those all of whose experiments were chosen."""
        return [entry for entry in ARTEFACTS.values() if {*entry.experiments} <= {*self.experiments}]

    def shown(self, *experiments: str) -> list[str]:
        """The tables and figures of these experiments."""
        wanted = [entry for entry in self.artefacts if entry.kind != "notebook" and entry.experiment in experiments]
        return [self.outputs(entry)[0] for entry in wanted]

    def inputs(self, artefact: Artefact) -> list[str]:
        """All that an artefact is made of: records, costs, plans, analyses, timings, settings and source files."""
        parts = [artefact, *(ARTEFACTS[name] for name in artefact.shows)]
        files = [
            *self.records(*artefact.experiments),
            self.costs,
            *self.plans(artefact.experiments),
            *(path for part in parts for path in self.analyses(part)),
            *self.timings(parts),
            *(
                str(path)
                for part in parts
                for name in part.by_hand
                if (path := measured_path(self.home, name)).is_file()
            ),
            *self._settings(artefact.experiments, [scale for part in parts for scale in part.scales]),
            shown(config_file("reference.csv")),
            *(path for part in parts if part.claims for path in self._protocol()),
            *(path for part in parts if part.published for path in self._published_results()),
            *source_files(*(f"spfde.results.{FILES[part.kind].folder}" for part in parts if part.kind != "notebook")),
            *source_files(*(part.module for part in parts)),
        ]
        if artefact.kind == "notebook":
            own = [str(self.home / "runs.csv"), str(self.home / "claims.json"), f"notebooks/{artefact.name}.ipynb"]
            files += [*own, *source_files("spfde.results.show")]
        return list(dict.fromkeys(files))

    def analyses(self, artefact: Artefact) -> list[str]:
        """The analyses that an artefact reads: made where one is missing, unless one of all its runs is published."""
        paths = [self._analysis(name) for name in artefact.analyses]
        return [path for path in paths if self.train == "missing" or Path(path).is_file()]

    def timings(self, artefacts: Sequence[Artefact]) -> list[str]:
        """The benchmark's file, where an artefact shows measured times."""
        wanted = any(artefact.timings for artefact in artefacts)
        return [self.bench] if wanted and (self.train == "missing" or Path(self.bench).is_file()) else []

    def timings_elsewhere(self) -> list[str]:
        """The benchmarks of the papers' other scales that are there: claims are judged by them before this scale's.

        None is made for it.
        """
        paths = {name: repeats_path(self.results / name) for name in scale_names() if name != self.scale}
        return [str(path) for name, path in paths.items() if path.is_file() and read_scale(name).paper]

    # What is no artefact

    def plan_inputs(self) -> list[str]:
        """Settings, and all code that a plan follows from."""
        chooses = source_file("spfde.cli.plan")  # which rows; the budgets that it plans as well have no part in it
        return [*self._settings(self.experiments), chooses, *source_files(*PLANNER)]

    def account_inputs(self, targets: Iterable[str]) -> list[str]:
        """The chosen experiments' records, where all are there or all will be made; else those that were asked for.

        Args:
            targets: what the call asks for, files or experiments. `snakemake table2` shall not train everything.
        """
        everything = self.records(*self.experiments)
        if not all(Path(path).is_file() for path in everything):
            everything = self.records(*self._asked(targets))
        return [*everything, *self._unchosen, *self.steps, *source_files(*LEDGER)]

    def collect_inputs(self) -> list[str]:
        return [*self.records(*self.experiments), *self._unchosen, self.costs, *source_files(*COLLECTOR)]

    def claims_inputs(self) -> list[str]:
        """Records, timings and analyses; and all settings, because costs are those of the papers' scales.

        Accuracies and analyses are those of the papers' scales and of the reduced ones too, and timings those of the
        papers' scales: what is there of them, whichever scale runs.
        """
        analyses = [path for entry in self.artefacts for path in self.analyses(entry)]
        timings = [*self.timings_elsewhere(), *self.timings(self.artefacts)]
        files = [*self.records(*self.experiments), *self._unchosen, self.costs, *timings, *analyses]
        names = sorted({name for entry in ARTEFACTS.values() for name in entry.analyses})
        for scale in scale_names():
            if scale != self.scale:
                files += [*results_there(scale, self.results), *analyses_there(names, scale, self.results)]
        files += map(shown, [config_file("reference.csv"), *config_files()])
        return list(dict.fromkeys([*files, *source_files(*JUDGE)]))

    def overview_inputs(self) -> list[str]:
        """The first page shows the headline of Table 2, its figures and the verdicts."""
        home = [str(self.home / name) for name in ("runs.csv", "claims.json")]
        first = [f"figure_{name}" for name in FIRST_PAGE]
        figures = [self.outputs(entry)[0] for entry in self.artefacts if entry.rule in first]
        settings = [*self._settings([FIRST_TABLE]), shown(config_file("reference.csv"))]
        return [*home, *self.plans(self.experiments), *figures, *settings, *source_files(*OVERVIEW)]

    def analyse_inputs(self, experiment: str) -> list[str]:
        chooses = source_file("spfde.cli.analyse")  # which runs, and which columns; not how costs are accounted
        return [*self.records(experiment), chooses, *source_files(*ANALYSIS)]

    def analysable(self) -> list[str]:
        """The experiments whose snapshots are all here or will be: published records have none."""

        def kept(run: Run) -> bool:
            return not Path(self.record(run)).is_relative_to(self.published)

        if self.train == "never":
            return []
        return [
            name
            for name, runs in self.runs.items()
            if all(kept(run) for run in runs if run.settings.training.snapshots)
        ]

    # Details

    def _settings(self, experiments: Iterable[str], scales: Iterable[str] = ()) -> list[str]:
        """The files of config/ from which these experiments' runs and plans follow."""
        names = list(experiments)
        scales = sorted({scale_of(name, self.scale) for name in names} | {self.scale, *scales})
        files = [config_file("scales", f"{name}.yaml") for name in scales]
        files += [config_file("experiments", f"{name}.yaml") for name in names]
        return [shown(path) for path in [*files, *config_files("data")]]

    @functools.cached_property
    def _unchosen(self) -> list[str]:
        """The scale's records that are there and belong to no chosen run: what reads a scale's records reads them too.

        Of chosen runs, `records` tells which record counts, so that the inputs are the same once it has been made.
        """
        chosen = {run.run_id for runs in self.runs.values() for run in runs}
        return [path for path in records_there(self.scale, self.results) if Path(path).parent.name not in chosen]

    def _published_results(self) -> list[str]:
        """What is there of the other scales that have published records."""
        others = [scale for scale in published_scales(self.results) if scale != self.scale]
        return [path for scale in others for path in results_there(scale, self.results)] + self._unchosen

    def _protocol(self) -> list[str]:
        """The files of config/ that the protocol of a reduced scale follows from: claims, and all rows of its tiers."""
        rows = [row for tier in read_scale(self.scale).tiers for row in tier.rows]
        experiments = dict.fromkeys(row.split("/")[0] for row in rows)
        return [shown(config_file("claims.yaml")), *self._settings(experiments)]

    @functools.cached_property
    def _to_analyse(self) -> set[str]:
        """The experiments whose snapshots have to be analysed: not all of their analyses are published, of all runs."""
        shown_here = {name.split(".")[0] for entry in self.artefacts for name in entry.analyses}
        return {experiment for experiment in shown_here if not self._published_whole(experiment)}

    @functools.cached_property
    def _need_snapshots(self) -> set[str]:
        if self.train == "never":
            return set()
        return {run_id for experiment in self._to_analyse for run_id in self._with_snapshots(experiment)}

    def _with_snapshots(self, experiment: str) -> Iterator[str]:
        return (run.run_id for run in self.runs[experiment] if run.settings.training.snapshots)

    def _published_whole(self, experiment: str) -> bool:
        """Whether the analyses of an experiment are published, all of them and of all its runs.

        A run is in one of them at least and need not be in each: a dense run has no structure to analyse.
        """
        names = {name for entry in self.artefacts for name in entry.analyses if name.split(".")[0] == experiment}
        paths = [self.published / "analysis" / f"{name}.csv" for name in names]
        if not all(path.is_file() for path in paths):
            return False
        return set(self._with_snapshots(experiment)) <= set().union(*map(analysed_runs, paths))

    def _analysis(self, name: str) -> str:
        if self.train == "missing" and name.split(".")[0] in self._to_analyse:
            return str(self.home / "analysis" / f"{name}.csv")
        return str(analysis_path(name, self.scale, self.results))

    def _asked(self, targets: Iterable[str]) -> list[str]:
        """The experiments that targets name, themselves or by an artefact; all where a target needs all."""
        asked = set()
        for target in targets:
            stem = str(Path(target).with_suffix(""))
            named = {name for name in self.experiments if stem in self._stems(name)}
            if not named:
                return list(self.experiments)
            asked |= named
        return [name for name in self.experiments if name in asked] or list(self.experiments)

    def _stems(self, experiment: str) -> set[str]:
        """What an experiment's targets are called, without suffix."""
        return {str(Path(path).with_suffix("")) for path in [experiment, *self.shown(experiment)]}


def chosen(wanted: str | list[str]) -> tuple[str, ...]:
    """The experiments of a configuration value: `all`, one name, several separated by commas, or a list.

    Raises:
        SpfdeError: there is no such experiment (naming the nearest), or it has a name that the workflow uses itself.
    """
    known = experiment_names()
    check_names(known if wanted == "all" else listed(wanted))
    if wanted == "all":
        return tuple(known)
    for name in listed(wanted):
        if name not in known:
            raise SpfdeError(f'unknown experiment "{name}"', nearest(name, known))
    return tuple(dict.fromkeys(listed(wanted)))


def listed(value: object) -> list[str]:
    """A configuration value that is one thing, several separated by commas, or a list."""
    return [str(one) for one in (value if isinstance(value, list) else str(value).split(","))]
