"""The table of the questions that a protocol asks."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from spfde.errors import NotAtThisScale
from spfde.results import reference
from spfde.results.material import Material
from spfde.results.tables import study
from spfde.results.tables.render import markdown
from tests.results.situations import SUPERIOR, Row, claim, frame

SHORT = "cifar100-short"


@pytest.fixture
def material(decide: Any) -> Material:
    """Runs of some rows of tier A; those of the first question have reached the first look."""
    rows: dict[str, Row] = {"set-s80": (58, 0.3, 5), "static-s80": (56, 0.3, 5), "spfde-s80": (59, 0.3, 4)}
    rows |= {"spfde-s80-f25-d25": (54, 0.3, 1), "spfde-s80-e18": (54.5, 0.3, 1)}
    runs = frame(rows, SHORT)
    decide(claim(**SUPERIOR), runs, SHORT)  # lays the runs beneath what the table reads
    return Material(SHORT, runs, [], reference.read().iloc[:0], Path("nowhere"))


def test_a_question_stands_with_its_answer_and_its_numbers(material: Material) -> None:
    table = study.build(material)
    cells = dict(zip(table.values["id"], table.cells, strict=True))
    assert cells["set-above-static"][2:4] == ["supported", "5"] and cells["set-above-static"][4].startswith(
        "+2.00 [+1."
    )
    assert cells["plain-above-static"][2:4] == ["undecided (interim)", "4"]
    assert cells["plain-above-static"][-1] == "4 of the 5 seeds of the next look (spfde-s80)"
    one = cells["both-25-against-shorter"]
    assert one[2:5] == ["undecided (interim)", "1", "-0.50"]  # a single seed has no interval
    assert cells["both-20-against-shorter"][2:5] == ["not run", "0", "not run"]
    assert set(table.seeds["row"]) == set(material.runs["row"]) and "[94 %]" in markdown(table)
    assert sum(table.parts) == 2  # three questions


def test_the_first_runs_of_all_can_be_shown(decide: Any) -> None:
    """No pair can be compared yet, in two different ways; a claim's own rows decide whether it was run."""
    for rows in ({"spfde-s80": (59, 0.3, 1)}, {"spfde-s80": (59, 0.3, 1), "set-s80": (58, 0.3, 1)}):
        runs = frame(rows, SHORT)
        decide(claim(**SUPERIOR), runs, SHORT)
        table = study.build(Material(SHORT, runs, [], reference.read().iloc[:0], Path("nowhere")))
        assert {row[4] for row in table.cells} == {row[2] for row in table.cells} == {"not run"}
    runs = frame({**rows, "spfde-s80-f25-d25": (54, 0.3, 1)}, SHORT)
    decide(claim(**SUPERIOR), runs, SHORT)
    table = study.build(Material(SHORT, runs, [], reference.read().iloc[:0], Path("nowhere")))
    cells = dict(zip(table.values["id"], table.cells, strict=True))
    assert cells["both-25-cost"][2:5] == ["undecided (interim)", "1", "-5.00"]
    assert cells["both-25-cost"][-1] == "no runs of static-s80"  # the control that it needs as well


def test_runs_that_diverged_are_counted(material: Material, decide: Any) -> None:
    lost = (material.runs["row"] == "set-s80") & (material.runs["seed"] == 2)
    runs = material.runs.assign(status=material.runs["status"].mask(lost, "diverged"))
    decide(claim(**SUPERIOR), runs, SHORT)
    table = study.build(replace(material, runs=runs))
    assert table.cells[0][3] == "4 (1 of 10 diverged)"


def test_the_trend_is_told_below(material: Material) -> None:
    (trend,) = [note for note in study.build(material).notes if note.startswith("Trend: ")]
    assert "the gap of spfde-s80-f25-d25 to spfde-s80, in points: -5.00 at 32 epochs (n = 1)." in trend
    assert "wait until every length has its declared seeds" in trend


def test_a_scale_without_a_protocol_has_no_questions(material: Material) -> None:
    with pytest.raises(NotAtThisScale, match="digits"):
        study.build(replace(material, scale="digits", runs=pd.DataFrame()))
