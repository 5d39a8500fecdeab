"""Situations at a reduced scale: other margins, two looks at 3 %, and words that are never the paper's."""

import math
from collections.abc import Mapping
from typing import Any

import pandas as pd
import pytest
from scipy import stats

from spfde.results.claims import Reduced, read
from spfde.settings import parse
from tests.results.situations import BASE, NO_WORSE, STATIC, SUPERIOR, A, B, Row, claim, frame, magnitude

SHORT = "cifar100-short"
GAP: dict[str, Row] = {BASE: (60, 0.3, 8), STATIC: (56, 0.3, 8)}
TREND: dict[str, Row] = {"spfde-s90-f25-d25-t16": (50, 0.3, 4), "spfde-s90-t16": (51, 0.3, 4)}
TREND |= {"spfde-s90-f25-d25-t64": (65, 0.3, 4), "spfde-s90-t64": (65.2, 0.3, 4)}


def short(rows: Mapping[str, Row]) -> pd.DataFrame:
    """Runs at the reduced scale of the rows that stand there for these."""
    stand_in = read().reduced[SHORT].row
    return frame({stand_in(row): told for row, told in rows.items()}, SHORT)


REDUCED: dict[str, tuple[dict[str, Any], dict[str, Row], str]] = {
    "a gain above the smallest of interest": (SUPERIOR, {A: (61, 0.3, 5), B: (60, 0.3, 5)}, "supported"),
    "no gain": (SUPERIOR, {A: (60, 0.1, 5), B: (60, 0.1, 5)}, "not supported"),
    "a gain below the smallest of interest": (SUPERIOR, {A: (60.1, 0.03, 5), B: (60, 0.03, 5)}, "not supported"),
    "a gain lost in the spread, at the last look": (SUPERIOR, {A: (60.3, 1, 8), B: (60, 1, 8)}, "undecided"),
    "the same at the first look": (SUPERIOR, {A: (60.3, 1, 5), B: (60, 1, 5)}, "undecided (interim)"),
    "a clear gain before the first look": (SUPERIOR, {A: (63, 0.2, 4), B: (60, 0.2, 4)}, "undecided (interim)"),
    "no loss": (NO_WORSE, {A: (60, 0.3, 8), **GAP, **TREND}, "supported"),
    "no loss, but nobody knows how it goes on with longer training": (
        NO_WORSE,
        {A: (60, 0.3, 8), **GAP},
        "undecided (interim)",
    ),
    "a loss of less than a point that is more than half of what dynamic sparsity gains": (
        NO_WORSE,
        {A: (59.4, 0.1, 8), **TREND, BASE: (60, 0.1, 8), STATIC: (59.3, 0.1, 8)},
        "not supported",
    ),
    "a loss of two points": (NO_WORSE, {A: (58, 0.3, 8), **GAP, **TREND}, "not supported"),
    "nothing was run": (SUPERIOR, {}, "not run"),
}


@pytest.mark.parametrize("name", REDUCED)
def test_words_at_a_reduced_scale(decide: Any, name: str) -> None:
    told, rows, expected = REDUCED[name]
    found = decide(claim(**told), short(rows), SHORT)
    assert found["verdict"] == "not run"  # never the paper's
    assert found["reduced"]["verdict"] == expected and found["reduced"]["scale"] == SHORT


def test_a_reduced_verdict_stands_with_its_numbers(decide: Any) -> None:
    found = decide(claim(**SUPERIOR), short({A: (61, 0.3, 5), B: (60, 0.3, 5)}), SHORT)["reduced"]
    half = stats.t.ppf(0.97, 8) * 0.3 * math.sqrt(2 / 5)
    assert (found["n"], found["effect"], found["level"]) == (5, pytest.approx(1.0), 0.03)
    assert (found["low"], found["high"]) == (pytest.approx(1 - half), pytest.approx(1 + half))
    told = stats.nct.sf(stats.t.ppf(0.97, 8), 8, 0.3 / (0.3 * math.sqrt(2 / 5)))
    assert found["power"] == pytest.approx(told, abs=1e-3) and found["margin"] == 0.3


