"""What a row that freezes or sieves is compared with: plain sparse training for fewer epochs, at no fewer FLOPs."""

from collections.abc import Mapping, Sequence
from typing import Any

MOST = 1.1  # times the row's FLOPs: beyond that the comparison favours plain training too much

ALIKE = ("blocks", "sparsity")

Row = dict[str, Any]


def comparators(plan: Sequence[Row]) -> dict[str, Row]:
    """For each row that freezes or sieves, by its name, the plain row of the next higher planned FLOPs.

    It has as many blocks, the same sparsity and fewer epochs, and no fewer and at most a tenth more FLOPs; rows without
    one are left out.

    Args:
        plan: planned rows of an experiment.
    """
    plain = [row for row in plan if is_plain(row)]
    found = {}
    for row in plan:
        fits = [
            each for each in plain if all(each[key] == row[key] for key in ALIKE) and epochs_of(each) < epochs_of(row)
        ]
        fits = [each for each in fits if _cost(row) <= _cost(each) <= MOST * _cost(row)]
        if fits and not is_plain(row):
            found[str(row["row"])] = min(fits, key=_cost)
    return found


def is_plain(row: Mapping[str, Any]) -> bool:
    """Whether nothing is frozen or sieved in a planned row."""
    return not (row["freezing"] or row["sieving"])


def epochs_of(row: Row) -> int:
    """Epochs of a planned row's training."""
    return len(row["frozen_blocks"])


def _cost(row: Row) -> float:
    return float(row["flops"]["paper"])
