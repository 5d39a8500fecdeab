"""Evidence on accuracies: runs of the paper's scale decide a claim; a reduced scale has words of its own beside it.

Every claim also says how many seeds it needs at the spread observed, and what the seeds at hand can decide.
"""

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from scipy import stats

from spfde.data import info
from spfde.experiments.files import read_scale, settings_of
from spfde.results import reference
from spfde.results.claims import Claim, Comparison
from spfde.results.hypotheses import LEVEL, Test
from spfde.results.images import crossed_bootstrap, read_correct
from spfde.results.power import Design, decidable, power, seeds_needed
from spfde.results.sources import Sources
from spfde.results.statistics import Effect, Variance, combined, pooled_variance
from spfde.results.trials import Finding, Hypothesis, Look, Outcome, Run, Trial, measured, of_row
from spfde.settings import RunSettings

RUNS_OF_A_PAPER = 3  # SpFDE: "each accuracy result is averaged over 3 runs"
USUAL_STD = 0.3  # points, where no deviation is known at all


class Deviation(NamedTuple):
    """A standard deviation over seeds, in points, and where it is from."""

    std: float
    df: float
    origin: str

    @property
    def assumed(self) -> bool:
        return self.origin != "records"


def at_paper_scale(claim: Claim, sources: Sources) -> tuple[Outcome, dict[str, Any]]:
    """The outcome of a claim on accuracy, and its evidence as claims.json has it."""
    known = read_scale(claim.scale)
    for name in [*claim.control, *(row for each in claim.comparisons for row in each.rows)]:
        sources.row(claim, name)  # says which one the experiment does not have
    rows = [
        Hypothesis(tuple(each.rows), claim.weights, claim.test_of(each), _published(claim, each, sources))
        for each in claim.comparisons
    ]
    looks = [Look(max(2, len(known.seeds)), LEVEL)]
    trial = trial_of(claim, rows, sources, claim.scale, looks, False)
    outcome = trial.decide()
    evidence = evidence_of(claim, trial, outcome, sources, claim.scale)
    evidence["from"] = f"records of scale {claim.scale}"
    evidence["error_rate"] = LEVEL
    assumed = [(row, claim.assumed(each)) for row, each in zip(rows, claim.comparisons, strict=True)]
    evidence["power"] = power_of(claim, trial, assumed, sources, LEVEL)
    if claim.test == "magnitude":
        evidence["published_uncertainty"] = [_uncertainty(claim, each, sources) for each in claim.comparisons]
        if claim.relation == "value":
            evidence["one_run"] = _one_run(claim, trial, sources)
    return outcome, evidence


def rehearsal(claim: Claim, sources: Sources) -> dict[str, Any]:
    """What the runs of another scale show: a check of the machinery that decides nothing."""
    scale = sources.scale
    rows = [Hypothesis(tuple(each.rows), claim.weights, Test()) for each in claim.comparisons]
    outcome = trial_of(claim, rows, sources, scale, [Look(2)], False).decide()
    lines = [line(finding, LEVEL) | {"verdict": None} for finding in outcome.findings if finding.effect.n]
    return {"scale": scale, "decides": False, "comparisons": lines}


def worst(findings: Sequence[Finding], tests: Sequence[Test]) -> Finding | None:
    """The comparison that stands worst with the claim: it is the one to print."""
    known = [pair for pair in zip(findings, tests, strict=True) if not math.isnan(pair[0].effect.mean)]

    def distance(pair: tuple[Finding, Test]) -> float:
        effect, test = pair[0].effect.mean, pair[1]
        return min(effect - test.above, test.below - effect)

    return min(known, key=distance, default=(None, None))[0]


def line(finding: Finding, level: float) -> dict[str, Any]:
    """A comparison as it stands in claims.json; the intervals are two-sided and agree with the one-sided tests."""
    effect, pooled, judged = finding.effect, finding.pooled, finding.judged
    return {
        "rows": list(finding.rows),
        "n": effect.n,
        "effect": effect.mean,
        "interval": interval(effect, level),
        "pooled_interval": interval(pooled, level),
        "p_for": judged.p_for,
        "p_against": judged.p_against,
        "verdict": judged.word,
    }