def test_seeds_after_a_look_change_nothing_before_the_next(decide: Any) -> None:
    """Decided at five seeds, it stays; undecided there, six and seven say nothing; beyond eight none count."""
    for n in (5, 6, 7):
        runs = short({A: (61, 0.3, 5), B: (60, 0.3, 5)})
        more = short({A: (50, 0.3, n), B: (60, 0.3, n)})
        more = more[more["seed"] > 5]
        found = decide(claim(**SUPERIOR), pd.concat([runs, more], ignore_index=True), SHORT)["reduced"]
        assert (found["verdict"], found["n"]) == ("supported", 5)
        vague = short({A: (60.3, 1, 5), B: (60, 1, 5)})
        clear = short({A: (99, 0.1, n), B: (1, 0.1, n)})
        both = pd.concat([vague, clear[clear["seed"] > 5]], ignore_index=True)
        assert decide(claim(**SUPERIOR), both, SHORT)["reduced"]["verdict"] == "undecided (interim)"
    last = short({A: (60.3, 1, 8), B: (60, 1, 8)})
    clear = short({A: (99, 0.1, 12), B: (1, 0.1, 12)})
    both = pd.concat([last, clear[clear["seed"] > 8]], ignore_index=True)
    assert decide(claim(**SUPERIOR), both, SHORT)["reduced"]["verdict"] == "undecided"


def test_the_trend_points_at_the_papers_schedule(decide: Any) -> None:
    """Gaps of -1, -0.6 and -0.2 at 16, 32 and 64 epochs rise by 0.4 a doubling: +0.33 at 160."""
    rows: dict[str, Row] = {A: (59.4, 0.3, 4), **TREND, BASE: (60, 0.3, 4), STATIC: (56, 0.3, 4)}
    trend = decide(claim(**NO_WORSE), short(rows), SHORT)["reduced"]["trend"]
    assert trend["at"] == 160 and trend["slope"] == pytest.approx(0.4)
    assert trend["extrapolated"] == pytest.approx(-0.2 + 0.4 * math.log2(160 / 64))
    assert trend["low"] < trend["extrapolated"] < trend["high"]


def test_magnitudes_and_other_data_get_no_reduced_verdict(decide: Any) -> None:
    rows = short({A: (61, 0.3, 5), B: (60, 0.3, 5)})
    assert decide(magnitude(standing="F"), rows, SHORT)["reduced"] is None
    how = read().reduced[SHORT]
    for scale in ("digits", "smoke"):  # not even where somebody declares it
        told = {scale: parse(Reduced, how.model_dump())}
        found = decide(claim(**SUPERIOR), frame({A: (61, 0.3, 5), B: (60, 0.3, 5)}, scale), scale, told)
        assert found["verdict"] == "not run" and found["reduced"] is None
    assert set(read().reduced) == {SHORT}


def test_rows_that_the_gate_has_changed_stand_in_for_the_papers(decide: Any) -> None:
    """Runs of the rows that stand in decide, and none of those that the claim itself names."""
    how = read().reduced[SHORT].model_dump() | {"rows": {"s90": "s80", "f25": "f20", "d25": "d20", "s60": "s70"}}
    runs = short({A: (50, 0.3, 5), "spfde-s90-f20-d20": (61, 0.3, 5), B: (60, 0.3, 5)})
    found = decide(claim(**SUPERIOR), runs, SHORT, {SHORT: parse(Reduced, how)})["reduced"]
    assert found["verdict"] == "supported" and found["rows"] == {"s90": "s80", "f25": "f20", "d25": "d20"}
    assert found["evidence"]["comparisons"][0]["rows"] == ["spfde-s80-f20-d20", "set-s80"]


def test_a_claim_whose_rows_are_only_partly_there_says_so(decide: Any) -> None:
    """Tiers hold 30 % alone of the comparisons at 30 and 35 %."""
    told = next(each for each in read().claims if each.id == "sieving-beats-freezing-90")
    found = decide(
        told.model_copy(update={"costs": None}),
        short({"spfde-s90-d30": (61, 0.3, 5), "spfde-s90-f30": (60, 0.3, 5)}),
        SHORT,
    )
    assert found["reduced"]["verdict"] == "supported"
    assert "1 more comparisons of the claim have no rows here" in found["reduced"]["reason"]
