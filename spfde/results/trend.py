"""The gap of a row to its base over the length of training, and where it points at the paper's schedule."""

import math
from typing import Any

import numpy as np
import pandas as pd
from scipy import stats

from spfde.results.claims import Reduced
from spfde.results.sources import Sources
from spfde.results.statistics import contrast
from spfde.results.trials import Look, comparable, measured, of_row

LEVEL = 0.9  # of the interval of what is extrapolated
UNKNOWN = {"slope": None, "extrapolated": None, "low": None, "high": None}


def trend(how: Reduced, sources: Sources, scale: str) -> dict[str, Any] | None:
    """The declared gaps, their least-squares line over log2 of the epochs, and what it says of the paper's schedule.

    Every gap weighs by the inverse of its variance. A gap counts once all seeds that were declared for it are there:
    those that the tiers plan, up to the number of the first look. What the line says of the paper's schedule is an
    extrapolation; its interval is two-sided at 90 %.

    Returns:
        `gaps` by epochs (effect in points, n, standard error) of `row` to `base`, whether all are `complete`, `at`
        which epochs it is `extrapolated`, with `low` and `high` at `level`, and the `slope` in points for each doubling
        of the epochs. None where no trend was declared.
    """
    if not how.trend:
        return None
    frame = sources.runs(scale) if sources.has_records(scale) else pd.DataFrame(columns=["row"])
    gaps, complete, pairs = {}, True, [pair for _, pair in sorted(how.trend.items())]
    for epochs, pair in sorted(how.trend.items()):
        planned = sorted(set.intersection(*(sources.seeds(scale, row) for row in pair)))[: min(how.looks)]
        look = Look(len(planned), named=tuple(planned))
        runs = [look.of(of_row(frame, row, "accuracy.test_last")) for row in pair]
        complete = complete and comparable(runs) >= look.seeds
        gaps[epochs] = contrast([measured(each) for each in runs], (1.0, -1.0))
    found: dict[str, Any] = {
        "gaps": {str(epochs): {"effect": gap.mean, "n": gap.n, "error": gap.error} for epochs, gap in gaps.items()},
        "row": min((row for row, _ in pairs), key=len),  # the one without the tag of another length
        "base": min((base for _, base in pairs), key=len),
        "complete": complete,
        "at": how.full,
        "level": LEVEL,
        **UNKNOWN,
    }
    if len(gaps) < 2 or not complete or not all(gap.known and gap.error for gap in gaps.values()):
        return found
    design = np.column_stack([np.ones(len(gaps)), np.log2(np.array(list(gaps)) / how.full)])
    weight = np.array([gap.error**-2 for gap in gaps.values()])
    covariance = np.linalg.inv(design.T * weight @ design)
    level, slope = covariance @ (design.T * weight) @ np.array([gap.mean for gap in gaps.values()])
    quantile = float(stats.t.ppf((1 + LEVEL) / 2, sum(gap.df for gap in gaps.values())))
    half = quantile * math.sqrt(covariance[0, 0])
    return found | {"slope": float(slope), "extrapolated": float(level), "low": level - half, "high": level + half}


def told(found: dict[str, Any]) -> str:
    """The trend in words.

    Args:
        found: what `trend` returned, or the same read from JSON.
    """
    known = {epochs: gap for epochs, gap in found["gaps"].items() if gap["n"]}
    if not known:
        return f"Trend: the gap of {found['row']} to {found['base']} was not run at any length."
    gaps = ", ".join(f"{gap['effect']:+.2f} at {epochs} epochs (n = {gap['n']})" for epochs, gap in known.items())
    said = f"Trend: the gap of {found['row']} to {found['base']}, in points: {gaps}."
    if found["extrapolated"] is None:
        return f"{said} Claims of no loss wait until every length has its declared seeds."
    low, high = found["low"], found["high"]
    return (
        f"{said} A line over the logarithm of the epochs points at {found['extrapolated']:+.2f} [{low:+.2f}, "
        f"{high:+.2f}] ({found['level']:.0%}) at {found['at']} epochs: an extrapolation, which decides nothing."
    )
