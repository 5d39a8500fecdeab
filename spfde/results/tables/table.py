"""A table, independent of its output format: tidy values, and columns that say how a row of values is printed."""

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import pandas as pd

NOT_RUN = "not run"
ON_MASK = "depends on the mask"  # in place of a cost that no plan can know
NOT_AVAILABLE = "not available"
SUPERSCRIPTS = str.maketrans("0123456789-", "⁰¹²³⁴⁵⁶⁷⁸⁹⁻")


class Column(NamedTuple):
    """A printed column: its title, the text it makes of a row of values, the title it shares with its neighbours.

    Sentences (`wraps`) may be broken into lines.
    """

    title: str
    text: Callable[[Any], str]
    group: str = ""
    numeric: bool = True
    wraps: bool = False


@dataclass(frozen=True)
class Table:
    """
    Args:
        name: file name without suffix.
        title: one line.
        values: one row for each printed row, numbers unrounded and in base units (percent, FLOPs, bytes, fractions).
        columns: how they are printed.
        seeds: the values of each seed behind them.
        notes: sentences below the table; *stars* emphasise.
        parted_by: the column of `values` whose change starts a new group of rows.
    """

    name: str
    title: str
    values: pd.DataFrame
    columns: list[Column]
    seeds: pd.DataFrame
    notes: list[str] = field(default_factory=list)
    parted_by: str = ""

    @property
    def cells(self) -> list[list[str]]:
        """The printed text, row by row."""
        return [[column.text(row) for column in self.columns] for row in self.values.to_dict("records")]

    @property
    def parts(self) -> list[bool]:
        """Whether a row starts a new group of rows (the first never does)."""
        if not self.parted_by:
            return [False] * len(self.values)
        key = self.values[self.parted_by].tolist()
        return [bool(index) and key[index] != key[index - 1] for index in range(len(key))]

    @property
    def groups(self) -> list[tuple[str, int]]:
        """The shared titles over the columns, each with the number of columns it spans."""
        spans: list[tuple[str, int]] = []
        for column in self.columns:
            if spans and column.group and spans[-1][0] == column.group:
                spans[-1] = (column.group, spans[-1][1] + 1)
            else:
                spans.append((column.group, 1))
        return spans


def exponent(values: Iterable[float]) -> int:
    """The power of ten, a multiple of three, that leaves the largest value between 1 and 1000.

    >>> exponent([1.32e16, 2.6e14])
    15
    """
    largest = max((abs(value) for value in values if math.isfinite(value)), default=0.0)
    return 3 * (math.floor(math.log10(largest)) // 3) if largest else 0


def decimals(values: Iterable[float], power: int, digits: int) -> int:
    """Decimals that show values scaled by a power of ten: `digits`, or one fewer from 100 on."""
    largest = max((value for value in values if math.isfinite(value)), default=0.0)
    return digits - (largest >= 100 * 10**power)


def times_ten(power: int) -> str:
    """A power of ten in a title, e.g. "×10¹⁵"."""
    return f"×10{str(power).translate(SUPERSCRIPTS)}"


def bytes_unit(power: int) -> str:
    """The name of a power of ten of bytes, e.g. "MB" for 6."""
    return {0: "B", 3: "kB", 6: "MB", 9: "GB", 12: "TB"}[power]


def cost_text(value: float, form: str) -> str:
    """A cost as text; "depends on the mask" where no plan can know it and nothing was run.

    >>> cost_text(1.25, ".1f"), cost_text(float("nan"), ".1f")
    ('1.2', 'depends on the mask')
    """
    return ON_MASK if math.isnan(value) else f"{value:{form}}"


def plus_minus(mean: float, std: float) -> str:
    """A mean and its standard deviation, e.g. "71.30 ± 0.31"; without a deviation the mean alone."""
    return f"{mean:.2f}" if math.isnan(std) else f"{mean:.2f} ± {std:.2f}"
