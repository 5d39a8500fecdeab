"""Is SpFDE better than training shorter? Accuracy over the budget of plain sparse training, and SpFDE beside it.

At a scale with a protocol the words on the pairs are those of its questions, at its looks. Elsewhere a pair is
described by its 95 % interval.
"""

import math
from collections.abc import Mapping
from typing import Any, NamedTuple

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patheffects import withStroke

from spfde.errors import NotRun
from spfde.experiments.files import read_scale
from spfde.results import reduced
from spfde.results.comparators import comparators, is_plain
from spfde.results.figures import style
from spfde.results.labels import is_control, levels, tag
from spfde.results.material import SECONDS, Material
from spfde.results.statistics import Estimate, Runs, contrast, estimate
from spfde.results.tables.table import exponent, times_ten

ACCURACY, COST, EPOCHS, HARDWARE = "accuracy.test_last", "flops.paper", "training.epochs", "environment.device"
HALO = [withStroke(linewidth=1.6, foreground="white")]  # keeps a label legible where a bar or the curve crosses it
CURVE: dict[str, Any] = {"color": style.BLUE, "linewidth": 1.3, "marker": "o", "ms": 4, "mec": "white", "mew": 0.4}


class Point(NamedTuple):
    """A row of the experiment with finished runs.

    Attributes:
        row: as planned.
        other: name of the planned row that it is compared with; empty if there is none.
        epochs: of its training.
        cost: training FLOPs, column `paper`.
        seconds: measured seconds of the whole training; NaN where they are not known.
        runs: accuracies in percent, by hardware and seed.
        accuracy: their mean and its interval.
    """

    row: Mapping[str, Any]
    other: str
    epochs: int
    cost: float
    seconds: float
    runs: Runs
    accuracy: Estimate

    @property
    def plain(self) -> bool:
        """Whether nothing is frozen or sieved."""
        return is_plain(self.row)


def draw(material: Material) -> style.Drawing:
    """The budget curve with the intervals of its means, SpFDE's levels, and its controls; panel b over seconds.

    Raises:
        NotRun: no row of plain sparse training was run.
    """
    points = sorted(_points(material), key=lambda point: point.cost)
    if not any(point.plain for point in points):
        raise NotRun("no plain sparse training of the experiment budget was run", "train its runs first")
    said = answers(points, _verdicts(material))
    power = exponent(point.cost for point in points)
    seconds = [point.seconds for point in points]
    timed = any(map(math.isfinite, seconds))
    figure = Figure(figsize=(style.DOUBLE, 3.7 + 0.16 * len(said)))
    panels = figure.subplots(1, 1 + timed, sharey=True, squeeze=False)[0]
    style.letter(panels[0], 0, "by training FLOPs")
    _panel(panels[0], points, [point.cost / 10**power for point in points])
    panels[0].set_xlabel(f"Training FLOPs, paper column ({times_ten(power)})")
    counts = {point.accuracy.n for point in points}
    panels[0].set_ylabel(f"Test accuracy, last epoch (%)\nmean and 95 % interval, n = {style.span(counts)}")
    if timed:
        style.letter(panels[1], 1, "by time, composed of measured steps")
        unit, size = ("Seconds", 1) if max(filter(math.isfinite, seconds)) < 120 else ("Minutes", 60)
        _panel(panels[1], points, [each / size for each in seconds])
        untimed = len(points) - sum(map(math.isfinite, seconds))
        without = f" ({untimed} points: not measured)" if untimed else ""
        panels[1].set_xlabel(f"{unit} of all training steps{without}")
    _legend(figure, points)
    if said:
        figure.supxlabel("\n".join(said), fontsize=7, x=0.01, ha="left")
    return style.Drawing(figure, _values(material, points))


def answers(points: list[Point], verdicts: Mapping[tuple[str, str], Mapping[str, Any]]) -> list[str]:
    """A sentence for each level of SpFDE beside plain training at no fewer FLOPs: the difference, Welch.

    Args:
        points: rows with finished runs.
        verdicts: what a protocol says of a row and the row that it is compared with (`spfde.results.reduced.answers`).
    """
    said, of = [], {point.row["row"]: point for point in points}
    for point in points:
        other = of.get(point.other)
        if other is None or is_control(point.row) or _once(point):
            continue
        more = f"{100 * (other.cost / point.cost - 1):.1f} % more FLOPs"
        names = f"{levels(point.row)}, {point.epochs} epochs, against plain, {other.epochs} epochs ({more})"
        answer = verdicts.get((point.row["row"], point.other))
        said.append(f"{names}: {_answered(answer) if answer else _described(point, other)}")
    return said


def _verdicts(material: Material) -> dict[tuple[str, str], dict[str, Any]]:
    """Answers to the questions whether one row is more accurate than another, by the two rows."""
    found = reduced.answers(material.scale, material.results)
    return {(entry["pair"][0], entry["pair"][1]): entry for entry in found if entry["test"] == "superiority"}


def _answered(answer: Mapping[str, Any]) -> str:
    """The word of the protocol on "is more accurate", with the effect over the runs that it rests on."""
    if math.isnan(answer["effect"]):
        return f"{answer['verdict']}: {answer['reason']}"
    level = f"{100 * (1 - 2 * answer['level']):g} %"
    interval = "" if math.isnan(answer["low"]) else f" [{level}: {answer['low']:+.2f}, {answer['high']:+.2f}]"
    return f"{answer['effect']:+.2f} points{interval}, n = {answer['n']}; more accurate: {answer['verdict']}"


