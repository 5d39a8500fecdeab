"""Each claim with its verdict and what that rests on: plans, records, analyses or the benchmark.

Costs and memory are computed from the plan of the paper's scale, whatever scale ran. Accuracies are decided by records
of the paper's scale alone (`spfde.results.accuracy`); those of another scale are shown as a check of the machinery and
decide nothing. Times are those of the benchmark at the paper's scale, fresh or published; where there is none, those of
the scale that ran.
"""

import math
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from spfde.errors import SpfdeError, lookup
from spfde.experiments.files import read_scale
from spfde.files import read_csv
from spfde.results import accuracy, reduced
from spfde.results.analyses import analysis_path
from spfde.results.checks import CHECKS
from spfde.results.claims import DECIDED, UNVERIFIED, Claim, Claims, Verdict
from spfde.results.hypotheses import LEVEL, conclude, judge
from spfde.results.measured import repeats_path
from spfde.results.reference import STANDINGS
from spfde.results.sources import Sources
from spfde.results.speed import at_share, overhead, per_share
from spfde.results.statistics import UNKNOWN, Effect, exact, one_sample
from spfde.results.trials import Finding, Outcome

Effects = list[tuple[list[str], Effect]]
CONVERGED = 0.9  # of the final structure or representation
ANALYSES = {"similarity": "similarity", "cka": "cka"}  # first part of a metric -> column of the analysis
NOISY = ("analysis", "acceleration")  # measured, so that a verdict can be wrong by chance


