"""Means over seeds and differences paired by seed, with 95 % intervals (Student's t)."""

import math
from collections.abc import Iterable
from typing import NamedTuple

import numpy as np
import pandas as pd
from scipy import stats


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
    """The estimate of `row` minus `other` over the seeds both have: seeds share data order and augmentation."""
    values = runs.pivot_table(index="seed", columns="row", values=column)
    if row not in values or other not in values:
        return estimate([])
    return estimate(values[row] - values[other])
