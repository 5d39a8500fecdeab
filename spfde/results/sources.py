"""What claims are held against: rows, plans and records of any scale, each read once."""

import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd

from spfde.errors import SpfdeError
from spfde.experiments.files import read_scale, settings_of
from spfde.experiments.resolve import expand
from spfde.planning import Plan
from spfde.plans import describe, plan_settings
from spfde.results import load, reference
from spfde.results.claims import Claim
from spfde.results.collect import collect, record_folders
from spfde.settings import RunSettings


@dataclass
class Sources:
    """
    Args:
        scale: the scale that was run: its records decide what holds for every run.
        results: the folder of all results.
        others: folders of records of the same protocol that others made; a run of a row and seed that is in
            `results` too counts once, as ours.
    """

    scale: str
    results: Path
    others: Sequence[Path] = ()
    _rows: dict[tuple[str, str], dict[str, RunSettings]] = field(default_factory=dict, init=False)
    _runs: dict[tuple[str, str], pd.DataFrame] = field(default_factory=dict, init=False)
    _plans: dict[str, Plan] = field(default_factory=dict, init=False)
    _described: dict[str, dict[str, Any]] = field(default_factory=dict, init=False)

    def rows(self, scale: str, experiment: str) -> dict[str, RunSettings]:
        """The rows of an experiment at a scale, by name, each at its first seed."""
        if (scale, experiment) not in self._rows:
            self._rows[scale, experiment] = {run.row: run for run in reversed(expand(scale, experiment))}
        return self._rows[scale, experiment]

    def every_row(self, scale: str) -> dict[str, RunSettings]:
        """The rows of all experiments that a scale's tiers name, which hold no two rows of one name."""
        tiers = read_scale(scale).tiers
        experiments = dict.fromkeys(row.split("/")[0] for tier in tiers for row in tier.rows)
        found: dict[str, RunSettings] = {}
        for experiment in experiments:
            found |= self.rows(scale, experiment)
        return found

    def seeds(self, scale: str, row: str) -> set[int]:
        """The seeds that the tiers of a scale plan for a row."""
        return {seed for tier in read_scale(scale).tiers for seed in tier.seeds if _names(tier.rows, row)}

    def plan(self, claim: Claim, row: str) -> Plan:
        """The plan of a claim's row at the paper's scale.

        Raises:
            SpfdeError: the experiment has no such row.
        """
        return self.plan_of(self.row(claim, row))

    def row(self, claim: Claim, name: str) -> RunSettings:
        """The settings of a claim's row at the paper's scale.

        Raises:
            SpfdeError: the experiment has no such row.
        """
        known = self.rows(claim.scale, claim.experiment)
        if name not in known:
            cause = f"claim {claim.id} names the row {name}, which {claim.experiment} has not at scale {claim.scale}"
            raise SpfdeError(cause, "mend config/claims.yaml")
        return known[name]

    def plan_of(self, run: RunSettings) -> Plan:
        if run.run_id not in self._plans:
            self._plans[run.run_id] = plan_settings(run)
        return self._plans[run.run_id]

    def planned(self, claim: Claim, row: str, metric: str) -> float:
        """A value of a row's plan, dotted; NaN where it depends on the data."""
        return self._value(self.plan(claim, row), metric)

    def cost(self, run: RunSettings, runs: pd.DataFrame, metric: str) -> float:
        """What a row costs: the mean of its records, or else what its plan says; NaN where that depends on the mask."""
        known = runs[runs["row"] == run.row][metric].dropna() if metric in runs else pd.Series(dtype=float)
        return float(known.mean()) if len(known) else self._value(self.plan_of(run), metric)

    def runs(self, scale: str, experiment: str = "") -> pd.DataFrame:
        """The records of an experiment's rows at a scale, ours before others'; those of other settings are left out.

        Args:
            scale: its name.
            experiment: its name; without one, the rows of all tiers of the scale.
        """
        if (scale, experiment) not in self._runs:
            wanted = self.rows(scale, experiment) if experiment else self.every_row(scale)
            digests = {row: run.row_digest for row, run in wanted.items()}
            frames = [
                load(scale, self.results, digests),
                *(self._others(folder, scale, digests) for folder in self.others),
            ]
            merged = pd.concat([frame for frame in frames if len(frame)] or frames[:1], ignore_index=True)
            runs = _of_protocol(merged, read_scale(scale).protocol)
            self._runs[scale, experiment] = runs[runs["row"].isin(list(digests))]
        return self._runs[scale, experiment]

    def folders(self, scale: str) -> list[Path]:
        """The folders of a scale's finished records, ours before others'."""
        found = record_folders(scale, self.results, weights=False)
        return found + [record for folder in self.others for record in _records_in(folder, scale)]

    def has_records(self, scale: str) -> bool:
        return bool(self.folders(scale))

    def published(self, scale: str) -> pd.DataFrame:
        """The published values of a scale's data set and model."""
        settings, values = settings_of(scale), reference.read()
        return values[(values["dataset"] == settings.data.name) & (values["model"] == settings.model.name)]

    def _value(self, plan: Plan, metric: str) -> float:
        """A value of a plan by its dotted name, as `spfde plan` prints it, or of the breakdown of the peak memory."""
        name = plan.settings.run_id
        if name not in self._described:
            self._described[name] = describe(plan)
        first, *rest = metric.split(".")
        found: Any = plan.costs(plan.trace())[1] if rest[:1] == ["breakdown"] else self._described[name][first]
        for key in rest:
            found = found[key]
        return float("nan") if found is None else float(found)

    def _others(self, folder: Path, scale: str, digests: dict[str, str]) -> pd.DataFrame:
        frame = collect(_records_in(folder, scale), digests)
        of_row = frame["row"].map(digests)
        return frame[(frame["scale"] == scale) & of_row.notna()]


def _names(rows: Sequence[str], row: str) -> bool:
    return any(name.partition("/")[2] == row for name in rows)


def _records_in(folder: Path, scale: str) -> list[Path]:
    """The records below a folder: a folder of all results, or one of records."""
    if not folder.is_dir():
        raise SpfdeError(f"no folder {folder}", "name a folder of records, or a results folder that has some")
    alone = [summary.parent for summary in sorted(folder.glob("*/summary.json"))]
    return record_folders(scale, folder) + [record for record in alone if record.name.startswith(f"{scale}-")]


def _of_protocol(runs: pd.DataFrame, wanted: str | None) -> pd.DataFrame:
    """The runs made under a scale's protocol, where it has one; the others are named on stderr."""
    if wanted is None or runs.empty:
        return runs
    same = runs["protocol"] == wanted if "protocol" in runs else pd.Series(False, index=runs.index)
    if not same.all():
        left = runs.loc[~same, "run_id"]
        print(f"warning: {len(left)} records follow another protocol, e.g. {left.iloc[0]}; left out", file=sys.stderr)
    return runs[same]
