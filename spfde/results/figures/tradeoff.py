"""Accuracy against training FLOPs: the trade-off of every method and level, a panel for each sparsity."""

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.transforms import ScaledTranslation, Transform

from spfde.results.figures import style
from spfde.results.labels import levels, percent, tag
from spfde.results.material import SECONDS, Material
from spfde.results.tables.table import exponent, times_ten

COST = "flops.paper"
ASIDE = 4.0  # distance in points between markers of equal cost
LEGEND_COLUMNS = 8
FOOT = 0.2  # share of a panel's height that is kept free for the levels along the bottom
DENSE: dict[str, Any] = {"color": style.BLACK, "linewidth": 1, "linestyle": (0, (5, 2))}


def draw(material: Material) -> style.Drawing:
    """Means over the seeds with their standard deviations; reference points are hollow, where they are comparable."""
    material = replace(material, plan=[row for row in material.plan if not tag(row)])  # controls lie on their rows
    sparsities = sorted({row["sparsity"] for row in material.plan if row["sparsity"]})
    power = exponent(material.costs(row)[COST] for row in material.plan if row["sparsity"])
    timed = any(math.isfinite(material.seconds(row)) for row in material.plan)
    figure = Figure(figsize=(style.DOUBLE, 3.6 + 2.2 * timed))
    grid = figure.subplots(1 + timed, len(sparsities), squeeze=False)
    panels = grid[0]
    for index, (axes, sparsity) in enumerate(zip(panels, sparsities, strict=True)):
        style.letter(axes, index, f"{percent(sparsity)} sparsity")
        _panel(axes, material, [row for row in material.plan if row["sparsity"] == sparsity], power)
    counts = {material.accuracy(row).n for row in material.plan} - {0}
    seeds = f", n = {style.span(counts)}" if counts else ""
    panels[0].set_ylabel(f"Test accuracy, last epoch (%)\nmean ± std{seeds}")
    label = f"Training FLOPs, paper column ({times_ten(power)}); points of equal cost stand side by side"
    if timed:
        for axes, sparsity in zip(grid[1], sparsities, strict=True):
            _times(axes, material, [row for row in material.plan if row["sparsity"] == sparsity])
        grid[1, 0].set_ylabel("Test accuracy (%)")
        label = f"Top: {label[0].lower()}{label[1:]}. Bottom: measured seconds per epoch"
    figure.supxlabel(label, fontsize=8)
    _legend(figure, material)
    return style.Drawing(figure, points(material))


def points(material: Material) -> pd.DataFrame:
    """The runs behind the figure, one for each seed."""
    runs = material.runs[material.runs["row"].isin([row["row"] for row in material.plan])]
    return runs[["row", "seed", COST, *runs.columns.intersection([SECONDS]), "accuracy.test_last"]]


def _panel(axes: Axes, material: Material, rows: list[dict[str, Any]], power: int) -> None:
    missing = sum(not material.accuracy(row).n for row in rows)
    if missing:
        note = f"{missing} of {len(rows)} not run"
        axes.set_title(note, loc="right", fontsize=6.5, color=style.GREY, weight="normal")
    for row in rows:
        _reference(axes, material, row, power)
    for row, aside in zip(rows, _asides(material, rows), strict=True):
        _measured(axes, material, row, power, aside)
    if not axes.lines:
        _empty(axes, "not run")
        return
    _dense(axes, material)
    axes.margins(x=0.14, y=0.1)
    axes.autoscale_view()
    levelled = [row for row in rows if material.accuracy(row).n and _levelled(row)]
    _make_room(axes, material, rows, levelled, power)
    for row in levelled:
        _level(axes, row, material.costs(row)[COST] / 10**power, material.accuracy(row).mean)


def _times(axes: Axes, material: Material, rows: list[dict[str, Any]]) -> None:
    """Mean accuracies over the measured seconds of an epoch, and the dense model's as a line."""
    for row in rows:
        accuracy, seconds = material.accuracy(row), material.seconds(row)
        if accuracy.n and math.isfinite(seconds):
            colour, marker = style.mark(row["method"])
            axes.plot(seconds, accuracy.mean, marker, color=colour, ms=5.5, mec="white", mew=0.4)
    if not axes.lines:
        _empty(axes, "not measured")
        return
    for row in material.plan:
        if row["method"] == "dense" and math.isfinite(material.seconds(row)):
            axes.axvline(material.seconds(row), **DENSE)
    axes.set_xlim(left=0)
    axes.margins(y=0.1)


def _empty(axes: Axes, text: str) -> None:
    axes.set(xticks=[], yticks=[])
    axes.text(0.5, 0.5, text, transform=axes.transAxes, ha="center", color=style.GREY)


def _make_room(axes: Axes, material: Material, rows: list[dict[str, Any]], levelled: list[Any], power: int) -> None:
    """Lowers the axis until no measured point covers a level at its foot; the axis is drawn from 0 to 100 % only."""
    low, high = axes.get_ylim()
    room, near = FOOT + 0.03, 0.05 * (axes.get_xlim()[1] - axes.get_xlim()[0])
    places = [material.costs(row)[COST] / 10**power for row in levelled]
    for row in rows:
        accuracy, cost = material.accuracy(row), material.costs(row)[COST] / 10**power
        if accuracy.n and any(abs(cost - place) <= near for place in places):
            lowest = accuracy.mean - (accuracy.std if accuracy.n > 1 else 0.0)
            low = min(low, (lowest - room * high) / (1 - room))  # puts `lowest` at that share of the height
    axes.set_ylim(low, high)
    axes.set_yticks([tick for tick in axes.get_yticks() if max(0, low) <= tick <= min(100, high)])
    axes.spines["left"].set_bounds(max(0, low), min(100, high))


