"""Timing by turns: what else the machine does meets all candidates alike, and ratios within a turn are what counts."""

import time
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import torch
from scipy import stats

Job = Callable[[], Any]


class Ratio(NamedTuple):
    """What was measured against what it is held against.

    Attributes:
        name: what.
        ratio: median over the turns.
        low, high: its 95 % interval by order statistics (all turns, where they are fewer than six).
        goal: what it should be; none where it is shown beside the others alone.
        met: whether it is.
        n: turns.
    """

    name: str
    ratio: float
    low: float
    high: float
    goal: float | None
    met: bool | None
    n: int


def clock() -> float:
    """Seconds. Of a single thread it is the time that the thread ran: neighbours on the machine do not count."""
    return time.thread_time() if torch.get_num_threads() == 1 else time.perf_counter()


def take_turns(jobs: Mapping[str, Job], turns: int) -> pd.DataFrame:
    """Seconds of each job (columns) in each turn (rows), after a turn that does not count."""
    rows = []
    for turn in range(turns + 1):
        seconds = {}
        for name, job in jobs.items():
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
    """A row for people."""
    goal = "" if row.goal is None else f"  goal {row.goal:g}: {'met' if row.met else 'MISSED'}"
    return f"{row.name:66} {row.ratio:7.3g}  [{row.low:.3g}, {row.high:.3g}], n = {row.n}{goal}"