def _described(point: Point, other: Point) -> str:
    """The difference and its 95 % interval, where no protocol declares when something may be said."""
    effect = contrast([point.runs, other.runs], (1, -1))
    if math.isnan(effect.mean):
        return "run on different hardware, not compared"
    if effect.n < 2:
        return f"{effect.mean:+.2f} points, n = {effect.n}: one seed decides nothing"
    low, high = effect.interval()
    told = "better" if low > 0 else "worse" if high < 0 else "cannot be told apart"
    return f"{effect.mean:+.2f} points [95 %: {low:+.2f}, {high:+.2f}], n = {effect.n}: {told}"


def _points(material: Material) -> list[Point]:
    """The rows with finished runs of the scale's own network; another network is another curve."""
    own = read_scale(material.scale).settings.get("model", {}).get("name")
    found, others = [], comparators(material.plan)
    for row in material.plan:
        runs = material.of(row)
        if len(runs) and runs["model.name"].iloc[0] == own:
            epochs = int(runs[EPOCHS].iloc[0])
            keys = zip(runs[HARDWARE], runs["seed"], strict=True)
            values = dict(zip(keys, runs[ACCURACY], strict=True))
            seconds = material.seconds(row) * epochs
            other = str(others.get(row["row"], {"row": ""})["row"])
            accuracy = estimate(values.values())
            found.append(Point(row, other, epochs, material.costs(row)[COST], seconds, values, accuracy))
    return found


def _panel(axes: Axes, points: list[Point], places: list[float]) -> None:
    plain = [(x, p) for x, p in zip(places, points, strict=True) if p.plain and math.isfinite(x)]
    if plain:
        x, means = [x for x, _ in plain], [p.accuracy.mean for _, p in plain]
        low, high = zip(*((p.accuracy.low, p.accuracy.high) for _, p in plain), strict=True)
        # A single run has no interval: the band ends beside it, and does not shrink to it as if it were certain.
        axes.fill_between(x, low, high, color=style.BLUE, alpha=0.15, linewidth=0)
        axes.plot(x, means, **CURVE)
        for place, point in plain:
            at = (place, point.accuracy.mean)
            axes.annotate(f"{point.epochs}", at, (3, -8), textcoords="offset points", fontsize=6, path_effects=HALO)
    several = _lengths(points) > 1
    for place, point in zip(places, points, strict=True):
        if point.plain or not math.isfinite(place):
            continue
        colour, marker = _mark(point)
        mean = point.accuracy.mean
        if point.accuracy.n > 1:
            axes.errorbar(place, mean, mean - point.accuracy.low, color=colour, elinewidth=0.9, zorder=3)
        axes.plot(place, mean, marker, color=colour, ms=5.5, mec="white", mew=0.4, zorder=4)
        if is_control(point.row):
            continue  # it stands above or below its level, at the same cost
        # To the upper left: the curve rises to the right, where the row that this one is compared with stands, too.
        text = f"{levels(point.row)}, {point.epochs}" if several else levels(point.row)
        offset: dict[str, Any] = {
            "xytext": (-5, 3),
            "textcoords": "offset points",
            "ha": "right",
            "path_effects": HALO,
            "zorder": 5,
        }
        axes.annotate(text, (place, mean), color=colour, fontsize=6, **offset)
    axes.margins(x=0.12, y=0.12)
    left, right = axes.get_xlim()
    axes.set_xlim(left - 0.18 * (right - left), right)  # room for the labels of the first marks


def _lengths(points: list[Point]) -> int:
    """How many different numbers of epochs SpFDE and its controls were trained for."""
    return len({point.epochs for point in points if not point.plain})


def _once(point: Point) -> bool:
    """Whether samples are removed once and not in a circle."""
    return tag(point.row) == "once"


def _mark(point: Point) -> tuple[str, str]:
    if is_control(point.row):
        return style.GREY, "X"
    if _once(point):
        return style.ORANGE, "s"
    return style.mark("spfde")


def _legend(figure: Figure, points: list[Point]) -> None:
    entries = [Line2D([], [], label="plain sparse training (0%+0%), its epochs beside it", **CURVE)]
    kinds = {_mark(point): point for point in points if not point.plain}
    names = {style.GREY: "random sieving (control)", style.ORANGE: "removal once"}
    for (colour, marker), point in kinds.items():
        text = names.get(colour, f"{point.row['title']}, freezing + sieving")
        text += ", epochs" if _lengths(points) > 1 and colour != style.GREY else ""
        entries.append(Line2D([], [], linestyle="", marker=marker, color=colour, label=text))
    figure.legend(handles=entries, loc="outside upper center", ncols=len(entries), columnspacing=1.2, handletextpad=0.4)


def _values(material: Material, points: list[Point]) -> pd.DataFrame:
    """The runs behind the figure, one for each seed."""
    shown = [point.row["row"] for point in points]
    runs = material.runs[material.runs["row"].isin(shown)]
    known = runs.columns.intersection([SECONDS])
    return runs[["row", "seed", EPOCHS, COST, *known, ACCURACY]]
