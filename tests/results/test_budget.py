"""Figure and table of the training budget: what a level of SpFDE is compared with, and what they say."""

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from spfde.errors import NotRun
from spfde.results import reference
from spfde.results.collect import NEEDED
from spfde.results.comparators import comparators
from spfde.results.figures import budget, style
from spfde.results.material import COSTS, SECONDS, Material
from spfde.results.tables import budget as table_of

PLAIN = {"spfde-s90": (32, 100.0), "spfde-s90-e21": (21, 66.0), "spfde-s90-e19": (19, 60.0)}
LEVELS = {"spfde-s90-f25-d25": (32, 58.0, 0.25), "spfde-s90-f20-d20": (32, 64.0, 0.2)}
ACCURACIES = {
    "spfde-s90": [67.0, 67.4, 66.8],
    "spfde-s90-e21": [66.0, 66.1, 66.5],
    "spfde-s90-e19": [65.0, 65.3, 65.1],
    "spfde-s90-f25-d25": [66.0, 66.4, 66.1],
    "spfde-s90-f20-d20": [66.0, 67.2, 65.5],
    "spfde-s90-wide": [90.0, 90.0, 90.0],
}


def material(tmp_path: Path, accuracies: dict[str, list[float]] = ACCURACIES, seconds: float | None = 40.0) -> Material:
    rows = {**{row: (*told, 0.0) for row, told in PLAIN.items()}, **LEVELS, "spfde-s90-wide": (32, 500.0, 0.0)}
    plan, runs = [], []
    for row, (epochs, cost, level) in rows.items():
        facts: dict[str, Any] = {
            "row": row,
            "method": "spfde",
            "title": "SpFDE",
            "sparsity": 0.9,
            "freezing": level,
            "sieving": level,
        }
        facts |= {"frozen_blocks": [0] * epochs, "blocks": 15 if "wide" in row else 9, "flops": {}, "memory": {}}
        for section, key in (name.split(".") for name in COSTS):
            facts[section][key] = cost
        plan.append(facts)
        for seed, accuracy in enumerate(accuracies.get(row, []), 1):
            model = "resnet32_2x" if "wide" in row else "resnet20"
            run: dict[str, Any] = {
                **dict.fromkeys(NEEDED, 1.0),
                "row": row,
                "seed": seed,
                "run_id": row,
                "status": "finished",
            }
            run |= {
                "environment.device": "cpu",
                "training.epochs": epochs,
                "model.name": model,
                "flops.paper": cost,
                "accuracy.test_last": accuracy,
            }
            runs.append(run | ({SECONDS: seconds} if seconds else {}))
    return Material("cifar100-short", pd.DataFrame(runs), plan, reference.read().iloc[:0], tmp_path)


def test_a_level_is_compared_with_the_next_plain_training_that_costs_no_less(tmp_path: Path) -> None:
    made = material(tmp_path)
    assert "spfde-s90-wide" not in [point.row["row"] for point in budget._points(made)]  # another network
    found = {row: other["row"] for row, other in comparators(made.plan).items()}
    assert found == {"spfde-s90-f25-d25": "spfde-s90-e19", "spfde-s90-f20-d20": "spfde-s90-e21"}
    without = [row for row in made.plan if row["row"] != "spfde-s90-e21"]
    assert set(comparators(without)) == {"spfde-s90-f25-d25"}  # 32 epochs cost half as much again
    made = replace(made, runs=made.runs[made.runs["row"] != "spfde-s90-e21"])
    (said,) = budget.answers(budget._points(made), {})  # what was not run is not compared with
    assert "19 epochs" in said


def test_the_sentences_give_the_differences_by_welch(tmp_path: Path) -> None:
    said = budget.answers(budget._points(material(tmp_path)), {})
    for row, other, sentence in (
        ("spfde-s90-f25-d25", "spfde-s90-e19", said[0]),
        ("spfde-s90-f20-d20", "spfde-s90-e21", said[1]),
    ):
        test = stats.ttest_ind(ACCURACIES[row], ACCURACIES[other], equal_var=False)
        low, high = test.confidence_interval(0.95)
        assert f"[95 %: {low:+.2f}, {high:+.2f}], n = 3" in sentence
    assert said[0].startswith("25%+25%, 32 epochs, against plain, 19 epochs (3.4 % more FLOPs): +1.03 points")
    assert said[0].endswith(": better") and said[1].endswith(": cannot be told apart")
    single = material(tmp_path, {row: values[:1] for row, values in ACCURACIES.items()})
    assert all(line.endswith("n = 1: one seed decides nothing") for line in budget.answers(budget._points(single), {}))