class Evidence:
    """What claims are held against.

    Args:
        scale: the scale that was run: its records decide what holds for every run.
        results: the folder of all results.
        claims: the file, for its reduced scales.
        others: folders of records of the same protocol that others made.
    """

    def __init__(self, scale: str, results: Path, claims: Claims | None = None, others: Sequence[Path] = ()) -> None:
        self.scale, self.results = scale, results
        self.reduced = claims.reduced if claims else {}
        self.sources = Sources(scale, results, others)

    def decide(self, claim: Claim) -> dict[str, Any]:
        """The claim's verdict with its evidence, as it stands in claims.json."""
        outcome, evidence = self._outcome(claim)
        verdict, reason = self._verdict(claim, outcome)
        evidence = {**evidence, "reason": reason}
        entry = {
            "id": claim.id,
            "claim": claim.claim,
            "source": claim.source,
            "kind": claim.kind,
            "test": claim.test,
            "verdict": verdict,
            "by_construction": claim.by_construction.model_dump() if claim.by_construction else None,
            "published": {
                "low": claim.expected.low if claim.expected else None,
                "high": claim.expected.high if claim.expected else None,
                "margin": claim.margin,
                "smallest": [claim.smallest_of(each) for each in claim.comparisons] if _superior(claim) else None,
                "standing": STANDINGS.get(claim.stands, "not found"),
                "why": claim.why,
                "comparisons": [each.expected.model_dump() if each.expected else None for each in claim.comparisons],
            },
            "metric": claim.metric,
            "relation": claim.relation,
            "scale": claim.scale,
            "evidence": evidence,
            "reduced": None,
            "note": claim.note,
        }
        if claim.kind == "accuracy":
            if self.scale not in (claim.scale, *self.reduced):
                evidence["machinery"] = self._rehearsal(claim)
            entry["reduced"] = reduced.words(claim, self.sources, self.reduced)
        found: dict[str, Any] = plain(entry)
        return found

    def _verdict(self, claim: Claim, outcome: Outcome) -> tuple[Verdict, str]:
        """The verdict, after what may be said at all: of what holds by construction, and of whom."""
        verdict, reason = outcome.verdict, outcome.reason
        if claim.missing:
            return "not run", claim.missing
        if claim.by_construction:
            return _by_construction(claim, outcome)
        if claim.stands in UNVERIFIED and verdict != "not run":
            return "undecided", "the published value is unverified, and no verdict rests on one"
        if verdict == "contradicted" and claim.stands != "F":
            standing = STANDINGS[claim.stands]
            return (
                "undecided",
                f"apart from a {standing} value: it is no sentence of the paper that could be contradicted",
            )
        # Costing more is no excuse for being less accurate, unless the sentence is about equal costs.
        if claim.costs and verdict in DECIDED and (verdict != "contradicted" or claim.costs.relation == "equal"):
            unequal = reduced.unequal_costs(claim, self.sources)
            return ("undecided", unequal) if unequal else (verdict, reason)
        return verdict, reason

    def _outcome(self, claim: Claim) -> tuple[Outcome, dict[str, Any]]:
        if claim.kind == "accuracy" and read_scale(claim.scale).paper and not claim.missing:
            return accuracy.at_paper_scale(claim, self.sources)
        sources = {
            "analysis": self._analysis,
            "cost": self._planned,
            "memory": self._planned,
            "invariance": self._invariance,
            "acceleration": self._acceleration,
        }
        if claim.missing or claim.kind not in sources:
            effects, origin = Effects(), "nothing that this project runs" if claim.missing else f"scale {claim.scale}"
        else:
            effects, origin = sources[claim.kind](claim)
        return self._in_range(claim, effects, origin)

    def _in_range(self, claim: Claim, effects: Effects, origin: str) -> tuple[Outcome, dict[str, Any]]:
        """The outcome of effects that are held against a range."""
        of = {tuple(each.rows): each for each in claim.comparisons}
        tests = [claim.test_of(of.get(tuple(rows))) for rows, _ in effects]
        judged = judge(tests, [effect for _, effect in effects])
        findings = [
            Finding(tuple(rows), effect, UNKNOWN, each) for (rows, effect), each in zip(effects, judged, strict=True)
        ]
        verdict = conclude([each.word for each in judged])
        outcome = Outcome(verdict, findings, _why_not(claim, effects) if verdict == "not run" else "")
        shown = accuracy.worst(findings, tests)
        return outcome, {
            "from": origin,
            "n": shown.effect.n if shown else 0,
            "effect": shown.effect.mean if shown else None,
            "interval": accuracy.interval(shown.effect, LEVEL) if shown else None,
            "interval_level": 1 - 2 * LEVEL,
            "rows": list(shown.rows) if shown else [],
            "comparisons": [accuracy.line(finding, LEVEL) for finding in findings],
            "error_rate": LEVEL if claim.kind in NOISY else 0.0,
        }

    def _rehearsal(self, claim: Claim) -> dict[str, Any] | None:
        return accuracy.rehearsal(claim, self.sources) if self.sources.has_records(self.scale) else None

    def _planned(self, claim: Claim) -> tuple[Effects, str]:
        effects: Effects = []
        for each in claim.comparisons:
            effect = self.sources.planned(claim, each.rows[0], claim.metric)
            if claim.relation != "value":
                other = self.sources.planned(claim, each.rows[1], claim.other_metric or claim.metric)
                effect = effect / other if claim.relation == "ratio" else effect - other
            effects.append((each.rows, exact(effect)))
        return effects, f"planned trace of scale {claim.scale}"

    def _invariance(self, claim: Claim) -> tuple[Effects, str]:
        if claim.metric not in CHECKS:
            raise SpfdeError(
                f"claim {claim.id} names no known check: {claim.metric}", f"use one of {', '.join(CHECKS)}"
            )
        check = CHECKS[claim.metric]
        if check.plans:
            rows = [each.rows[0] for each in claim.comparisons]
            plans = [([row], exact(check.of(self.sources.plan(claim, row)))) for row in rows]
            return plans, f"plan of scale {claim.scale}"
        origin = f"records of scale {self.scale}"
        values = [value for folder in self.sources.folders(self.scale) for value in check.of(folder)]
        if not values:
            return [], origin
        return [([], exact(max(values))._replace(n=len(values)))], origin

    def _analysis(self, claim: Claim) -> tuple[Effects, str]:
        kind, _, layers = claim.metric.partition(".")
        path = analysis_path(f"{claim.experiment}.{kind}", claim.scale, self.results)
        if not path.is_file():
            return [], f"analysis of snapshots at scale {claim.scale}"
        epochs = converged(pd.read_csv(path), ANALYSES[kind])
        effects = [(each.rows, _when(epochs, each.rows, layers)) for each in claim.comparisons]
        return effects, f"snapshots of scale {claim.scale}"

    def _acceleration(self, claim: Claim) -> tuple[Effects, str]:
        measured = {scale: repeats_path(self.results / scale) for scale in (claim.scale, self.scale)}
        scale = next((scale for scale, path in measured.items() if path.is_file()), None)
        if scale is None:
            return [], "benchmark"
        times = read_csv(measured[scale], "timings", "run `spfde bench epochs` again")
        device = ", ".join(sorted(times["device"].unique())) if "device" in times else "unknown device"
        statistic, _, kind = claim.metric.rpartition(".")
        origin = f"benchmark at scale {scale} on {device}"
        if claim.comparisons:  # each names a share of the FLOPs, in percent
            shares = [(each.rows, at_share(times, kind, float(each.rows[0]) / 100)) for each in claim.comparisons]
            return shares, origin
        measure = lookup("statistic of the benchmark", statistic, {"": per_share, "overhead": overhead})
        return [([], measure(times, kind))], origin


