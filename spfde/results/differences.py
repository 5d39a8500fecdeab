"""What the headline's accuracies show: differences of its rows, paired by seed, with permutation intervals.

A few seeds of short runs are far from normal: their distributions are skewed, as a run now and then fails to learn.
These intervals assume only that a difference's sign is as likely to be plus as minus around its centre.
"""

import itertools
import math
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from spfde.experiments.files import read_scale
from spfde.results.labels import label, levels, percent
from spfde.results.material import Material
from spfde.results.statistics import paired_differences
from spfde.results.tables.table import NOT_RUN, Column, Table

LEVEL = 0.95
LEAST = 0.90  # an interval that holds the centre less often shows no direction; four seeds allow 87.5 %, five 93.75 %
SUBSETS = 1 << 14  # more subsets than these are sampled, not listed


class Interval(NamedTuple):
    """The mean of paired differences, the interval of its centre, and how often such an interval holds the centre."""

    mean: float
    n: int
    low: float
    high: float
    level: float


def permutation_interval(differences: Iterable[float], level: float = LEVEL) -> Interval:
    """The centres that a sign-flip permutation test of the mean does not reject.

    The means of all subsets of n differences cut the line into 2^n parts, each of which holds the centre equally often
    (Hartigan, Journal of the American Statistical Association 64, 1969). So few seeds as five allow no 95 %: the widest
    interval, from the smallest difference to the largest, holds the centre in 1 - 2 / 2^n of all cases, 93.75 %.

    >>> permutation_interval([1.0, 2.0, 4.0])
    Interval(mean=2.33..., n=3, low=1.0, high=4.0, level=0.75)
    """
    known = np.asarray([value for value in differences if not math.isnan(value)], dtype=float)
    n = len(known)
    if n < 2:
        return Interval(float(known.mean()) if n else math.nan, n, math.nan, math.nan, math.nan)
    if 1 << n <= SUBSETS:
        chosen = np.asarray(list(itertools.product((0, 1), repeat=n))[1:], dtype=float)
    else:
        chosen = np.random.default_rng(0).integers(0, 2, (SUBSETS - 1, n)).astype(float)
        chosen = chosen[chosen.any(axis=1)]
    means = np.sort(chosen @ known / chosen.sum(axis=1))
    parts = len(means) + 1
    cut = max(1, math.floor((1 - level) / 2 * parts))  # parts left out at each end
    return Interval(float(known.mean()), n, float(means[cut - 1]), float(means[-cut]), 1 - 2 * cut / parts)


def compared(material: Material, rows: Iterable[str]) -> list[tuple[dict[str, Any], dict[str, Any]]]:
    """Pairs of planned rows among these: dynamic masks against a static one, freezing and sieving against neither.

    Freezing and sieving stand against SpFDE without both, or where that was not planned against MEST+EM&S.
    """
    among = set(rows)
    plan = [row for row in material.plan if row["row"] in among]
    plain = {row["method"]: row for row in plan if not row["freezing"] and not row["sieving"]}
    static, base = plain.get("static"), plain.get("spfde", plain.get("mest-ems"))
    pairs = [(row, static) for row in plain.values() if static and row["sparsity"] and row is not static]
    pairs += [(row, base) for row in plan if base and (row["freezing"] or row["sieving"])]
    return pairs


def differences(material: Material, rows: Iterable[str]) -> Table:
    """A row per comparison, in points of test accuracy after the last epoch, over the seeds that both have.

    Runs on different hardware are no pairs.
    """
    values = pd.DataFrame([_values(material, *pair) for pair in compared(material, rows)])
    return Table(
        name="differences",
        title="Differences in accuracy, paired by seed",
        values=values,
        columns=[
            Column("Method", lambda row: row["method"], numeric=False),
            Column("Against", lambda row: row["against"], numeric=False),
            Column("Points", lambda row: f"{row['mean']:+.2f}" if row["n"] else NOT_RUN),
            Column("Interval", _interval),
            Column("n", lambda row: str(row["n"])),
        ],
        seeds=material.runs,
        notes=[
            "Intervals: the centres that a paired permutation test (sign flips) does not reject. With n seeds the "
            f"widest one holds the centre in 1 − 2 / 2ⁿ of all cases, so that fewer than six allow no {LEVEL:.0%}; the "
            "level stands beside each."
        ],
        parted_by="against",
    )


def sentence(material: Material, table: Table) -> str:
    """What the differences say, in one sentence that a reader can check against the table.

    At a scale with a protocol it says no direction: words are said at the declared looks alone, by the claims.
    """
    told = [_told(row) for row in table.values.to_dict("records") if row["n"] > 1]
    if not told:
        return "No difference was measured with more than one seed."
    if read_scale(material.scale).protocol:
        return (
            f"Scale {material.scale} has a protocol, by which words are said at declared looks only: read the claims "
            "and the table of the study's questions (tables/study). The intervals here describe the runs so far."
        )
    sparsity = max(row["sparsity"] for row in table.values.to_dict("records"))
    counts = sorted({row["n"] for row in table.values.to_dict("records") if row["n"] > 1})
    seeds = " to ".join(str(count) for count in dict.fromkeys([counts[0], counts[-1]]))
    return f"At {percent(sparsity)} sparsity, over {seeds} seeds at scale {material.scale}: {'; '.join(told)}."


def _values(material: Material, row: dict[str, Any], other: dict[str, Any]) -> dict[str, Any]:
    found = permutation_interval(paired_differences(material.runs, row["row"], other["row"]))
    names = {"method": _name(row), "against": _name(other), "sparsity": row["sparsity"]}
    return {"row": row["row"], **names, **found._asdict()}


def _name(row: dict[str, Any]) -> str:
    if row["method"] != "spfde":
        return label(row)
    return f"{label(row)} {levels(row) if row['freezing'] or row['sieving'] else '0+0'}"


def _interval(row: dict[str, Any]) -> str:
    return "–" if math.isnan(row["low"]) else f"[{row['low']:+.2f}, {row['high']:+.2f}] ({100 * row['level']:.4g} %)"


def _told(row: Mapping[Any, Any]) -> str:
    if row["level"] < LEAST:
        return f"{row['n']} seeds are too few to tell {row['method']} from {row['against']} ({row['mean']:+.1f})"
    size = f"by {abs(row['mean']):.1f} points"
    if row["low"] > 0:
        return f"{row['method']} is above {row['against']} {size}"
    if row["high"] < 0:
        return f"{row['method']} is below {row['against']} {size}"
    return f"{row['method']} and {row['against']} cannot be told apart ({row['mean']:+.1f})"
