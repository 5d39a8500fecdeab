"""The figure of the training budget: what a level of SpFDE is compared with, and what the sentences say."""

from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from scipy import stats

from spfde.errors import NotRun
from spfde.results.collect import NEEDED
from spfde.results.figures import budget, style
from spfde.results.material import SECONDS, Material

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
        facts = {"row": row, "method": "spfde", "title": "SpFDE", "sparsity": 0.9, "freezing": level, "sieving": level}
        plan.append(facts)
        for seed, accuracy in enumerate(accuracies.get(row, []), 1):
            model = "resnet32_2x" if "wide" in row else "resnet20"
            run: dict[str, Any] = {**dict.fromkeys(NEEDED, 1.0), "row": row, "seed": seed, "status": "finished"}
            run |= {
                "environment.device": "cpu",
                "training.epochs": epochs,
                "model.name": model,
                "flops.paper": cost,
                "accuracy.test_last": accuracy,
            }
            runs.append(run | ({SECONDS: seconds} if seconds else {}))
    return Material("cifar100-short", pd.DataFrame(runs), plan, pd.DataFrame(), tmp_path)


def test_a_level_is_compared_with_the_next_plain_training_that_costs_no_less(tmp_path: Path) -> None:
    points = {point.row["row"]: point for point in budget._points(material(tmp_path))}
    assert "spfde-s90-wide" not in points  # another network
    chosen = {row: budget.comparator(point, list(points.values())) for row, point in points.items()}
    assert {row: other and other.row["row"] for row, other in chosen.items()} == {
        **dict.fromkeys(PLAIN),
        "spfde-s90-f25-d25": "spfde-s90-e19",
        "spfde-s90-f20-d20": "spfde-s90-e21",
    }
    without = [point for row, point in points.items() if row != "spfde-s90-e21"]
    assert budget.comparator(points["spfde-s90-f20-d20"], without) is None  # 32 epochs cost half as much again


def test_the_sentences_give_the_differences_by_welch(tmp_path: Path) -> None:
    said = budget.answers(budget._points(material(tmp_path)))
    for row, other, sentence in (
        ("spfde-s90-f25-d25", "spfde-s90-e19", said[0]),
        ("spfde-s90-f20-d20", "spfde-s90-e21", said[1]),
    ):
        test = stats.ttest_ind(ACCURACIES[row], ACCURACIES[other], equal_var=False)
        low, high = test.confidence_interval(0.95)
        assert f"[{low:+.2f}, {high:+.2f}], n = 3" in sentence
    assert said[0].startswith("25%+25%, 32 epochs, against plain, 19 epochs (3.4 % more FLOPs): +1.03 points")
    assert said[0].endswith(": better") and said[1].endswith(": cannot be told apart")
    single = material(tmp_path, {row: values[:1] for row, values in ACCURACIES.items()})
    assert all(line.endswith("n = 1: one seed decides nothing") for line in budget.answers(budget._points(single)))


def test_the_figure_has_a_panel_over_time_where_times_are_known(tmp_path: Path) -> None:
    with style.publication("budget"):
        timed = budget.draw(material(tmp_path))
        untimed = budget.draw(material(tmp_path, seconds=None))
    assert [len(drawing.figure.axes) for drawing in (timed, untimed)] == [2, 1]
    curve = timed.figure.axes[1].lines[0]
    assert list(curve.get_xdata()) == [40 * epochs / 60 for epochs in (19, 21, 32)]
    assert len(timed.points) == 15 and "spfde-s90-wide" not in set(timed.points["row"])


def test_without_a_plain_row_it_says_so(tmp_path: Path) -> None:
    with pytest.raises(NotRun):
        budget.draw(material(tmp_path, {"spfde-s90-f25-d25": [66.0]}))
