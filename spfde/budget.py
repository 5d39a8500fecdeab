"""Which combinations of sparsity, freezing and sieving meet a budget, before anything is trained.

The method spfde is planned over a grid: the sparsities and shares below and those of the scale, or a single value where
the user gave one. A freezing schedule is solved for each sparsity and share of freezing; sieving scales the work of an
epoch. What counts against a budget:

* flops: the `paper` column of the whole training.
* memory: the paper's ledger in bytes, its mean over training (`paper_avg`; the minimum is reached at its end).
* time: seconds of all steps and updates, as `spfde bench epochs` measured them: epochs x seconds per epoch. Freezing
  and sieving save independently there, and one sparsity is measured, so a time budget says nothing about sparsity.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from spfde import freezing
from spfde.cost.flops import paper_flops
from spfde.cost.memory import paper_memory
from spfde.data import info
from spfde.errors import SpfdeError
from spfde.experiments.files import read_scale
from spfde.experiments.resolve import resolve
from spfde.files import check_file
from spfde.planning import Plan
from spfde.plans import plan_settings
from spfde.settings import RunSettings
from spfde.sieving import samples_by_epoch

SPARSITIES = (0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.98)
SHARES = (0.0, 0.1, 0.15, 0.2, 0.25, 0.3, 0.35)
ORDER = (
    "lowest sparsity, then the smallest share at which neither freezing nor sieving exceeds it, then least frozen, "
    "then least removed"
)
ROUNDING = 1e-9  # relative tolerance, so that a limit copied from a plan is met by that plan


@dataclass(frozen=True)
class Budget:
    """Limits, all of which have to be met; None means no limit."""

    flops: float | None = None
    memory: float | None = None
    time: float | None = None

    @property
    def limits(self) -> dict[str, float]:
        return {kind: limit for kind, limit in vars(self).items() if limit is not None}


@dataclass(frozen=True)
class Combination:
    """A plan and what it takes: paper FLOPs, and bytes and seconds where a budget asks for them."""

    plan: Plan
    takes: dict[str, float]

    @property
    def order(self) -> tuple[float, ...]:
        """Sort key that puts the best first, as `ORDER` says."""
        settings = self.plan.settings
        frozen, removed = settings.freezing.flops_reduction, settings.sieving.removed
        return settings.sparsity.target, max(frozen, removed), frozen, removed


class StepTimes:
    """Measured seconds of an epoch under freezing and sieving.

    Args:
        path: what `spfde bench epochs --out` wrote.
        settings: of the runs that are planned; the network and the batch size must be those measured. The measured
            epochs may have fewer samples: seconds grow with them.

    Raises:
        SpfdeError: no measurements there, or those of another network.
    """

    def __init__(self, path: Path, settings: RunSettings) -> None:
        command = f"spfde bench epochs --scale {settings.scale} --model scale --out {path}"
        remedy = f"run `{command}`, or name another file by --bench"
        try:
            if path.exists():
                check_file(path, "step times", remedy)
            frame = pd.read_csv(path)
            kinds = {kind: rows.set_index("flops_reduction") for kind, rows in frame.groupby("kind")}
            self.base = float(kinds["masks"].seconds_per_epoch.iloc[0])
            self.freezing, self.sieving = (
                dict(zip([0.0, *rows.index.astype(float)], [self.base, *rows.seconds_per_epoch], strict=True))
                for rows in (kinds["freezing"], kinds["sieving"])
            )
            measured = str(frame.scale[0]), str(frame.model[0]), int(frame.batch_size[0])
            self.larger = info(settings.data.name).training_samples(settings.data) / int(frame["samples"].iloc[0])
        except (OSError, KeyError, AttributeError, ValueError) as error:
            cause = f"no measured step times in {path} ({error.__class__.__name__})"
            raise SpfdeError(cause, remedy) from None
        wanted = settings.scale, settings.model.name, settings.training.batch_size
        if measured != wanted:
            told = "scale {}, model {}, batch size {}"
            raise SpfdeError(f"{path} was measured at {told.format(*measured)}, not {told.format(*wanted)}", remedy)

    def seconds(self, settings: RunSettings) -> float:
        """Seconds of the whole training."""
        wanted = settings.freezing.flops_reduction, settings.sieving.removed
        for name, share, times in zip(("freezing", "sieving"), wanted, (self.freezing, self.sieving), strict=True):
            if share not in times:
                remedy = f"choose one of {', '.join(f'{level:g}' for level in times)}"
                raise SpfdeError(f"no step time was measured at a {name} share of {share:g}", remedy)
        epoch = self.larger * self.freezing[wanted[0]] * self.sieving[wanted[1]] / self.base
        return settings.training.epochs * epoch


def combinations(
    scale: str, budget: Budget, overrides: Mapping[str, Any] | None = None, seed: int = 1, bench: Path | None = None
) -> list[Combination]:
    """All combinations of the grid that meet a budget, the best first.

    Args:
        scale: whose network, data and recipe are planned.
        budget: the limits.
        overrides: settings by dotted name; a sparsity or share among them takes the place of the grid's.
        seed: root seed of the runs.
        bench: measured step times, needed for a budget of time; only measured levels can be combined then.

    Raises:
        SpfdeError: no combination meets it (the cause names the least that can be reached), or bad settings.
    """
    told = {"sparsity.method": "spfde", **(overrides or {})}
    if told["sparsity.method"] != "spfde":
        raise SpfdeError("a budget is planned for method spfde", "leave sparsity.method as it is")
    times = None
    if budget.time is not None:
        times = StepTimes(bench or Path("results") / scale / "bench.csv", resolve(scale, told, seed))
    found = _grid(scale, told, seed, budget, times)
    met = [
        one for one in found if all(one.takes[kind] <= limit * (1 + ROUNDING) for kind, limit in budget.limits.items())
    ]
    if not met:
        raise _out_of_reach(found, budget)
    return sorted(met, key=lambda one: one.order)


def _grid(scale: str, told: Mapping[str, Any], seed: int, budget: Budget, times: StepTimes | None) -> list[Combination]:
    """All combinations of the grid with what each takes. Densities and schedules do not depend on sieving."""
    at = read_scale(scale)
    shares = {*SHARES, *at.levels}
    found: list[Combination] = []
    refused = SpfdeError("there is no combination to plan", "name a sparsity")
    for target in _values(told, "sparsity.target", {*SPARSITIES, *at.sparsities}):
        point = {**told, "sparsity.target": target}
        draft = plan_settings(resolve(scale, {**point, "freezing.flops_reduction": 0.0, "sieving.removed": 0.0}, seed))
        ledger = draft.ledger
        for frozen in _values(told, "freezing.flops_reduction", times.freezing if times else shares):
            point["freezing.flops_reduction"] = frozen
            try:
                schedule = freezing.solve(resolve(scale, point, seed).freezing, ledger, seed)
            except SpfdeError as error:  # freezing cannot save that much
                refused = error
                continue
            plan = replace(draft, schedule=schedule)
            bytes_by_epoch = None
            if budget.memory is not None:
                bytes_by_epoch = paper_memory(plan.profile, plan.trace(), plan.settings.training.batch_size)
            for removed in _values(told, "sieving.removed", times.sieving if times else shares):
                sieved = _sieved(plan, resolve(scale, {**point, "sieving.removed": removed}, seed))
                found.append(Combination(sieved, _takes(sieved, bytes_by_epoch, times)))
    if not found:
        raise refused
    return found


def _sieved(plan: Plan, settings: RunSettings) -> Plan:
    """The plan without sieving as that of the same run on a part of its data."""
    training = settings.training
    samples = samples_by_epoch(settings.sieving, settings.sparsity.interval, training.epochs, int(plan.samples[0]))
    first_steps = np.concatenate([[0], np.cumsum(-(-samples // training.batch_size))])
    return replace(plan, settings=settings, samples=samples, first_steps=first_steps, sieving=settings.sieving)


def _takes(plan: Plan, bytes_by_epoch: np.ndarray | None, times: StepTimes | None) -> dict[str, float]:
    forward = np.where(plan.at_target, plan.settled, plan.forward)
    macs = plan.profile.paper_macs
    # The method computes no weight gradient outside its masks.
    takes = {"flops": paper_flops(macs, plan.samples[:, None], forward, plan.frozen, forward)}
    if bytes_by_epoch is not None:
        takes["memory"] = float(np.average(bytes_by_epoch, weights=plan.samples))
    if times:
        takes["time"] = times.seconds(plan.settings)
    return takes


def _out_of_reach(found: list[Combination], budget: Budget) -> SpfdeError:
    """The error that says what the least reachable value is, or that the limits cannot be met together."""
    for kind, limit in budget.limits.items():
        least = min(found, key=lambda one: one.takes[kind])
        if least.takes[kind] > limit * (1 + ROUNDING):
            cause = f"no combination meets --budget-{kind} {limit:g}: the least is {least.takes[kind]:.4g}"
            return SpfdeError(f"{cause} ({least.plan.settings.row})", "raise it to that, or train fewer epochs")
    return SpfdeError("each limit can be met, but no combination meets all of them", "raise one of them")


def _values(told: Mapping[str, Any], key: str, grid: Iterable[float]) -> list[float]:
    """The value that the user gave, or the whole grid."""
    return [told[key]] if key in told else sorted(grid)
