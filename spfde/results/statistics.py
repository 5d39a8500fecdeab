"""Means over seeds, differences and other contrasts of rows, each with what is known of its error.

There are two views of the same runs. `estimate` and `paired` describe: a mean with its 95 % interval, as the tables
print it. `contrast` prepares a test: a weighted sum of the means of several rows, with Welch's standard error and
degrees of freedom (Welch, Biometrika 34, 1947; Satterthwaite, Biometrics 2, 1946), from which
`spfde.results.hypotheses` decides.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd
from scipy import stats

Runs = Mapping[tuple[str, int], float]  # the measured values of a row, by hardware and seed


class Estimate(NamedTuple):
    """Mean, standard deviation (n - 1 in the denominator), count, and the 95 % interval of the mean.

    Without values everything is NaN; with a single one the deviation and the interval are.
    """

    mean: float
    std: float
    n: int
    low: float
    high: float


def estimate(values: Iterable[float]) -> Estimate:
    """The estimate of a mean from independent values; NaN among them (not measured) are left out.

    >>> estimate([1.0, 2.0, 3.0])
    Estimate(mean=2.0, std=1.0, n=3, low=-0.484..., high=4.484...)
    """
    known = np.asarray([value for value in values if not math.isnan(value)], dtype=float)
    n = len(known)
    mean = float(known.mean()) if n else math.nan
    if n < 2:
        return Estimate(mean, math.nan, n, math.nan, math.nan)
    std = float(known.std(ddof=1))
    half = float(stats.t.ppf(0.975, n - 1)) * std / math.sqrt(n)
    return Estimate(mean, std, n, mean - half, mean + half)


def paired(runs: pd.DataFrame, row: str, other: str, column: str = "accuracy.test_last") -> Estimate:
    """The estimate of `row` minus `other`, over the seeds that both have on the same hardware."""
    return estimate(paired_differences(runs, row, other, column))


def paired_differences(
    runs: pd.DataFrame, row: str, other: str, column: str = "accuracy.test_last"
) -> "pd.Series[float]":
    """`row` minus `other` by hardware and seed, NaN where one of them has no run.

    Seeds share data order and augmentation. Runs made on different hardware are compared within their hardware only.

    Args:
        runs: the tidy frame of `spfde.results.collect`; where it has no "environment.device", all are of one hardware.
        row: the row that is compared.
        other: the row that it is compared with.
        column: what is compared.

    Returns:
        The differences; none where one of the rows has no value.
    """
    hardware = runs["environment.device"].fillna("unknown") if "environment.device" in runs else "unknown"
    values = runs.assign(hardware=hardware).pivot_table(index=["hardware", "seed"], columns="row", values=column)
    if row not in values or other not in values:
        return pd.Series(dtype=float)
    return values[row] - values[other]


class Effect(NamedTuple):
    """An effect and the error of its estimate.

    Attributes:
        mean: the estimate; NaN where nothing was measured.
        error: its standard error; 0 for what is computed and not measured, NaN where the spread is unknown.
        df: degrees of freedom of the error.
        n: runs of the row that has the fewest.
    """

    mean: float
    error: float
    df: float
    n: int

    @property
    def known(self) -> bool:
        """Whether there is an estimate with an error."""
        return not (math.isnan(self.mean) or math.isnan(self.error))

    def p_above(self, bound: float) -> float:
        """The P value of the test whose alternative says that the effect is above the bound (one-sided)."""
        if math.isinf(bound) or not self.error:
            return float(self.mean < bound)
        return float(stats.t.sf((self.mean - bound) / self.error, self.df))

    def p_below(self, bound: float) -> float:
        """The P value of the test whose alternative says that the effect is below the bound (one-sided)."""
        return self.mirrored().p_above(-bound)

    def mirrored(self) -> "Effect":
        return self._replace(mean=-self.mean)

    def interval(self, level: float = 0.95) -> tuple[float, float]:
        """The two-sided interval of the effect; NaN without an error."""
        half = self.error and float(stats.t.ppf((1 + level) / 2, self.df)) * self.error
        return self.mean - half, self.mean + half

    def widened(self, other: "Variance") -> "Effect":
        """The effect with the variance of an independent quantity added to its own."""
        own = Variance(self.error**2, self.df)
        total = combined([own, other])
        return self._replace(error=math.sqrt(total.value), df=total.df)


class Variance(NamedTuple):
    """An estimate of a variance and its degrees of freedom."""

    value: float
    df: float


UNKNOWN = Effect(math.nan, math.nan, math.nan, 0)


def exact(value: float) -> Effect:
    """An effect without noise: computed, not measured."""
    return Effect(value, 0.0, math.inf, 1)


def one_sample(values: Iterable[float]) -> Effect:
    """The mean of independent values, as a test takes it (Student)."""
    found = estimate(values)
    return Effect(found.mean, found.std / math.sqrt(found.n), found.n - 1, found.n) if found.n else UNKNOWN


def combined(parts: Sequence[Variance]) -> Variance:
    """The variance of a sum of independent quantities, with Satterthwaite's degrees of freedom."""
    total = sum(part.value for part in parts)
    if not total:
        return Variance(total, sum(part.df for part in parts))
    return Variance(total, 1 / sum((part.value / total) ** 2 / part.df for part in parts if part.value))