def interval(effect: Effect, level: float) -> list[float] | None:
    """None where the effect is computed, or has too few values for an interval."""
    return list(effect.interval(1 - 2 * level)) if effect.known and effect.error else None


def trial_of(
    claim: Claim, hypotheses: Sequence[Hypothesis], sources: Sources, scale: str, looks: Sequence[Look], all_rows: bool
) -> Trial:
    """The runs of a claim's rows at a scale: those of its experiment, or of the scale's tiers (`all_rows`)."""
    names = {row for each in hypotheses for row in each.rows} | set(claim.control)
    experiment = "" if all_rows else claim.experiment
    frame = sources.runs(scale, experiment) if sources.has_records(scale) else pd.DataFrame(columns=["row"])
    runs = {row: of_row(frame, row, claim.metric) for row in names}
    chance = 100 / info(settings_of(scale).data.name).classes
    return Trial(hypotheses, runs, looks, claim.control, claim.paired, chance)


def evidence_of(claim: Claim, trial: Trial, outcome: Outcome, sources: Sources, scale: str) -> dict[str, Any]:
    shown = worst(outcome.findings, [each.test for each in trial.hypotheses])
    control = outcome.control
    lines = [line(finding, outcome.level) for finding in outcome.findings]
    for each, finding, hypothesis in zip(lines, outcome.findings, trial.hypotheses, strict=True):
        each["weights"] = list(hypothesis.weights)
        each["new_images"] = _new_images(finding, hypothesis, outcome, sources, scale)
    runs = [run for row in {row for each in trial.hypotheses for row in each.rows} for run in trial.runs[row]]
    return {
        "reason": outcome.reason,
        "n": shown.effect.n if shown else 0,
        "effect": shown.effect.mean if shown else None,
        "interval": interval(shown.effect, outcome.level) if shown else None,
        "interval_level": 1 - 2 * outcome.level,
        "rows": list(shown.rows) if shown else [],
        "comparisons": lines,
        "control": {"rows": list(claim.control), **_shown(control, outcome.level)} if control else None,
        "diverged": outcome.diverged,
        "runs": outcome.runs,
        "hardware": {name: sum(run.hardware == name for run in runs) for name in sorted({r.hardware for r in runs})},
    }


def _shown(effect: Effect, level: float) -> dict[str, Any]:
    return {"n": effect.n, "effect": effect.mean, "interval": interval(effect, level)}


def _new_images(
    finding: Finding, hypothesis: Hypothesis, outcome: Outcome, sources: Sources, scale: str
) -> list[float] | None:
    """The interval for new images, of the runs that the verdict rests on.

    None where not every one of these runs has a record that says which images were right, or where they were made on
    several kinds of hardware.
    """
    runs = [[run for run in outcome.cut[row] if not run.diverged] for row in finding.rows]
    if not finding.effect.known or len({run.hardware for row in runs for run in row}) > 1:
        return None
    folders = {folder.name: folder for folder in reversed(sources.folders(scale))}
    rows = []
    for own in runs:
        found = [read_correct(folder) if (folder := folders.get(run.run_id)) else None for run in own]
        known = [each for each in found if each is not None]
        if len(known) < max(2, len(own)):
            return None
        rows.append(np.stack(known))
    if len({each.shape[1] for each in rows}) > 1:
        return None
    return list(crossed_bootstrap(rows, hypothesis.weights, 1 - 2 * outcome.level))


def _published(claim: Claim, each: Comparison, sources: Sources) -> Variance:
    """The variance of the published effect that a magnitude is held against."""
    if claim.test != "magnitude":
        return Variance(0.0, math.inf)
    deviations = _published_deviations(claim, each, sources)
    weights = zip(claim.weights, deviations, strict=True)
    runs = said.runs if (said := claim.said(each)) else RUNS_OF_A_PAPER
    return combined([Variance(weight**2 * found.std**2 / runs, found.df) for weight, found in weights])


def _uncertainty(claim: Claim, each: Comparison, sources: Sources) -> dict[str, Any]:
    found = _published_deviations(claim, each, sources)
    return {
        "rows": each.rows,
        "error": math.sqrt(_published(claim, each, sources).value),
        "std": [deviation.std for deviation in found],
        "assumed": any(deviation.assumed for deviation in found),
        "from": [deviation.origin for deviation in found],
    }


