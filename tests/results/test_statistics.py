import math

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from spfde.results.statistics import (
    Effect,
    Variance,
    combined,
    contrast,
    estimate,
    exact,
    holm,
    one_sample,
    paired,
    paired_contrast,
    pooled_variance,
)

A, B, C = [70.1, 70.9, 70.4, 71.2], [69.2, 69.3, 69.9], [68.0, 68.1, 68.4, 68.9, 67.2]


def runs(values: list[float], hardware: str = "cpu", first: int = 1) -> dict[tuple[str, int], float]:
    return {(hardware, first + index): value for index, value in enumerate(values)}


def test_by_hand() -> None:
    known = estimate([70.0, 71.0, 72.0])
    assert (known.mean, known.std, known.n) == (71.0, 1.0, 3)
    half = 4.302652729911275 / math.sqrt(3)  # t of 0.975 at two degrees of freedom, from a table
    assert known.low == pytest.approx(71 - half)
    assert known.high == pytest.approx(71 + half)


def test_one_value_has_no_deviation_and_none_has_no_mean() -> None:
    single = estimate([70.0])
    assert (single.mean, single.n) == (70.0, 1)
    assert math.isnan(single.std) and math.isnan(single.low) and math.isnan(single.high)
    assert estimate([]).n == 0 and math.isnan(estimate([]).mean)
    assert estimate([math.nan, 70.0]).n == 1


@given(st.lists(st.floats(-100, 100), min_size=2, max_size=20))
def test_agrees_with_numpy_and_holds_the_mean(values: list[float]) -> None:
    known = estimate(values)
    assert known.mean == pytest.approx(np.mean(values), abs=1e-9)
    assert known.std == pytest.approx(np.std(values, ddof=1), abs=1e-9)
    assert known.low <= known.mean <= known.high


def test_differences_pair_by_seed() -> None:
    frame = pd.DataFrame(
        {
            "row": ["a", "a", "a", "b", "b", "b"],
            "seed": [1, 2, 3, 3, 2, 4],
            "accuracy.test_last": [10.0, 20.0, 30.0, 29.0, 18.0, 99.0],
        }
    )
    difference = paired(frame, "a", "b")  # seeds 2 and 3 are common: 20 - 18 and 30 - 29
    assert (difference.mean, difference.n) == (1.5, 2)
    assert difference.std == pytest.approx(math.sqrt(0.5))
    assert paired(frame, "a", "absent").n == 0


def test_differences_pair_within_the_hardware() -> None:
    """Seeds 1 and 2 of both rows, but on another machine: only seed 3 has both on one, and 5 has both on each."""
    where = [("a", "cuda", 1), ("a", "cuda", 2), ("b", "cpu", 1), ("b", "cpu", 2), ("a", "cpu", 3), ("b", "cpu", 3)]
    where += [("a", "cpu", 5), ("b", "cpu", 5), ("a", "cuda", 5), ("b", "cuda", 5)]
    frame = pd.DataFrame(where, columns=["row", "environment.device", "seed"])
    frame["accuracy.test_last"] = [70.0, 71.0, 60.0, 61.0, 64.0, 63.0, 62.0, 60.0, 73.0, 70.0]
    found = paired(frame, "a", "b")
    assert (found.n, found.mean, found.std) == (3, 2.0, 1.0)  # 1, 2 and 3
    assert paired(frame[frame["seed"] < 3], "a", "b").n == 0


@pytest.mark.parametrize("bound", [-0.3, 0.0, 0.8, 5.0])
def test_a_difference_is_welchs_test(bound: float) -> None:
    found = contrast([runs(A), runs(B)], (1, -1))
    for p, alternative in ((found.p_above(bound), "greater"), (found.p_below(bound), "less")):
        told = stats.ttest_ind(np.array(A) - bound, B, equal_var=False, alternative=alternative)
        assert p == pytest.approx(told.pvalue)
    interval = stats.ttest_ind(A, B, equal_var=False).confidence_interval(0.9)
    assert found.interval(0.9) == pytest.approx((interval.low, interval.high))
    assert found.n == 3


def test_with_one_variance_for_both_it_is_students_and_with_pairs_the_paired_test() -> None:
    pooled = contrast([runs(A), runs(B)], (1, -1), pooled_variance([runs(A), runs(B)]))
    assert pooled.p_above(0) == pytest.approx(stats.ttest_ind(A, B, alternative="greater").pvalue)
    pairs = paired_contrast([runs(A), runs(B)], (1, -1))  # seeds 1 to 3 are in both
    assert pairs.p_above(0) == pytest.approx(stats.ttest_rel(A[:3], B, alternative="greater").pvalue)
    assert one_sample(A).p_below(71) == pytest.approx(stats.ttest_1samp(A, 71, alternative="less").pvalue)