def contrast(rows: Sequence[Runs], weights: Sequence[float], common: Variance | None = None) -> Effect:
    """A weighted sum of the means of rows, e.g. weights (1, -1) for a difference.

    Runs made on different hardware are compared within their hardware only: the contrast is formed for each hardware
    that has runs of every row, and these are averaged, each with the weight that equal variances would give it. With
    one hardware this is Welch's test.

    Args:
        rows: the runs of each row.
        weights: what each mean is multiplied with.
        common: one variance for all rows, with its degrees of freedom, in place of each row's own (`pooled_variance`).

    Returns:
        The effect; its error is NaN where a row has a single run on each hardware and `common` is not given.
    """
    strata = [_by_hardware(runs) for runs in rows]
    shared = [name for name in strata[0] if all(name in row for row in strata)]
    if not shared:
        return UNKNOWN
    precision = {
        name: 1 / sum(w**2 / len(row[name]) for w, row in zip(weights, strata, strict=True)) for name in shared
    }
    share = {name: value / sum(precision.values()) for name, value in precision.items()}
    mean, parts = 0.0, []
    for weight, row in zip(weights, strata, strict=True):
        mean += weight * sum(share[name] * float(row[name].mean()) for name in shared)
        own = common or _within([row[name] for name in shared])
        spread = sum(share[name] ** 2 / len(row[name]) for name in shared)
        parts.append(Variance(weight**2 * own.value * spread, own.df))
    n = min(sum(len(row[name]) for name in shared) for row in strata)
    if any(math.isnan(part.value) for part in parts):
        return Effect(mean, math.nan, math.nan, n)
    total = Variance(sum(part.value for part in parts), common.df) if common else combined(parts)
    return Effect(mean, math.sqrt(total.value), total.df, n)


def paired_contrast(rows: Sequence[Runs], weights: Sequence[float]) -> Effect:
    """The same sum formed seed by seed, over the seeds that every row has on the same hardware (Student)."""
    shared = [key for key in rows[0] if all(key in runs for runs in rows)]
    return one_sample(sum(w * runs[key] for w, runs in zip(weights, rows, strict=True)) for key in shared)


def pooled_variance(rows: Iterable[Runs]) -> Variance:
    """The variance within rows and hardware, as if it were the same in all of them."""
    return _within([values for runs in rows for values in _by_hardware(runs).values()])


def holm(p_values: Sequence[float], total: int | None = None) -> list[float]:
    """P values adjusted for testing several hypotheses at once (Holm, Scand. J. Statist. 6, 1979).

    Args:
        p_values: one for each test that could be made.
        total: how many were planned, where some could not be made yet; they count as not rejected.
    """
    planned = max(total or 0, len(p_values))
    order = sorted(range(len(p_values)), key=lambda index: p_values[index])
    adjusted, least = [1.0] * len(p_values), 0.0
    for rank, index in enumerate(order):
        least = max(least, min(1.0, (planned - rank) * p_values[index]))
        adjusted[index] = least
    return adjusted


def _by_hardware(runs: Runs) -> dict[str, np.ndarray]:
    names = dict.fromkeys(hardware for hardware, _ in runs)
    return {name: np.array([value for (where, _), value in runs.items() if where == name]) for name in names}


def _within(groups: Sequence[np.ndarray]) -> Variance:
    """The variance of values around the means of their groups."""
    df = sum(len(group) - 1 for group in groups)
    if not df:
        return Variance(math.nan, math.nan)
    return Variance(sum(float(((group - group.mean()) ** 2).sum()) for group in groups) / df, df)
