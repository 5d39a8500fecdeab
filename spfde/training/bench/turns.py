"""Timing by turns: other work of the machine affects all candidates alike, and only ratios within a turn count."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import torch
from scipy import stats

from spfde.kernels import table

Job = Callable[[], Any]


class Ratio(NamedTuple):
    """A measured ratio.

    Attributes:
        name: what the ratio says.
        ratio: median over the turns.
        low, high: its 95 % interval by order statistics (all turns, where they are fewer than six).
        goal: what it should be; None if it is only shown beside the others.
        met: whether the goal is met.
        n: number of turns.
    """

    name: str
    ratio: float
    low: float
    high: float
    goal: float | None
    met: bool | None
    n: int


def clock() -> float:
    """Seconds, as `spfde.kernels.table.clock` counts them for the threads of torch."""
    return table.clock(torch.get_num_threads())


def take_turns(jobs: Mapping[str, Job], turns: int) -> pd.DataFrame:
    """Seconds of each job (columns) in each turn (rows), after a turn that does not count.

    What a job has to do before, and not in its time, is its method `prepare`.
    """
    rows = []
    for turn in range(turns + 1):
        seconds = {}
        for name, job in jobs.items():
            getattr(job, "prepare", lambda: None)()
            start = clock()
            job()
            seconds[name] = clock() - start
        if turn:
            rows.append(seconds)
    return pd.DataFrame(rows, columns=list(jobs))


def ratio(name: str, over: Any, under: Any, goal: float | None = None, at_most: bool = False) -> Ratio:
    """The ratio of two series of seconds, turn by turn.

    Args:
        name: what the ratio says.
        over: the numerator, seconds by turn, shape (turns,).
        under: the denominator, of the same shape.
        goal: what the ratio should be at least.
        at_most: `goal` is what it should be at most.
    """
    values = np.sort(np.asarray(over, dtype=float) / np.asarray(under, dtype=float))
    n, middle = len(values), float(np.median(values))
    rank = int(stats.binom.ppf(0.025, n, 0.5))  # so many values on either side are outside of the interval
    low, high = (values[rank - 1], values[n - rank]) if rank else (values[0], values[-1])
    met = None if goal is None else middle <= goal if at_most else middle >= goal
    return Ratio(name, middle, float(low), float(high), goal, met, n)


def line(row: Ratio) -> str:
    """A row as a line of text."""
    goal = "" if row.goal is None else f"  goal {row.goal:g}: {'met' if row.met else 'MISSED'}"
    return f"{row.name:66} {row.ratio:7.3g}  [{row.low:.3g}, {row.high:.3g}], n = {row.n}{goal}"


def frame(rows: list[Ratio]) -> pd.DataFrame:
    """The rows as a frame, one row each."""
    return pd.DataFrame(rows, columns=list(Ratio._fields))