def _levelled(row: dict[str, Any]) -> bool:
    """Whether a point is told from others of its method by its level; SpFDE without freezing and sieving is 0%+0%."""
    return bool(row["freezing"] or row["sieving"]) or row["method"] == "spfde"


def _asides(material: Material, rows: list[dict[str, Any]]) -> list[float]:
    """Shifts, in points, that set markers of nearly equal cost side by side; those with a level stay on their line."""
    costs = [material.costs(row)[COST] for row in rows]
    known = [cost for cost in costs if math.isfinite(cost)]  # a row that was not run may have no cost, and no point
    near = 0.02 * (max(known) - min(known)) if known else 0.0
    shifts = []
    for row, cost in zip(rows, costs, strict=True):
        together = [
            other["row"]
            for other, its in zip(rows, costs, strict=True)
            if abs(its - cost) <= near and material.accuracy(other).n and not _levelled(other)
        ]
        place = together.index(row["row"]) - (len(together) - 1) / 2 if row["row"] in together else 0.0
        shifts.append(ASIDE * place)
    return shifts


def _measured(axes: Axes, material: Material, row: dict[str, Any], power: int, aside: float) -> None:
    accuracy = material.accuracy(row)
    if not accuracy.n:
        return
    colour, marker = style.mark(row["method"])
    cost, deviation = material.costs(row)[COST] / 10**power, accuracy.std if accuracy.n > 1 else 0.0
    each = material.of(row)["accuracy.test_last"].to_numpy()
    shifted = _shifted(axes, aside)
    sns.lineplot(
        x=np.full(len(each), cost),
        y=each,
        ax=axes,
        color=colour,
        marker=marker,
        ms=5.5,
        mec="white",
        mew=0.4,
        linestyle="",
        errorbar="sd",
        err_style="bars",
        err_kws={"elinewidth": 0.9, "transform": shifted, "zorder": 3},
        transform=shifted,
        zorder=4,
    )
    axes.update_datalim(
        [(cost, accuracy.mean - deviation), (cost, accuracy.mean + deviation)]
    )  # autoscaling misses shifted points


def _shifted(axes: Axes, points: float) -> Transform:
    return axes.transData + ScaledTranslation(points / 72, 0, axes.figure.dpi_scale_trans)


def _reference(axes: Axes, material: Material, row: dict[str, Any], power: int) -> None:
    accuracy, flops = material.reference_value(row, "accuracy"), material.reference_value(row, "training_flops")
    if accuracy and flops and not accuracy.recipe:  # a point of another training recipe is no measure of these
        colour, marker = style.mark(row["method"])
        place = flops.value / 10**power, accuracy.value
        axes.plot(*place, marker, mec=colour, mfc="white", ms=7.5, mew=1, zorder=2)
        if "unverified" in (accuracy.standing, flops.standing):
            axes.annotate("?", place, (5, 2), textcoords="offset points", color=colour, fontsize=7, weight="bold")


def _level(axes: Axes, row: dict[str, Any], cost: float, accuracy: float) -> None:
    """The level x%+y% at the foot of a dotted line from its point, where no marker can cover it."""
    colour, _ = style.mark(row["method"])
    low, high = axes.get_ylim()
    axes.plot([cost, cost], [low + FOOT * (high - low), accuracy], color=colour, linewidth=0.6, linestyle=":", zorder=1)
    foot: dict[str, Any] = {"fontsize": 6, "color": colour, "ha": "center", "va": "bottom", "rotation": 90}
    axes.text(cost, low + 0.015 * (high - low), levels(row), **foot)


def _dense(axes: Axes, material: Material) -> None:
    """The dense accuracy as a line with its band: its FLOPs lie far to the right."""
    for row in material.plan:
        accuracy = material.accuracy(row)
        if row["row"] == "dense" and accuracy.n:
            axes.axhline(accuracy.mean, **DENSE)
            if accuracy.n > 1:
                low, high = accuracy.mean - accuracy.std, accuracy.mean + accuracy.std
                axes.axhspan(low, high, color=style.BLACK, alpha=0.07, linewidth=0)


def _legend(figure: Figure, material: Material) -> None:
    entries = [Line2D([], [], label="Dense", **DENSE)]
    for name, title in {row["method"]: row["title"] for row in material.plan if row["sparsity"]}.items():
        colour, marker = style.mark(name)
        entries.append(Line2D([], [], linestyle="", marker=marker, color=colour, label=title))
    if material.comparable:
        hollow: dict[str, Any] = {"linestyle": "", "marker": "o", "mec": style.GREY, "mfc": "white", "ms": 7}
        entries.append(Line2D([], [], label="reference", **hollow))
        entries.append(Line2D([], [], linestyle="", marker="$?$", color=style.GREY, ms=4.5, label="unverified"))
    columns = -(-len(entries) // -(-len(entries) // LEGEND_COLUMNS))  # rows of equal length
    figure.legend(handles=entries, loc="outside upper center", ncols=columns, columnspacing=1.2, handletextpad=0.4)
