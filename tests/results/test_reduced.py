"""Situations at a reduced scale: other margins, two looks at 3 %, and words that are never the paper's."""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from spfde.results.claims import Reduced, read
from spfde.results.reduced import answers
from spfde.results.sources import Sources
from spfde.results.tables.render import markdown
from spfde.results.verdicts import table
from spfde.settings import parse
from tests.results.situations import BASE, NO_WORSE, STATIC, SUPERIOR, VALUE, A, B, Row, claim, frame, magnitude

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
    rows: dict[str, Row] = {A: (59.4, 0.3, 5), **TREND, BASE: (60, 0.3, 5), STATIC: (56, 0.3, 5)}
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


def test_a_claim_of_which_a_part_alone_can_be_decided_is_not_supported_by_it(decide: Any) -> None:
    """Tiers hold 30 % alone of the comparisons at 30 and 35 %: one that is shown is no proof of the whole."""
    told = next(each for each in read().claims if each.id == "sieving-beats-freezing-90")
    found = decide(
        told.model_copy(update={"costs": None}),
        short({"spfde-s90-d30": (61, 0.3, 5), "spfde-s90-f30": (60, 0.3, 5)}),
        SHORT,
    )
    assert found["reduced"]["verdict"] == "undecided"
    assert found["reduced"]["reason"] == "1 of 2 comparisons can be decided here, and what can be is shown"
    told = told.model_copy(update={"costs": None})
    against = short({"spfde-s90-d30": (60, 0.3, 5), "spfde-s90-f30": (61, 0.3, 5)})
    assert decide(told, against, SHORT)["reduced"]["verdict"] == "not supported"  # one refuted comparison is enough


def test_a_comparison_that_never_reaches_a_look_does_not_keep_the_others_from_it(decide: Any) -> None:
    """The tiers plan three seeds of DeepR, and a look needs five."""
    told = next(each for each in read().claims if each.id == "gain-over-dst")
    rows: dict[str, Row] = {A: (61, 0.3, 5), B: (60, 0.3, 5), "dsr-s90": (60, 0.3, 5), "deepr-s90": (55, 0.3, 3)}
    found = decide(told, short(rows), SHORT)["reduced"]
    assert found["verdict"] == "undecided"
    assert found["reason"] == "2 of 3 comparisons can be decided here, and what can be is shown"
    assert decide(told, short({**rows, B: (63, 0.3, 5)}), SHORT)["reduced"]["verdict"] == "not supported"


def test_a_look_needs_the_seeds_that_were_declared_for_it(decide: Any) -> None:
    """Another seed takes no place of a missing one, nor of one that somebody would rather not count."""
    whole = short({A: (61, 0.3, 6), B: (60, 0.3, 5)})
    for missing in (1, 3, 5):
        runs = whole[(whole["row"] != "set-s80") | (whole["seed"] != missing)]
        other = whole[(whole["row"] == "set-s80") & (whole["seed"] == missing)].assign(seed=6)
        found = decide(claim(**SUPERIOR), pd.concat([runs, other], ignore_index=True), SHORT)["reduced"]
        assert found["verdict"] == "undecided (interim)"
        assert found["reason"] == "4 of the 5 seeds of the next look (set-s80)"
    found = decide(claim(**SUPERIOR), whole, SHORT)["reduced"]
    assert (found["verdict"], found["n"], found["evidence"]["runs"]) == ("supported", 5, 10)  # the sixth does not count


@pytest.mark.parametrize("elsewhere", [(4, 5), (1, 2, 3, 4, 5)])
def test_only_runs_on_the_same_hardware_count_towards_a_look(decide: Any, elsewhere: tuple[int, ...]) -> None:
    runs = short({A: (61, 0.3, 5), B: (60, 0.3, 5)})
    moved = (runs["row"] == "set-s80") & runs["seed"].isin(elsewhere)
    runs.loc[moved, "environment.device"] = "cuda: other"
    entry = decide(claim(**SUPERIOR), runs, SHORT)
    assert entry["reduced"]["verdict"] == "undecided (interim)" and "hardware" in entry["reduced"]["reason"]
    assert "undecided (interim) at reduced scale" in markdown(table([entry], SHORT))  # though there may be no effect
    both = runs["seed"].isin(elsewhere)
    runs.loc[both, "environment.device"] = "cuda: other"  # in every row
    assert decide(claim(**SUPERIOR), runs, SHORT)["reduced"]["verdict"] == "supported"


def test_claims_of_no_loss_wait_for_the_whole_trend_whatever_they_show(decide: Any) -> None:
    half = {row: (mean, std, 2) for row, (mean, std, _) in TREND.items()}
    for mean in (60, 57):
        for trend in ({}, half):
            found = decide(claim(**NO_WORSE), short({A: (mean, 0.3, 8), **GAP, **trend}), SHORT)["reduced"]
            assert found["verdict"] == "undecided (interim)" and not found["trend"]["complete"]
            assert found["trend"]["extrapolated"] is None and "trend" in found["reason"]


