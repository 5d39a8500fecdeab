"""The table of measured times: when a ratio is known, and what of it stays for other processes."""

import itertools
import json
import pwd
from collections.abc import Callable, Iterable
from pathlib import Path

import pytest

from spfde.kernels.table import FEWEST, MOST, Table, Times, compare

MACHINE = {"processor": "one", "threads": 1}


def turns(pairs: Iterable[tuple[float, float]]) -> tuple[Callable[[], tuple[float, float]], list[int]]:
    """A fake timing that gives these pairs in order, and how often it was asked."""
    left, asked = iter(pairs), [0]

    def pair() -> tuple[float, float]:
        asked[0] += 1
        return next(left)

    return pair, asked


def test_steady_ratios_are_known_after_the_fewest_pairs() -> None:
    pair, asked = turns([(50, 1), *itertools.repeat((1.0, 1.05), 99)])  # the first, cold one is not counted
    assert compare(pair) == Times(1.0, 1.05) and asked == [1 + FEWEST]


def test_a_slow_moment_of_the_machine_meets_both_and_counts_for_nothing() -> None:
    pair, _ = turns([(1, 1), (1.0, 1.5), (30.0, 45.0), (1.0, 1.5), (1.1, 1.65), (1.0, 1.5)])
    times = compare(pair)
    assert times and times.dense / times.sparse == pytest.approx(1.5)


def test_a_wide_but_clear_ratio_is_known() -> None:
    pair, asked = turns([(1, 1), (1.0, 2.0), (1.0, 4.0), (1.0, 2.0), (1.0, 4.0)])
    times = compare(pair)
    assert times and times.dense > times.sparse and asked == [1 + FEWEST]


def test_what_never_settles_is_not_known() -> None:
    pair, asked = turns(itertools.cycle([(1.0, 0.2), (1.0, 5.0)]))
    assert compare(pair) is None and asked == [1 + MOST]


def test_entries_are_found_by_every_process_of_the_same_machine_alone(tmp_path: Path) -> None:
    one, two = Table(MACHINE, tmp_path), Table(MACHINE, tmp_path)
    assert two.find("a block") is None
    one.keep("a block", Times(1.0, 2.0))
    two.keep("a layer", Times(4.0, 3.0))
    assert two.find("a block") == Times(1.0, 2.0) and one.find("a layer") == Times(4.0, 3.0)
    assert Table({**MACHINE, "threads": 2}, tmp_path).find("a block") is None
    assert one.folder and json.loads((one.folder / "machine.json").read_text()) == {"processor": "one", "threads": "1"}


def test_a_damaged_entry_is_none_and_is_replaced(tmp_path: Path) -> None:
    Table(MACHINE, tmp_path).keep("a block", Times(1.0, 2.0))
    (path,) = (path for path in tmp_path.rglob("*.json") if path.name != "machine.json")
    for text in ("", "{}", '{"work": "a block", "sparse": -1, "dense": 2}', '{"work": "b", "sparse": 1, "dense": 2}'):
        path.write_text(text)
        table = Table(MACHINE, tmp_path)
        assert table.find("a block") is None
    table.keep("a block", Times(3.0, 4.0))
    assert Table(MACHINE, tmp_path).find("a block") == Times(3.0, 4.0)


def test_where_nothing_can_be_written_the_table_lasts_as_long_as_the_process(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    table = Table(MACHINE, tmp_path / "file")
    table.keep("a block", Times(1.0, 2.0))
    assert table.find("a block") == Times(1.0, 2.0)


def test_a_user_without_a_home_has_a_table_for_the_process_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """As in a container that runs under a number that no user has."""

    def nobody(_: int) -> None:
        raise KeyError

    monkeypatch.setattr(pwd, "getpwuid", nobody)
    for name in ("HOME", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    table = Table(MACHINE)
    assert table.find("a block") is None
    table.keep("a block", Times(1.0, 2.0))
    assert table.find("a block") == Times(1.0, 2.0) and Table(MACHINE).find("a block") is None
