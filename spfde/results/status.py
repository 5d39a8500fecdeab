"""What a scale's runs are, and how far they have come: done, diverged, begun, missing, in the order of training."""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import fmean
from typing import Any

from spfde.errors import SpfdeError, nearest
from spfde.experiments.files import experiment_names, read_scale, scale_of
from spfde.experiments.resolve import expand
from spfde.files import read_json
from spfde.plans import describe, plan_settings
from spfde.results.seconds import device_kind
from spfde.settings import RunSettings
from spfde.training.device import choose
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


def status(scale: str, results: Path, experiments: Iterable[str] = (), kind: str | None = None) -> list[RunStatus]:
    """How far each run of a scale has come, in the order of training.

    The seconds of a run that is not done are predicted from runs that were made on the same kind of device: by those of
    its own row if one has finished; else by finished ones of its network, sparsity and method, or of its network and
    sparsity; else by those of its network. Where the rows differ, CPU seconds are taken to be in proportion to the
    FLOPs of the `full` column: a FLOP takes longer at a higher sparsity.

    Args:
        scale: its name.
        results: the folder of all results.
        experiments: those that are looked at; all if none is named.
        kind: of the device that the other runs are to be trained on, "cpu" or "cuda"; that which training takes here
            unless given.
    """
    found = [_look_up(results, scale, *one) for one in ordered(scale, experiments)]
    measured = _Measured()
    at = kind or choose(None).type
    for one, summary in found:
        if one.seconds and device_kind(summary) == at:
            measured.add(one.run, one.state == "done", one.seconds, summary.get("flops", {}).get("full"))
    return [one if one.seconds is not None else replace(one, seconds=measured.predicted(one.run)) for one, _ in found]


class _Measured:
    """The CPU seconds of runs, by what other runs have in common with them."""

    def __init__(self) -> None:
        self._of_row: dict[str, list[float]] = {}  # seconds
        self._pace: dict[tuple[Any, ...], list[float]] = {}  # seconds per FLOP
        self._planned: dict[str, float] = {}  # FLOPs

    def add(self, run: RunSettings, finished: bool, seconds: float, flops: float | None) -> None:
        """One that has not finished, because it diverged, tells the pace of its network alone."""
        common = self._in_common(run)
        if finished:
            self._of_row.setdefault(run.row_digest, []).append(seconds)
        if flops:
            for shared in common if finished else common[-1:]:
                self._pace.setdefault(shared, []).append(seconds / flops)

    def predicted(self, run: RunSettings) -> float | None:
        """Of the runs that are most like this one; none where nothing tells."""
        if row := self._of_row.get(run.row_digest):
            return fmean(row)
        pace = next((self._pace[shared] for shared in self._in_common(run) if shared in self._pace), None)
        if pace is None:
            return None
        if run.row_digest not in self._planned:
            self._planned[run.row_digest] = float(describe(plan_settings(run))["flops"]["full"] or 0.0)
        return self._planned[run.row_digest] * fmean(pace) or None

    @staticmethod
    def _in_common(run: RunSettings) -> list[tuple[Any, ...]]:
        """What runs that are alike share, the most first: network, sparsity and method."""
        shared = run.model.name, run.model.width, run.sparsity.target, run.sparsity.method
        return [shared, shared[:3], shared[:2]]


def _look_up(results: Path, scale: str, tier: str, row: str, run: RunSettings) -> tuple[RunStatus, dict[str, Any]]:
    """A run's status, and the summary of its record."""
    for folder in (results / scale / "runs", results / "published" / scale):
        record = folder / run.run_id
        if is_whole(record):
            summary = read_json(record / SUMMARY, "record", "train that run again")
            times, state = summary.get("time", {}), "diverged" if summary.get("status") == "diverged" else "done"
            seconds = times.get("cpu") or times.get("total")
            return RunStatus(tier, row, run, state, seconds), summary
    begun = (results / scale / "runs" / ".checkpoints" / f"{run.run_id}.safetensors").is_file()
    return RunStatus(tier, row, run, "begun" if begun else "missing"), {}


def _check_tiers(scale: str, known: dict[str, dict[int, RunSettings]], experiments: set[str]) -> None:
    for tier in read_scale(scale).tiers:
        for row in tier.rows:
            if row.split("/")[0] in experiments and row not in known:
                raise SpfdeError(f'tier {tier.name} of scale {scale} names an unknown row "{row}"', nearest(row, known))