def test_what_refutes_a_claim_is_named_where_its_own_effect_does_not_tell_it(decide: Any) -> None:
    """0.6 points are no loss of a point, but most of the 0.7 points that dynamic sparsity gains."""
    rows: dict[str, Row] = {A: (59.4, 0.1, 8), **TREND, BASE: (60, 0.1, 8), STATIC: (59.3, 0.1, 8)}
    entry = decide(claim(**NO_WORSE), short(rows), SHORT)
    found = entry["reduced"]
    assert (found["verdict"], found["effect"]) == ("not supported", pytest.approx(-0.6))
    said = "spfde-s80-f25-d25: less than 50% of what spfde-s80 gains over static-s80 is kept"
    assert found["reason"] == said and said in markdown(table([entry], SHORT))
    # To keep half of 0.7 points is harder to show than a margin of one point, and the power is that of both.
    alone = decide(claim(**NO_WORSE), short({**rows, STATIC: (56, 0.1, 8)}), SHORT)["reduced"]
    assert found["power"] < alone["power"] == pytest.approx(1.0)


def test_what_a_look_said_stays_told_until_the_next(decide: Any) -> None:
    """A seed diverged, and the two analyses differ at five seeds: that is no mere matter of more seeds."""
    runs = short({A: (61, 0.3, 5), B: (60, 0.3, 5)})
    lost = (runs["row"] == "spfde-s80-f25-d25") & (runs["seed"] == 2)
    runs = runs.assign(status=runs["status"].mask(lost, "diverged"), **{VALUE: runs[VALUE].mask(lost)})
    entry = decide(claim(**SUPERIOR), runs, SHORT)
    found = entry["reduced"]
    assert found["verdict"] == "undecided (interim)" and found["evidence"]["diverged"] == 1
    assert found["reason"].startswith("5 of the 8 seeds of the next look; at 5 seeds: 1 of 10 runs diverged")
    assert "1 of 10 diverged" in markdown(table([entry], SHORT))


def test_the_interval_for_new_images_is_of_the_runs_that_count(
    decide: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Decided at five seeds, three more that say the opposite change nothing."""
    runs = short({A: (61, 0.3, 8), B: (60, 0.3, 8)})
    runs.loc[runs["seed"] > 5, VALUE] -= 100 * (runs["row"] == "spfde-s80-f25-d25")
    draw = np.random.default_rng(0)
    images = {
        run_id: (draw.random(400) < (0.9 if "f25" in run_id else 0.5)).astype(np.uint8) for run_id in runs["run_id"]
    }
    monkeypatch.setattr("spfde.results.accuracy.read_correct", lambda folder: images[folder.name])
    found = decide(claim(**SUPERIOR), runs, SHORT, folders=[tmp_path / name for name in images])["reduced"]
    assert found["verdict"] == "supported" and found["new_images"][0] > 20  # 40 points apart, without the last three


def test_the_questions_of_the_protocol_are_answered(decide: Any) -> None:
    """The answers follow the looks; a question whose rows have four seeds is never decided."""
    rows: dict[str, Row] = {"set-s80": (58, 0.3, 5), "mest-ems-s80": (58, 0.3, 4), "static-s80": (56, 0.3, 5)}
    rows |= {"spfde-s80": (59, 0.3, 5), "spfde-s80-f25-d25": (53, 0.3, 5), "spfde-s80-e18": (54, 0.3, 5)}
    rows |= {"spfde-s80-f25-d25-t16": (50, 0.3, 4), "spfde-s80-t16short": (48, 0.3, 4)}
    decide(claim(**SUPERIOR), frame(rows, SHORT), SHORT)  # lays the frame beneath every `Sources`
    found = {answer["id"]: answer for answer in answers(SHORT, Path("nowhere"))}
    said = {name: answer["verdict"] for name, answer in found.items()}
    assert said["set-above-static"] == said["plain-above-static"] == "supported"
    assert said["mest-above-static"] == said["both-25-cost"] == "undecided (interim)"  # seeds; the trend
    assert said["both-25-against-shorter"] == "not supported"
    assert said["both-25-against-shorter-at-16"] == "undecided"
    assert found["both-25-against-shorter-at-16"]["reason"] == "4 seeds are planned, too few for a look"
    assert found["both-25-against-shorter-at-16"]["effect"] == pytest.approx(2.0)
    assert said["both-20-against-shorter"] == "not run" and {answer["asks"] for answer in found.values()} == {1, 2, 3}
    assert not answers("digits", Path("nowhere"))


def test_the_questions_are_on_rows_of_the_tiers_at_no_fewer_flops() -> None:
    """What 25%+25% is compared with are the comparators of the plan."""
    how, sources = read().reduced[SHORT], Sources(SHORT, Path("nowhere"))
    known = sources.every_row(SHORT)
    for question in how.questions:
        assert {*question.rows, *question.control} <= set(known)
        assert all(sources.seeds(SHORT, row) for row in question.rows)
        own, other = (sources.plan_of(known[row]) for row in question.rows)
        if question.asks == 3:
            ratio = other.costs(other.trace())[0]["paper"] / own.costs(own.trace())[0]["paper"]
            assert 1.0 <= ratio < 1.05, question.id
            epochs = [run.settings.training.epochs for run in (own, other)]
            assert f"for {epochs[1]} epochs" in question.says and epochs[1] < epochs[0]
