"""Power against the noncentral t distribution, simulations and published constants."""

import math

import numpy as np
import pytest
from scipy import stats

from spfde.results.hypotheses import Test as Bounds
from spfde.results.hypotheses import judge, make
from spfde.results.power import Design, decidable, overall_level, power, seeds_needed
from spfde.results.statistics import Variance, contrast

SUPERIOR, SIMILAR = make("superiority", smallest=0.5), make("equivalence", 0.5)


@pytest.mark.parametrize(("n", "effect", "level"), [(3, 0.5, 0.05), (5, 0.3, 0.03), (8, 0.0, 0.03), (8, -0.2, 0.05)])
def test_one_bound_is_the_noncentral_t(n: int, effect: float, level: float) -> None:
    variance = Design(0.3).variance(n)
    error = math.sqrt(variance.value)
    assert error == pytest.approx(0.3 * math.sqrt(2 / n)) and variance.df == 2 * (n - 1)
    told = stats.nct.sf(stats.t.ppf(1 - level, variance.df), variance.df, effect / error)
    assert power(SUPERIOR, effect, variance, level) == pytest.approx(told, abs=1e-4)


def test_the_power_of_two_one_sided_tests_is_what_they_show_in_simulations() -> None:
    random, n, std = np.random.default_rng(1), 5, 0.3
    shown = 0
    for _ in range(1500):
        rows = [{("cpu", seed): float(value) for seed, value in enumerate(random.normal(0, std, n))} for _ in range(2)]
        shown += judge([SIMILAR], [contrast(rows, (1, -1))])[0].word == "reproduced"
    told = power(SIMILAR, 0.0, Design(std).variance(n))
    assert 0.4 < told < 0.8
    assert shown / 1500 == pytest.approx(told, abs=0.05)  # four standard errors; Welch's degrees of freedom are fewer


def test_a_known_variance_gives_the_normal_distribution() -> None:
    error = 0.2
    bound = (0.5 - stats.norm.ppf(0.95) * error) / error
    assert power(SIMILAR, 0.0, Variance(error**2, math.inf)) == pytest.approx(2 * stats.norm.cdf(bound) - 1)


def test_the_seeds_needed_are_the_fewest_that_suffice() -> None:
    design = Design(0.3)
    for test, effect in ((SUPERIOR, 0.5), (SUPERIOR, 0.2), (SIMILAR, 0.0), (SIMILAR, 0.2)):
        n = seeds_needed(test, effect, design)
        assert n is not None
        assert power(test, effect, design.variance(n)) >= 0.8 > power(test, effect, design.variance(n - 1))
    assert seeds_needed(SIMILAR, 0.6, design) is None  # beyond the margin no number of seeds is enough
    uncertain = Design(0.3, published=Variance(0.25**2, 24))
    assert seeds_needed(make("magnitude", 0.3, 1.0, 1.0), 1.0, uncertain) is None  # nor beside so vague a number
    assert seeds_needed(make("magnitude", 1.5, 1.0, 1.0), 1.0, uncertain) is not None


def test_what_n_seeds_can_decide_is_where_they_reach_the_power() -> None:
    design = Design(0.3, level=0.03)
    for test in (SUPERIOR, SIMILAR):
        for n in (3, 5, 8):
            distance = decidable(test, design, n)
            assert distance is not None
            bounds = Bounds(above=-distance, below=distance if test is SIMILAR else math.inf)
            assert power(bounds, 0.0, design.variance(n), 0.03) == pytest.approx(0.8, abs=1e-3)
    assert decidable(SUPERIOR, design, 1) is None


def test_looks_that_share_their_seeds() -> None:
    """Two equally spaced looks at the bound of Pocock (Biometrika 64, 1977) have 2.5 % in all; one look has its own."""
    pocock = float(stats.norm.sf(2.178))
    assert overall_level({50: pocock, 100: pocock}) == pytest.approx(0.025, abs=2e-4)
    assert overall_level({3: 0.05}) == pytest.approx(0.05)
    assert 0.03 < overall_level({5: 0.03, 8: 0.03}) < 0.06
