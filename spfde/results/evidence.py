"""Where the verdicts' evidence comes from: plans, records, analyses and the benchmark.

Costs and memory are computed from the plan of the paper's scale, whatever scale ran. Accuracies are read from records
of the paper's scale alone; those of another scale are shown as a check of the machinery and decide nothing. Times are
the benchmark's.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd

from spfde.errors import SpfdeError, lookup
from spfde.experiments.files import read_scale
from spfde.experiments.resolve import expand
from spfde.planning import Plan, describe, plan_settings
from spfde.results import load
from spfde.results.analyses import analysis_path
from spfde.results.checks import CHECKS
from spfde.results.claims import VERDICTS, Claim, Finding, conclude, exact, findings, plain, worst
from spfde.results.reference import STANDINGS
from spfde.results.statistics import Estimate, estimate, paired
from spfde.settings import RunSettings

Effects = list[tuple[list[str], Estimate]]
CONVERGED = 0.9  # of the final structure or representation
ANALYSES = {"similarity": "similarity", "cka": "cka"}  # first part of a metric -> column of the analysis


@dataclass
class Evidence:
    """What claims are held against.

    Args:
        scale: the scale that was run: its records decide what holds for every run, its folder has the benchmark.
        results: the folder of all results.
    """

    scale: str
    results: Path
    _rows: dict[tuple[str, str], dict[str, RunSettings]] = field(default_factory=dict, init=False)
    _runs: dict[tuple[str, str], pd.DataFrame] = field(default_factory=dict, init=False)
    _plans: dict[str, Plan] = field(default_factory=dict, init=False)

    def decide(self, claim: Claim) -> dict[str, Any]:
        """The claim's verdict with its evidence, as it stands in claims.json."""
        sources = {
            "accuracy": self._accuracy,
            "analysis": self._analysis,
            "cost": self._planned,
            "memory": self._planned,
            "invariance": self._invariance,
            "acceleration": self._acceleration,
        }
        effects, origin = sources[claim.kind](claim)
        found = findings(claim, effects)
        verdict, reason = conclude(claim, found)
        shown = worst(claim, found)
        evidence = {
            "from": origin,
            "reason": reason,
            "n": shown.effect.n if shown else 0,
            "effect": shown.effect.mean if shown else None,
            "interval": _interval(shown.effect) if shown else None,
            "rows": shown.rows if shown else [],
            "comparisons": [_line(finding) for finding in found],
        }
        if claim.kind == "accuracy" and self.scale != claim.scale:
            rehearsed = findings(claim, self._accuracy(claim, self.scale)[0])
            lines = [_line(finding) | {"verdict": None} for finding in rehearsed if finding.effect.n]
            evidence["machinery"] = {"scale": self.scale, "decides": False, "comparisons": lines}
        return plain(
            {
                "id": claim.id,
                "claim": claim.claim,
                "source": claim.source,
                "kind": claim.kind,
                "verdict": verdict,
                "published": {
                    "low": claim.expected.low,
                    "high": claim.expected.high,
                    "tolerance": claim.tolerance,
                    "standing": STANDINGS.get(claim.expected.standing, "not found"),
                    "why": claim.why,
                },
                "metric": claim.metric,
                "relation": claim.relation,
                "scale": claim.scale,
                "evidence": evidence,
            }
        )

    def rows(self, scale: str, experiment: str) -> dict[str, RunSettings]:
        """The rows of an experiment at a scale, by name, each at its first seed."""
        if (scale, experiment) not in self._rows:
            self._rows[scale, experiment] = {run.row: run for run in reversed(expand(scale, experiment))}
        return self._rows[scale, experiment]

    def plan(self, claim: Claim, row: str) -> Plan:
        """The plan of a claim's row at the paper's scale."""
        known = self.rows(claim.scale, claim.experiment)
        if row not in known:
            cause = f"claim {claim.id} names the row {row}, which {claim.experiment} has not at scale {claim.scale}"
            raise SpfdeError(cause, "mend config/claims.yaml")
        run = known[row]
        if run.run_id not in self._plans:
            self._plans[run.run_id] = plan_settings(run)
        return self._plans[run.run_id]

    def runs(self, scale: str, experiment: str) -> pd.DataFrame:
        """The records of an experiment's rows at a scale, those of other settings left out."""
        if (scale, experiment) not in self._runs:
            row_digests = {row: run.row_digest for row, run in self.rows(scale, experiment).items()}
            runs = load(scale, self.results, row_digests)
            self._runs[scale, experiment] = runs[runs["row"].isin(list(row_digests))]
        return self._runs[scale, experiment]

    def _accuracy(self, claim: Claim, scale: str | None = None) -> tuple[Effects, str]:
        at = scale or claim.scale
        origin = f"records of scale {at}"
        if not read_scale(claim.scale).paper or not _has_records(self.results, at):
            return [], origin
        runs = self.runs(at, claim.experiment)
        return [(rows, _measured(claim, runs, rows)) for rows in claim.comparisons], origin

    def _planned(self, claim: Claim) -> tuple[Effects, str]:
        def value(row: str, metric: str) -> float:
            section, _, key = metric.partition(".")
            found = describe(self.plan(claim, row))[section]
            planned = found[key] if key else found
            if planned is None:
                cause = f"claim {claim.id} rests on the planned cost of {row}, which depends on the mask"
                raise SpfdeError(cause, "let it rest on records, in config/claims.yaml")
            return float(planned)

        effects: Effects = []
        for rows in claim.comparisons:
            effect = value(rows[0], claim.metric)
            if claim.relation != "value":
                other = value(rows[1], claim.other_metric or claim.metric)
                effect = effect / other if claim.relation == "ratio" else effect - other
            effects.append((rows, exact(effect)))
        return effects, f"planned trace of scale {claim.scale}"

    def _invariance(self, claim: Claim) -> tuple[Effects, str]:
        if claim.metric not in CHECKS:
            raise SpfdeError(
                f"claim {claim.id} names no known check: {claim.metric}", f"use one of {', '.join(CHECKS)}"
            )
        check = CHECKS[claim.metric]
        if check.plans:
            rows = [rows[0] for rows in claim.comparisons]
            return [([row], exact(check.of(self.plan(claim, row)))) for row in rows], f"plan of scale {claim.scale}"
        origin = f"records of scale {self.scale}"
        values = [value for folder in _folders(self.results, self.scale) for value in check.of(folder)]
        if not values:
            return [], origin
        return [([], exact(max(values))._replace(n=len(values)))], origin

    def _analysis(self, claim: Claim) -> tuple[Effects, str]:
        kind, _, layers = claim.metric.partition(".")
        path = analysis_path(f"{claim.experiment}.{kind}", claim.scale, self.results)
        if not path.is_file():
            return [], f"analysis of snapshots at scale {claim.scale}"
        epochs = converged(pd.read_csv(path), ANALYSES[kind])
        return [(rows, _when(epochs, rows, layers)) for rows in claim.comparisons], f"snapshots of scale {claim.scale}"

    def _acceleration(self, claim: Claim) -> tuple[Effects, str]:
        path = self.results / self.scale / "bench.repeats.csv"
        if not path.is_file():
            return [], "benchmark"
        times = pd.read_csv(path)
        device = ", ".join(sorted(times["device"].unique())) if "device" in times else "unknown device"
        statistic, _, kind = claim.metric.rpartition(".")
        measure = lookup("statistic of the benchmark", statistic, {"": per_share, "overhead": overhead})
        return [([claim.metric], measure(times, kind))], f"benchmark on {device}"


