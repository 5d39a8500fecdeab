"""What a scale's runs are, and how far they have come: done, diverged, begun, missing, in the order of training."""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from spfde.errors import SpfdeError, nearest
from spfde.experiments.files import experiment_names, read_scale, scale_of
from spfde.experiments.resolve import expand
from spfde.files import read_json
from spfde.planning import describe, plan_settings
from spfde.settings import RunSettings
from spfde.training.trust import SUMMARY, is_whole

STATES = ("done", "diverged", "begun", "missing")


@dataclass(frozen=True)
class RunStatus:
    """A run of a scale.

    Attributes:
        tier: the tier it belongs to; empty where the scale has none.
        row: experiment/row.
        run: its settings.
        state: done, diverged, begun (there is a checkpoint) or missing, which a damaged record is too.
        seconds: CPU seconds that it took; predicted where it is not done; none where nothing tells.
    """

    tier: str
    row: str
    run: RunSettings
    state: str
    seconds: float | None = None

    def as_json(self) -> dict[str, Any]:
        named = {"tier": self.tier, "row": self.row, "seed": self.run.seed, "run_id": self.run.run_id}
        return {**named, "state": self.state, "seconds": self.seconds}


def ordered(scale: str, experiments: Iterable[str] = ()) -> list[tuple[str, str, RunSettings]]:
    """The runs of a scale in the order of training, each once: tier, experiment/row, settings.

    With tiers: tier by tier, seed by seed over all rows of a tier, so that every stop leaves a balanced table. Without:
    experiment by experiment, row by row.

    Raises:
        SpfdeError: a tier names a row that its experiment does not have.
    """
    at, chosen = read_scale(scale), list(experiments) or experiment_names()
    known: dict[str, dict[int, RunSettings]] = {}
    for experiment in chosen:
        if scale_of(experiment, scale) == scale:
            for run in expand(scale, experiment):
                known.setdefault(f"{experiment}/{run.row}", {})[run.seed] = run
    if not at.tiers:
        wanted = [("", row, run) for row, runs in known.items() for run in runs.values()]
    else:
        _check_tiers(scale, known, set(chosen))
        wanted = [
            (tier.name, row, known[row][seed])
            for tier in at.tiers
            for seed in tier.seeds
            for row in tier.rows
            if row in known
        ]
    first: dict[str, tuple[str, str, RunSettings]] = {}
    for one in wanted:
        first.setdefault(one[2].run_id, one)
    return list(first.values())


def status(scale: str, results: Path, experiments: Iterable[str] = ()) -> list[RunStatus]:
    """How far each run of a scale has come, in the order of training.

    The seconds of a run that is not done are predicted from those that are: among runs of one network, CPU seconds are
    taken to be in proportion to the FLOPs of the `full` column.
    """
    found = [_look_up(results, scale, *one) for one in ordered(scale, experiments)]
    pace: dict[str, list[float]] = {}
    for one, flops in found:
        if one.seconds and flops:
            pace.setdefault(_network(one.run), []).append(one.seconds / flops)
    planned: dict[str, float] = {}
    statuses = []
    for one, _ in found:
        if one.seconds is None and (measured := pace.get(_network(one.run))):
            if one.run.row_digest not in planned:
                planned[one.run.row_digest] = float(describe(plan_settings(one.run))["flops"]["full"] or 0.0)
            predicted = planned[one.run.row_digest] * sum(measured) / len(measured)
            one = RunStatus(one.tier, one.row, one.run, one.state, predicted or None)
        statuses.append(one)
    return statuses


def _network(run: RunSettings) -> str:
    return f"{run.model.name} x {run.model.width:g}"


def _look_up(results: Path, scale: str, tier: str, row: str, run: RunSettings) -> tuple[RunStatus, float | None]:
    """A run's status, and the FLOPs of its record."""
    for folder in (results / scale / "runs", results / "published" / scale):
        record = folder / run.run_id
        if is_whole(record):
            summary = read_json(record / SUMMARY, "record", "train that run again")
            times, state = summary.get("time", {}), "diverged" if summary.get("status") == "diverged" else "done"
            seconds = times.get("cpu") or times.get("total")
            return RunStatus(tier, row, run, state, seconds), summary.get("flops", {}).get("full")
    begun = (results / scale / "runs" / ".checkpoints" / f"{run.run_id}.safetensors").is_file()
    return RunStatus(tier, row, run, "begun" if begun else "missing"), None


def _check_tiers(scale: str, known: dict[str, dict[int, RunSettings]], experiments: set[str]) -> None:
    for tier in read_scale(scale).tiers:
        for row in tier.rows:
            if row.split("/")[0] in experiments and row not in known:
                raise SpfdeError(f'tier {tier.name} of scale {scale} names an unknown row "{row}"', nearest(row, known))
