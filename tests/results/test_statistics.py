import math

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from spfde.results.statistics import estimate, paired


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
    runs = pd.DataFrame(
        {
            "row": ["a", "a", "a", "b", "b", "b"],
            "seed": [1, 2, 3, 3, 2, 4],
            "accuracy.test_last": [10.0, 20.0, 30.0, 29.0, 18.0, 99.0],
        }
    )
    difference = paired(runs, "a", "b")  # seeds 2 and 3 are common: 20 - 18 and 30 - 29
    assert (difference.mean, difference.n) == (1.5, 2)
    assert difference.std == pytest.approx(math.sqrt(0.5))
    assert paired(runs, "a", "absent").n == 0