def decide_all(claims: Claims, scale: str, results: Path, others: Sequence[Path] = ()) -> list[dict[str, Any]]:
    """The verdicts on all claims, in their order, with evidence."""
    evidence = Evidence(scale, results, claims, others)
    return [evidence.decide(claim) for claim in claims.claims]


def plain(value: Any) -> Any:
    """JSON has neither NaN nor infinity: None."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {key: plain(inner) for key, inner in value.items()}
    return [plain(inner) for inner in value] if isinstance(value, list | tuple) else value


def converged(frame: pd.DataFrame, column: str) -> pd.DataFrame:
    """The epoch from which on a layer keeps 0.9 of its final value: columns row, seed, number, epoch."""
    low = frame[frame[column] < CONVERGED]
    keys = ["row", "seed", "number"]
    step = frame.sort_values("epoch").groupby(keys)["epoch"].first()
    last = low.groupby(keys)["epoch"].max().reindex(step.index)
    later = frame.merge(last.rename("last").reset_index(), on=keys)
    later = later[later["last"].isna() | (later["epoch"] > later["last"])]
    return later.groupby(keys)["epoch"].min().reset_index()


def _by_construction(claim: Claim, outcome: Outcome) -> tuple[Verdict, str]:
    """No record changes what holds by construction; a plan in which it does not hold is said.

    Where records are a check of it, one that fails is a fault of the code that made them, and no verdict on a paper.
    """
    assert claim.by_construction is not None
    because = f"{claim.by_construction.by}: {claim.by_construction.reason}"
    from_records = claim.kind == "invariance" and not CHECKS[claim.metric].plans
    if outcome.verdict == "reproduced" or (from_records and outcome.verdict == "not run"):
        return "by construction", because
    if outcome.verdict == "not run":
        return "not run", outcome.reason
    if from_records:
        print(f"warning: records violate what holds by construction: {claim.id}", file=sys.stderr)
        return "by construction", f"{because}; but records violate it, so the code that made them is at fault"
    return "undecided", f"declared to hold by construction ({because}), but the plan says otherwise"


def _superior(claim: Claim) -> bool:
    return claim.test == "superiority"


def _why_not(claim: Claim, effects: Effects) -> str:
    if not effects:
        return "there are none"
    if claim.kind in ("cost", "memory"):
        return "it depends on the mask, and there are no records"
    fewest = min(effect.n for _, effect in effects if not effect.known)
    return f"a comparison has {fewest} runs and needs two"


def _when(epochs: pd.DataFrame, rows: list[str], layers: str) -> Effect:
    """Epochs of convergence, over seeds.

    Of the first layer; of the last third of the layers minus the first third; or of a row minus another, averaged over
    all layers or of the layer with a number.
    """
    table = epochs[epochs["row"] == rows[0]].pivot(index="seed", columns="number", values="epoch")
    if layers == "first":
        return one_sample(table.iloc[:, 0] if table.size else [])
    if layers == "back-front":
        third = table.shape[1] // 3
        return one_sample(table.iloc[:, -third:].mean(axis=1) - table.iloc[:, :third].mean(axis=1) if third else [])
    other = epochs[epochs["row"] == rows[1]].pivot(index="seed", columns="number", values="epoch")
    shared = table.columns.intersection(other.columns)
    if layers.isdigit():
        shared = shared.intersection(pd.Index([int(layers)], dtype=shared.dtype))
    return one_sample(table[shared].mean(axis=1) - other[shared].mean(axis=1) if len(shared) else [])
