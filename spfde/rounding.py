"""The one rule by which shares become counts.

A share of a whole is rarely exact in binary: 1 - 0.9 of 15 weights is 1.4999999999999996, where 1.5 is meant. Each
value is therefore rounded to six decimals before it is rounded to a whole number.
"""

import math


def count_of(share: float, total: int) -> int:
    """`share` of `total`, rounded to the nearest whole number, halves up; between 0 and `total`.

    This is the rule for active weights (never a Bernoulli draw), removed samples and frozen blocks.
    """
    return min(total, max(0, half_up(share * total)))


def half_up(value: float) -> int:
    """The whole number nearest to `value`; halves go up."""
    return math.floor(_exact(value) + 0.5)


def up(value: float) -> int:
    """The smallest whole number that is not below `value`: 0.1 x 30 gives 3, not 4."""
    return math.ceil(_exact(value))


def down(value: float) -> int:
    """The largest whole number that is not above `value`: 0.29 x 100 gives 29, not 28."""
    return math.floor(_exact(value))


def _exact(value: float) -> float:
    return round(value, 6)
