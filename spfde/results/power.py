"""How much a number of seeds can decide: the power of the tests, and the seeds that a claim needs.

Power is computed for the test as it is made: the estimate and its estimated error are independent, the estimate normal,
the error chi-squared around the true one. For one bound this is the noncentral t distribution; for two bounds (two
one-sided tests) it is their joint probability (Phillips, J. Pharmacokinet. Biopharm. 18, 1990).
"""

import bisect
import functools
import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from scipy import optimize, stats

from spfde.results.hypotheses import LEVEL, Test
from spfde.results.statistics import Variance, combined

WANTED = 0.8
MOST_SEEDS = 200
_QUANTILES = (np.arange(2000) + 0.5) / 2000


class Design(NamedTuple):
    """What determines the error of a claim's effect.

    Attributes:
        std: standard deviation over seeds, the same for all rows.
        weights: of the rows' means in the effect.
        published: variance of the published number that the effect is held against; 0 where it is a plain bound.
        level: of each one-sided test.
    """

    std: float
    weights: Sequence[float] = (1.0, -1.0)
    published: Variance = Variance(0.0, math.inf)
    level: float = LEVEL

    def variance(self, n: int) -> Variance:
        """The variance of the effect from n seeds per row."""
        squares = sum(weight**2 for weight in self.weights)
        own = Variance(self.std**2 * squares / n, len(self.weights) * (n - 1))
        return combined([own, self.published]) if self.published.value else own


def power(test: Test, effect: float, variance: Variance, level: float = LEVEL) -> float:
    """The probability that the test shows what the claim says, where the effect is this one in truth."""
    error = math.sqrt(variance.value)
    if not error:
        return float(test.above <= effect <= test.below)
    half = _half_widths(variance.df, level)
    least, most = (test.above - effect) / error + half, (test.below - effect) / error - half
    return float(np.maximum(stats.norm.cdf(most) - stats.norm.cdf(least), 0.0).mean())


def seeds_needed(test: Test, effect: float, design: Design, wanted: float = WANTED) -> int | None:
    """The fewest seeds per row that show an effect of this size with the wanted probability.

    None where more than 200 are needed, which includes where no number is enough: the bound is too near to the effect,
    or the published number too uncertain.
    """

    def enough(n: int) -> bool:
        return power(test, effect, design.variance(n), design.level) >= wanted

    first = bisect.bisect_left(range(2, MOST_SEEDS + 1), True, key=enough) + 2
    return first if first <= MOST_SEEDS else None


def decidable(test: Test, design: Design, n: int, wanted: float = WANTED) -> float | None:
    """How far the truth must lie inside the bounds of the claim for n seeds to show it with the wanted probability.

    For superiority this is the smallest effect that n seeds are likely to detect; for a claim of no difference, the
    smallest margin that they are likely to show. None below two seeds.
    """
    if n < 2:
        return None
    variance = design.variance(n)
    if not variance.value:
        return 0.0
    two_sided = math.isfinite(test.above) and math.isfinite(test.below)

    def short(distance: float) -> float:
        bounds = Test(above=-distance, below=distance if two_sided else math.inf)
        return power(bounds, 0.0, variance, design.level) - wanted

    return float(optimize.brentq(short, 0.0, 1000 * math.sqrt(variance.value), xtol=1e-6))


@functools.cache
def _half_widths(df: float, level: float) -> np.ndarray:
    """Half the width of the interval in true standard errors, over the distribution of the estimated error."""
    ratio = stats.chi2.ppf(_QUANTILES, df) / df if math.isfinite(df) else np.ones(1)
    return np.asarray(float(stats.t.ppf(1 - level, df)) * np.sqrt(ratio))


def overall_level(looks: Mapping[int, float]) -> float:
    """The probability that any of several looks rejects a true null hypothesis at its worst case (one-sided).

    Looks share their seeds: the estimates at n and m seeds correlate by the root of n / m, so this is less than the sum
    of the levels. (Normal approximation.)

    Args:
        looks: the level of each, by its number of seeds.
    """
    seeds = np.array(sorted(looks), dtype=float)
    bounds = stats.norm.ppf([1 - looks[int(n)] for n in seeds])
    correlation = np.sqrt(np.minimum.outer(seeds, seeds) / np.maximum.outer(seeds, seeds))
    return round(float(1 - stats.multivariate_normal(cov=correlation).cdf(bounds)), 4)
