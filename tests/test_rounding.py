"""The one rule for counts, by hand and against exact decimals."""

from decimal import ROUND_CEILING, ROUND_FLOOR, ROUND_HALF_UP, Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from spfde.rounding import count_of, down, half_up, up


@pytest.mark.parametrize(
    ("share", "total", "expected"),
    [
        (0.1, 100, 10),
        (0.1, 15, 2),
        (1 - 0.9, 15, 2),
        (0.5, 5, 3),
        (0.0, 7, 0),
        (1.0, 7, 7),
        (1.2, 7, 7),
        (0.02, 24, 0),
        (0.02, 25, 1),
        (0.29, 50, 15),
    ],
)
def test_counts_round_half_up(share: float, total: int, expected: int) -> None:
    assert count_of(share, total) == expected


@given(st.integers(0, 10_000), st.integers(0, 50_000))
def test_shares_written_in_decimal_are_taken_as_written(thousandths: int, total: int) -> None:
    """A share of up to four decimals, computed as 1 - (1 - share), rounds as the decimal number does."""
    exact, computed = Decimal(thousandths) / 10_000 * total, (1 - (1 - thousandths / 10_000)) * total
    assert half_up(computed) == int(exact.quantize(Decimal(1), ROUND_HALF_UP))
    assert up(computed) == int(exact.quantize(Decimal(1), ROUND_CEILING))
    assert down(computed) == int(exact.quantize(Decimal(1), ROUND_FLOOR))