def decide_all(claims: list[Claim], scale: str, results: Path) -> list[dict[str, Any]]:
    """The verdicts on these claims, in their order."""
    evidence = Evidence(scale, results)
    return [evidence.decide(claim) for claim in claims]


def counts(verdicts: list[dict[str, Any]]) -> dict[str, int]:
    """How many claims have which verdict."""
    return {verdict: sum(entry["verdict"] == verdict for entry in verdicts) for verdict in VERDICTS}


def converged(frame: pd.DataFrame, column: str) -> pd.DataFrame:
    """The epoch from which on a layer keeps 0.9 of its final value: columns row, seed, number, epoch."""
    low = frame[frame[column] < CONVERGED]
    keys = ["row", "seed", "number"]
    step = frame.sort_values("epoch").groupby(keys)["epoch"].first()
    last = low.groupby(keys)["epoch"].max().reindex(step.index)
    later = frame.merge(last.rename("last").reset_index(), on=keys)
    later = later[later["last"].isna() | (later["epoch"] > later["last"])]
    return later.groupby(keys)["epoch"].min().reset_index()


def per_share(times: pd.DataFrame, kind: str) -> Estimate:
    """Share of the epoch's time saved per share of FLOPs saved (1: linear), over the benchmark's repeats.

    Of a repeat it is the slope through the origin over its levels (least squares).
    """
    wide = times.pivot_table(index="repeat", columns=["kind", "flops_reduction"], values="seconds_per_epoch")
    if not {kind, "masks"} <= set(wide.columns.get_level_values("kind")):
        return estimate([])
    base, found = pd.DataFrame(wide["masks"]), pd.DataFrame(wide[kind])
    saved = 1 - found.to_numpy() / base.to_numpy()[:, :1]
    levels = found.columns.to_numpy(dtype=float)
    return estimate((saved @ levels) / (levels @ levels))