def test_at_a_scale_with_a_protocol_the_words_are_its_answers(tmp_path: Path) -> None:
    """Not those of an interval at whatever number of seeds is there."""
    answer = {
        "verdict": "undecided (interim)",
        "effect": 1.03,
        "low": 0.5,
        "high": 1.5,
        "level": 0.03,
        "n": 3,
        "reason": "3 of 5",
    }
    none = {**answer, "effect": math.nan, "n": 0, "reason": "other hardware"}
    pairs = {("spfde-s90-f25-d25", "spfde-s90-e19"): answer, ("spfde-s90-f20-d20", "spfde-s90-e21"): none}
    said = budget.answers(budget._points(material(tmp_path)), pairs)
    assert said[0].endswith("+1.03 points [94 %: +0.50, +1.50], n = 3; more accurate: undecided (interim)")
    assert said[1].endswith("undecided (interim): other hardware")


def test_runs_on_different_hardware_are_not_compared(tmp_path: Path) -> None:
    made = material(tmp_path)
    moved = made.runs["row"].isin(["spfde-s90-e19"])
    runs = made.runs.assign(**{"environment.device": np.where(moved, "cuda: other", "cpu: one")})
    said = budget.answers(budget._points(replace(made, runs=runs)), {})
    assert said[0].endswith("run on different hardware, not compared") and said[1].endswith("cannot be told apart")


def test_the_figure_has_a_panel_over_time_where_times_are_known(tmp_path: Path) -> None:
    with style.publication("budget"):
        timed = budget.draw(material(tmp_path))
        untimed = budget.draw(material(tmp_path, seconds=None))
    assert [len(drawing.figure.axes) for drawing in (timed, untimed)] == [2, 1]
    curve = timed.figure.axes[1].lines[0]
    assert list(curve.get_xdata()) == [40 * epochs / 60 for epochs in (19, 21, 32)]
    assert len(timed.points) == 15 and "spfde-s90-wide" not in set(timed.points["row"])


def test_the_table_pairs_a_level_with_its_comparator_by_seed(tmp_path: Path) -> None:
    table = table_of.build(material(tmp_path, {**ACCURACIES, "spfde-s90": []}))
    assert list(table.values["row"]) == ["spfde-s90-e19", "spfde-s90-e21", "spfde-s90", *LEVELS, "spfde-s90-wide"]
    values = table.values.set_index("row")
    gains = np.subtract(ACCURACIES["spfde-s90-f25-d25"], ACCURACIES["spfde-s90-e19"])
    row = values.loc["spfde-s90-f25-d25"]
    assert row["against"] == "spfde-s90-e19" and row["difference.mean"] == pytest.approx(gains.mean())
    half = stats.t.ppf(0.975, 2) * gains.std(ddof=1) / np.sqrt(3)
    assert row["difference.high"] - row["difference.mean"] == pytest.approx(half)
    titles = [column.title for column in table.columns]
    cells = dict(zip(values.index, table.cells, strict=True))
    epochs, other = titles.index("Epochs"), titles.index("Compared with")
    assert (cells["spfde-s90-f20-d20"][epochs], cells["spfde-s90-f20-d20"][other]) == ("32", "plain, 21 epochs")
    assert cells["spfde-s90"][other] == "–" and "not run" in cells["spfde-s90"]
    assert [note for note in table.notes if note.startswith("*")] == [table_of.KINDS["wide"]]
    assert table.parts == [False, False, False, True, False, True]


def test_without_a_plain_row_it_says_so(tmp_path: Path) -> None:
    with pytest.raises(NotRun):
        budget.draw(material(tmp_path, {"spfde-s90-f25-d25": [66.0]}))
    made = material(tmp_path)
    with pytest.raises(NotRun):
        table_of.build(replace(made, plan=[row for row in made.plan if row["freezing"]]))