def _published_deviations(claim: Claim, each: Comparison, sources: Sources) -> list[Deviation]:
    """The standard deviation behind each published mean of a comparison: stated, or else the table's median."""
    said, values = claim.said(each), sources.published(claim.scale)
    if said and said.std:
        return [Deviation(said.std, said.runs - 1, "records")] * len(each.rows)
    known = sources.rows(claim.scale, claim.experiment)
    return [_of_published_row(values, known.get(row), claim.experiment) for row in each.rows]


def _of_published_row(values: pd.DataFrame, run: RunSettings | None, table: str) -> Deviation:
    if run and not run.tag:
        shares = {"freezing": run.freezing.flops_reduction, "sieving": run.sieving.removed}
        row = {"method": run.sparsity.method, "sparsity": run.sparsity.target, **shares}
        found = reference.lookup(values, row, "accuracy")
        if found and not math.isnan(found.std):
            return Deviation(found.std, RUNS_OF_A_PAPER - 1, "records")
    return _median(values, table)


def _median(values: pd.DataFrame, table: str) -> Deviation:
    """The median deviation of a table's accuracies, or of all that are published for its network and data."""
    stated = values[(values["quantity"] == "accuracy") & values["std"].notna()]
    own = stated[stated["artefact"] == table]
    chosen, name = (own, f"median of {table}") if len(own) else (stated, "median of the published tables")
    if chosen.empty:
        return Deviation(USUAL_STD, math.inf, "assumed")
    return Deviation(float(chosen["std"].median()), (RUNS_OF_A_PAPER - 1) * len(chosen), name)


def power_of(
    claim: Claim, trial: Trial, assumed: Sequence[tuple[Hypothesis, float]], sources: Sources, level: float
) -> dict[str, Any]:
    """What n seeds can decide, and how many are needed; of several comparisons, the hardest.

    Args:
        claim: for the published spread, where the runs at hand show none.
        trial: its runs and looks.
        assumed: what must be shown, each with the effect that is taken to be true.
        sources: published values.
        level: of each one-sided test.
    """
    names = dict.fromkeys(row for each, _ in assumed for row in each.rows)
    own = pooled_variance([measured(trial.runs[row]) for row in names])
    spread = Deviation(math.sqrt(own.value), own.df, "records") if own.df >= 2 else _spread(claim, sources)
    n = trial.fewest() if assumed else 0
    n = n if n >= 2 else trial.looks[0].seeds
    found = []
    for each, effect in assumed:
        design = Design(spread.std, each.weights, each.published, level)
        variance = design.variance(n)
        found.append(
            {
                "effect": effect,
                "seeds_needed": seeds_needed(each.test, effect, design),
                "at_n": power(each.test, effect, variance, level),
                "decides": decidable(each.test, design, n),
            }
        )
    if not found:
        return {
            "n": 0,
            "std": spread.std,
            "std_from": spread.origin,
            "seeds_needed": None,
            "at_n": None,
            "decides": None,
        }
    hardest = min(found, key=lambda each: each["at_n"] if each["at_n"] is not None else 0.0)
    return {"n": n, "std": spread.std, "std_from": spread.origin, "level": level, **hardest}


def _spread(claim: Claim, sources: Sources) -> Deviation:
    return _median(sources.published(claim.scale), claim.experiment)


def _one_run(claim: Claim, trial: Trial, sources: Sources) -> dict[str, Any] | None:
    """A single run beside a published mean: inside or outside of the interval for one more run of theirs."""
    each = claim.comparisons[0]
    runs: list[Run] = [run for run in trial.runs[each.rows[0]] if not run.diverged]
    said = claim.said(each)
    if len(runs) != 1 or said is None or said.low is None or said.high is None:
        return None
    found = _published_deviations(claim, each, sources)[0]
    half = float(stats.t.ppf(0.975, found.df)) * found.std * math.sqrt(1 + 1 / said.runs)
    low, high = said.low - half, said.high + half
    return {"value": runs[0].value, "interval": [low, high], "inside": low <= runs[0].value <= high}
