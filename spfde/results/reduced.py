"""What runs of a shortened schedule say of the claims on accuracy, in words that are never the paper's verdict.

Margins, looks and the rest of the protocol are declared in config/claims.yaml before the runs. Published magnitudes
get no reduced verdict, since at another schedule they are other numbers. Claims of no loss must also keep the declared
share of what the control shows (dynamic above static), or a scale at which nothing differs would pass; and they count
only beside the trend of the gap over the length of training, which says where they point at the paper's.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from scipy import stats

from spfde.configuration import config_file
from spfde.experiments.files import read_scale, settings_of
from spfde.results.accuracy import evidence_of, power_of, trial_of, worst
from spfde.results.claims import Claim, Comparison, Reduced
from spfde.results.hypotheses import Test, make
from spfde.results.power import overall_level
from spfde.results.sources import Sources
from spfde.results.statistics import contrast
from spfde.results.trials import Hypothesis, Look, Outcome, in_words, measured, of_row

NO_LOSS = ("equivalence", "non-inferiority")


def words(claim: Claim, sources: Sources, scales: Mapping[str, Reduced]) -> dict[str, Any] | None:
    """The words on a claim at the scale that stands in for the paper's, with n, effect, interval and power.

    None where there is no such scale for it, or none of its comparisons has its rows there.
    """
    name = next((scale for scale, how in scales.items() if how.of == claim.scale and _known(scale)), None)
    if claim.test == "magnitude" or name is None or read_scale(name).paper:
        return None
    if settings_of(name).data.name != settings_of(claim.scale).data.name:
        return None  # another data set is no reduced scale of this one
    how, known = scales[name], sources.every_row(name)
    others = how.others_in(claim)
    claim = how.of_claim(claim)
    there = [Comparison(rows=each.rows) for each in claim.comparisons if set(each.rows) <= set(known)]
    if not there or not set(claim.control) <= set(known):
        return None
    left = len(claim.comparisons) - len(there)
    own = claim.model_copy(update={"comparisons": there, "expected": None})  # published numbers say nothing here
    test = make(claim.test, how.margin, low=0.0, smallest=how.smallest)
    main = [Hypothesis(tuple(each.rows), claim.weights, test) for each in there]
    trial = trial_of(own, main + _retained(own, how.retained), sources, name, _looks(main, how, sources, name), True)
    outcome = trial.decide()
    trend = _trend(how, sources, name) if claim.test in NO_LOSS else None
    verdict, reason = _said(outcome, trend, own, sources, name)
    shown = worst(outcome.findings[: len(main)], [each.test for each in main])
    low, high = shown.effect.interval(1 - 2 * outcome.level) if shown else (math.nan, math.nan)
    power = power_of(own, trial, main, sources, outcome.level, trial.looks, smallest=how.smallest)
    evidence = evidence_of(own, trial, outcome, sources, name)
    return {
        "scale": name,
        "rows": others,
        "verdict": verdict,
        "n": shown.effect.n if shown else 0,
        "effect": shown.effect.mean if shown else None,
        "low": low,
        "high": high,
        "power": power["at_n"],
        "seeds_needed": power["seeds_needed"],
        "decides": power["decides"],
        "level": outcome.level,
        "error_rate": overall_level({look.seeds: look.level for look in trial.looks}),
        "margin": how.smallest if claim.test == "superiority" else how.margin,
        "reason": reason + (f"; {left} more comparisons of the claim have no rows here" if left else ""),
        "trend": trend,
        "evidence": {key: evidence[key] for key in ("comparisons", "control", "diverged", "runs", "hardware")},
    }


def _known(scale: str) -> bool:
    return config_file("scales", f"{scale}.yaml").is_file()


def _looks(main: Sequence[Hypothesis], how: Reduced, sources: Sources, scale: str) -> list[Look]:
    """The declared looks that the seeds planned for these rows can reach; the first one where they reach none."""
    planned = min(sources.seeds(scale, row) for each in main for row in each.rows)
    looks = [Look(seeds, level) for seeds, level in sorted(how.looks.items())]
    return [look for look in looks if look.seeds <= planned] or looks[:1]


def _retained(claim: Claim, share: float) -> list[Hypothesis]:
    """What claims of no loss must show as well: row - static >= share (dynamic - static)."""
    if claim.test not in NO_LOSS:
        return []
    test, weights = Test(above=0.0, against_below=0.0), (1.0, -share, share - 1.0)
    return [Hypothesis((each.rows[0], *claim.control), weights, test) for each in claim.comparisons]


def _said(
    outcome: Outcome, trend: dict[str, Any] | None, claim: Claim, sources: Sources, scale: str
) -> tuple[str, str]:
    """The word, after what is no part of the test: equal costs, and the trend beside a claim of no loss."""
    if outcome.verdict == "reproduced" and trend is not None and trend["extrapolated"] is None:
        return (
            "undecided (interim)",
            "the trend over the length of training has not been run, and belongs to this claim",
        )
    decided = outcome.verdict in ("reproduced", "smaller than claimed", "contradicted")
    if claim.costs and decided and (unequal := unequal_costs(claim, sources, scale)):
        return "undecided", unequal
    return in_words(outcome.verdict), outcome.reason


def unequal_costs(claim: Claim, sources: Sources, scale: str = "") -> str:
    """What speaks against the comparisons being those of the sentence, where it names what they may cost.

    Args:
        claim: a claim with `costs`.
        sources: rows, plans and records.
        scale: a reduced scale, with the rows of its tiers; without one, the claim's own scale and experiment.
    """
    assert claim.costs is not None
    known = sources.every_row(scale) if scale else sources.rows(claim.scale, claim.experiment)
    runs = sources.runs(scale) if scale else sources.runs(claim.scale, claim.experiment)
    for each in claim.comparisons:
        own, other = (sources.cost(known[row], runs, claim.costs.metric) for row in each.rows)
        if math.isnan(own) or math.isnan(other):
            return f"what {' or '.join(each.rows)} costs depends on the mask, and is not known without records"
        more = own / other - 1
        if more > claim.costs.tolerance or (claim.costs.relation == "equal" and -more > claim.costs.tolerance):
            against = f" costs {100 * more:+.1f} % against ".join(each.rows)
            return f"{against}: not the comparison that the sentence makes"
    return ""


def _trend(how: Reduced, sources: Sources, scale: str) -> dict[str, Any] | None:
    """The gap of a row to its base by length of training, its least-squares line over log2, and where that points.

    Every gap weighs by the inverse of its variance. What the line says of the paper's schedule is an extrapolation.
    """
    if not how.trend:
        return None
    runs = sources.runs(scale) if sources.has_records(scale) else pd.DataFrame(columns=["row"])
    gaps = {
        epochs: contrast([measured(of_row(runs, row, "accuracy.test_last")) for row in pair], (1.0, -1.0))
        for epochs, pair in sorted(how.trend.items())
    }
    lines = {str(epochs): {"effect": gap.mean, "n": gap.n, "error": gap.error} for epochs, gap in gaps.items()}
    found: dict[str, Any] = {
        "gaps": lines,
        "at": how.full,
        "slope": None,
        "extrapolated": None,
        "low": None,
        "high": None,
    }
    if len(gaps) < 2 or not all(gap.known and gap.error for gap in gaps.values()):
        return found
    design = np.column_stack([np.ones(len(gaps)), np.log2(np.array(list(gaps)) / how.full)])
    weight = np.array([gap.error**-2 for gap in gaps.values()])
    covariance = np.linalg.inv(design.T * weight @ design)
    level, slope = covariance @ (design.T * weight) @ np.array([gap.mean for gap in gaps.values()])
    half = float(stats.t.ppf(0.95, sum(gap.df for gap in gaps.values()))) * math.sqrt(covariance[0, 0])
    return found | {"slope": float(slope), "extrapolated": float(level), "low": level - half, "high": level + half}