def test_the_variance_of_three_rows_is_pooled_over_all() -> None:
    """The residual mean square of a one-way analysis of variance."""
    groups = [np.array(values) for values in (A, B, C)]
    squares = sum(((group - group.mean()) ** 2).sum() for group in groups)
    found = pooled_variance(map(runs, (A, B, C)))
    assert found == (pytest.approx(squares / 9), 9)


def test_a_contrast_of_three_rows_by_hand() -> None:
    """A - B / 2 - C / 2: its variance is the weighted sum, with Satterthwaite's degrees of freedom."""
    parts = [weight**2 * np.var(values, ddof=1) / len(values) for weight, values in ((1, A), (0.5, B), (0.5, C))]
    found = contrast([runs(A), runs(B), runs(C)], (1, -0.5, -0.5))
    assert found.mean == pytest.approx(np.mean(A) - np.mean(B) / 2 - np.mean(C) / 2)
    assert found.error == pytest.approx(math.sqrt(sum(parts)))
    assert found.df == pytest.approx(sum(parts) ** 2 / (parts[0] ** 2 / 3 + parts[1] ** 2 / 2 + parts[2] ** 2 / 4))


def test_runs_of_other_hardware_are_compared_within_it() -> None:
    """Two points between the machines are no spread between seeds; a machine with one row alone says nothing."""
    shift = [value + 2 for value in A]
    slow = [value + 2 for value in B]
    both = contrast([runs(A) | runs(shift, "gpu", 11), runs(B) | runs(slow, "gpu", 11)], (1, -1))
    alone = contrast([runs(A), runs(B)], (1, -1))
    assert both.mean == pytest.approx(alone.mean) and both.n == 6
    assert both.error == pytest.approx(alone.error / math.sqrt(2))  # same variances within, twice the runs
    mixed = contrast([runs(A) | runs(shift, "gpu", 11), runs(B)], (1, -1))
    assert mixed == pytest.approx(alone)
    assert contrast([runs(A), runs(B, "gpu")], (1, -1)).n == 0


def test_hardware_weighs_by_its_runs() -> None:
    """Of n and m runs the weight is n m / (n + m): 2 x 2 / 4 = 1 and 4 x 4 / 8 = 2."""
    first = [runs([1.0, 1.2]) | runs([3.0, 3.1, 2.9, 3.0], "gpu", 11), runs([0.0, 0.2]) | runs([1.0] * 4, "gpu", 11)]
    assert contrast(first, (1, -1)).mean == pytest.approx((1 * 1.0 + 2 * 2.0) / 3)


def test_single_runs_have_an_effect_without_an_error() -> None:
    found = contrast([runs([70.0]), runs([69.0])], (1, -1))
    assert found.mean == 1.0 and found.n == 1 and not found.known
    assert not contrast([runs([70.0]), {}], (1, -1)).known


def test_what_is_computed_has_no_interval() -> None:
    assert exact(0.73).interval() == (0.73, 0.73)
    assert (exact(0.73).p_above(0.7), exact(0.73).p_above(0.73), exact(0.73).p_above(0.74)) == (0, 0, 1)
    assert (exact(0.73).p_below(0.7), exact(0.73).p_below(math.inf)) == (1, 0)


def test_an_uncertain_bound_widens() -> None:
    """Two equal variances with 4 degrees of freedom each make 8 (Satterthwaite)."""
    found = Effect(1.0, 0.3, 4, 5).widened(Variance(0.09, 4))
    assert (found.mean, found.error, found.df) == (1.0, pytest.approx(0.3 * math.sqrt(2)), pytest.approx(8))
    assert combined([Variance(0.0, 3), Variance(0.0, 4)]) == (0.0, 7)


def test_holm_by_hand() -> None:
    """0.01 x 3, then 0.02 x 2, then 0.04 x 1, none below the one before it."""
    assert holm([0.04, 0.01, 0.02]) == pytest.approx([0.04, 0.03, 0.04])
    assert holm([0.04, 0.01], total=4) == pytest.approx([0.12, 0.04])  # two were planned and not made
    assert holm([0.7, 0.6]) == [1.0, 1.0] and holm([]) == []


@given(st.lists(st.floats(0, 1), min_size=1, max_size=8))
def test_holm_lies_between_each_test_and_bonferroni(p_values: list[float]) -> None:
    for p, adjusted in zip(p_values, holm(p_values), strict=True):
        assert p <= adjusted <= min(1.0, len(p_values) * p) + 1e-12
    least = min(range(len(p_values)), key=lambda index: p_values[index])
    assert holm(p_values)[least] == pytest.approx(min(1.0, len(p_values) * p_values[least]))
