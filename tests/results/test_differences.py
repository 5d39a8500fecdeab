"""Differences on the first page: permutation intervals, which rows are compared, and the sentence."""

import dataclasses
import html
import itertools
import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from spfde.results.differences import compared, differences, permutation_interval, sentence
from spfde.results.material import Material, gather
from spfde.results.overview import headline, page


def rejected(values: np.ndarray, centre: float, level: float) -> bool:
    """Whether the sign-flip test of the mean, written out, rejects this centre."""
    shifted = values - centre
    sums = [float(np.dot(signs, shifted)) for signs in itertools.product((-1, 1), repeat=len(values))]
    return sum(abs(total) >= abs(shifted.sum()) - 1e-9 for total in sums) / len(sums) <= 1 - level + 1e-12


@pytest.mark.parametrize("count", [5, 6, 8])
def test_the_interval_holds_what_the_test_does_not_reject(count: int) -> None:
    values = np.random.default_rng(count).exponential(size=count)
    found = permutation_interval(values)
    assert found.level == (0.9375 if count == 5 else pytest.approx(1 - 2 * math.floor(0.025 * 2**count) / 2**count))
    for end, inside in ((found.low, 1), (found.high, -1)):
        assert not rejected(values, end + inside * 1e-6, found.level)
        assert rejected(values, end - inside * 1e-6, found.level)


def test_few_values_and_many() -> None:
    assert permutation_interval([2.0, -1.0, 5.0, 0.0, 1.0])[2:] == (-1.0, 5.0, 0.9375)
    assert math.isnan(permutation_interval([1.0]).low) and permutation_interval([]).n == 0
    assert permutation_interval([1.0, math.nan, 3.0]).n == 2
    many = permutation_interval(np.random.default_rng(1).normal(1, 1, 40))
    assert many.low < many.mean < many.high and many.high - many.low == pytest.approx(4 * 1 / math.sqrt(40), rel=0.35)


def test_dynamic_masks_against_a_static_one_and_levels_against_none(smoke: Path) -> None:
    material = gather("smoke", smoke, "table2")
    table = headline(material)
    pairs = [(row["row"], other["row"]) for row, other in compared(material, table.values["row"])]
    assert ("set-s90", "static-s90") in pairs and ("spfde-s90-f20-d20", "mest-ems-s90") in pairs
    assert all(row != other for row, other in pairs) and not [pair for pair in pairs if "dense" in pair]
    found = differences(material, table.values["row"])
    wide = material.runs.pivot_table(index="seed", columns="row", values="accuracy.test_last")
    by_hand = (wide["set-s90"] - wide["static-s90"]).tolist()
    value = found.values.set_index(["row", "against"]).loc[("set-s90", found.values["against"].iloc[0])]
    assert (value["low"], value["high"]) == pytest.approx((min(by_hand), max(by_hand))) and value["level"] == 0.75


def test_runs_on_different_hardware_are_no_pairs(smoke: Path) -> None:
    gathered = gather("smoke", smoke, "table2")
    moved = (gathered.runs["row"] == "set-s90") & (gathered.runs["seed"] == 3)
    runs = gathered.runs.assign(**{"environment.device": gathered.runs["environment.device"].mask(moved, "cuda: one")})
    rows = ["set-s90", "rigl-s90", "static-s90"]
    found = differences(dataclasses.replace(gathered, runs=runs), rows).values.set_index("row")["n"]
    assert (found["set-s90"], found["rigl-s90"]) == (2, 3)


def test_the_first_page_says_what_they_show(smoke: Path) -> None:
    material = gather("smoke", smoke, "table2")
    said = sentence(material, differences(material, headline(material).values["row"]))
    assert said.startswith("At 90% sparsity, over 3 seeds at scale smoke: ") and "static" in said.lower()
    assert "3 seeds are too few to tell SET from static (+" in said
    assert "above" not in said and "below" not in said and "cannot be told apart" not in said
    assert html.escape(said) in page("smoke", smoke)
    nothing = material.runs.iloc[:0]
    empty = differences(type(material)("smoke", nothing, material.plan, material.reference), ["set-s90", "static-s90"])
    assert sentence(material, empty) == "No difference was measured with more than one seed."
    assert empty.cells[0][2:] == ["not run", "–", "0"]


def seeds_of(material: Material, gains: Sequence[float]) -> Material:
    """The material with as many seeds of SET, which is better than a static mask by these points."""
    pairs = [(("static-s90", 60.0), ("set-s90", 60.0 + gain)) for gain in gains]
    made = [(row, seed, value) for seed, pair in enumerate(pairs) for row, value in pair]
    runs = pd.DataFrame(made, columns=["row", "seed", "accuracy.test_last"]).assign(status="finished")
    return dataclasses.replace(material, runs=runs)


def test_a_direction_is_said_where_the_interval_has_a_level_for_it(smoke: Path) -> None:
    """Two seeds that agree hold the centre in every second case, four in 87.5 % and five in 93.75 %."""
    rows, material = ["set-s90", "static-s90"], gather("smoke", smoke, "table2")

    def said(gains: Sequence[float]) -> str:
        found = seeds_of(material, gains)
        return sentence(found, differences(found, rows)).partition(": ")[2]

    assert said([1.0, 2.0]) == "2 seeds are too few to tell SET from static (+1.5)."
    assert said([1.0, 2.0, 1.0, 2.0]) == "4 seeds are too few to tell SET from static (+1.5)."
    assert said([1.0, 2.0, 1.0, 2.0, 1.5]) == "SET is above static by 1.5 points."
    assert said([-1.0, -2.0, -1.0, -2.0, -1.5]) == "SET is below static by 1.5 points."
    assert said([-1.0, 2.0, 1.0, 2.0, 1.0]) == "SET and static cannot be told apart (+1.0)."


def test_a_study_with_a_protocol_says_its_words_elsewhere(smoke: Path) -> None:
    material = seeds_of(gather("smoke", smoke, "table2"), [1.0, 2.0, 1.0, 2.0, 1.5, 1.0])
    study = dataclasses.replace(material, scale="cifar100-short")
    said = sentence(study, differences(study, ["set-s90", "static-s90"]))
    assert "above" not in said and "below" not in said and "1.5" not in said
    assert "claims" in said and "tables/study" in said