def overhead(times: pd.DataFrame, kind: str) -> Estimate:
    """What a kind adds to the epoch's time, as a share of it, over the benchmark's repeats.

    Of a repeat it is the mean over the kind's levels. Masks are held against dense training, everything else against
    masks alone; both in as many steps and with as many mask updates, so that fewer samples are no gain.
    """
    if not {"steps", "step_seconds", "mask_updates"} <= set(times):
        return estimate([])
    by_repeat = times.set_index("repeat")
    found = by_repeat[by_repeat["kind"] == kind]
    base = by_repeat[by_repeat["kind"] == ("dense" if kind == "masks" else "masks")].reindex(found.index)
    without = found["steps"] * base["step_seconds"] + base["mask_updates"]
    return estimate((found["seconds_per_epoch"] / without - 1).groupby(level="repeat").mean())


def _measured(claim: Claim, runs: pd.DataFrame, rows: list[str]) -> Estimate:
    if claim.relation == "value":
        return estimate(runs[runs["row"] == rows[0]][claim.metric])
    return paired(runs, rows[0], rows[1], claim.metric)


def _when(epochs: pd.DataFrame, rows: list[str], layers: str) -> Estimate:
    """Epochs of convergence: of the first layer; of the last third minus the first third; or of a row minus another."""
    table = epochs[epochs["row"] == rows[0]].pivot(index="seed", columns="number", values="epoch")
    if layers == "first":
        return estimate(table.iloc[:, 0] if table.size else [])
    if layers == "back-front":
        third = table.shape[1] // 3
        return estimate(table.iloc[:, -third:].mean(axis=1) - table.iloc[:, :third].mean(axis=1) if third else [])
    other = epochs[epochs["row"] == rows[1]].pivot(index="seed", columns="number", values="epoch")
    shared = table.columns.intersection(other.columns)
    return estimate(table[shared].mean(axis=1) - other[shared].mean(axis=1) if len(shared) else [])


def _folders(results: Path, scale: str) -> Iterator[Path]:
    from spfde.results.collect import record_folders

    yield from record_folders(scale, results)


def _has_records(results: Path, scale: str) -> bool:
    return next(_folders(results, scale), None) is not None


def _interval(effect: Estimate) -> list[float] | None:
    """None where the effect is computed, or has too few values for an interval."""
    return None if math.isnan(effect.low) or effect.low == effect.high else [effect.low, effect.high]


def _line(finding: Finding) -> dict[str, Any]:
    effect = finding.effect
    return {
        "rows": finding.rows,
        "n": effect.n,
        "effect": effect.mean,
        "interval": _interval(effect),
        "verdict": finding.verdict,
    }
