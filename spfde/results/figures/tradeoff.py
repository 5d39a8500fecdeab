"""Accuracy against training FLOPs: the trade-off of every method and level, a panel a sparsity."""

from typing import Any

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from spfde.results.figures import style
from spfde.results.labels import method, percent
from spfde.results.material import Material
from spfde.results.tables.table import exponent, times_ten

EXPERIMENT = "table2"
COST = "flops.paper"


def draw(material: Material) -> style.Drawing:
    """Means over the seeds with their standard deviations; published points are hollow, where they are comparable."""
    sparsities = sorted({row["sparsity"] for row in material.plan if row["sparsity"]})
    power = exponent(material.costs(row)[COST] for row in material.plan if row["sparsity"])
    figure = Figure(figsize=(style.DOUBLE, 3.3))
    panels = figure.subplots(1, len(sparsities), sharey=True, squeeze=False)[0]
    for index, (axes, sparsity) in enumerate(zip(panels, sparsities, strict=True)):
        rows = [row for row in material.plan if row["sparsity"] == sparsity]
        _dense(axes, material)
        for row in rows:
            _point(axes, material, row, power)
        style.letter(axes, index, f"{percent(sparsity)} sparsity")
        axes.set_xlabel(f"Training FLOPs, paper column ({times_ten(power)})")
        axes.margins(x=0.12, y=0.1)
    panels[0].set_ylabel("Test accuracy, last epoch (%)")
    _legend(figure, material)
    return style.Drawing(figure, points(material))


def points(material: Material) -> pd.DataFrame:
    """The runs behind the figure, one a seed."""
    order = {row["row"]: index for index, row in enumerate(material.plan)}
    runs = material.runs[material.runs["row"].isin(list(order))]
    return runs[["row", "seed", COST, "accuracy.test_last"]]


def _dense(axes: Axes, material: Material) -> None:
    """The dense accuracy as a line with its band: its FLOPs lie far to the right."""
    for row in material.plan:
        accuracy = material.accuracy(row)
        if row["method"] == "dense" and not row["freezing"] and not row["sieving"] and accuracy.n:
            axes.axhline(accuracy.mean, color=style.BLACK, linewidth=1, linestyle=(0, (5, 2)))
            if accuracy.n > 1:
                low, high = accuracy.mean - accuracy.std, accuracy.mean + accuracy.std
                axes.axhspan(low, high, color=style.BLACK, alpha=0.07, linewidth=0)


def _point(axes: Axes, material: Material, row: dict[str, Any], power: int) -> None:
    colour, marker = style.mark(row["method"])
    accuracy, cost = material.accuracy(row), material.costs(row)[COST] / 10**power
    if accuracy.n:
        deviation = accuracy.std if accuracy.n > 1 else None
        face = colour if not row["freezing"] or row["method"] == "spfde" else "white"
        axes.errorbar(cost, accuracy.mean, yerr=deviation, fmt=marker, color=colour, mfc=face, elinewidth=0.9, zorder=3)
        if row["freezing"] or row["sieving"]:
            axes.annotate(
                f"{100 * row['freezing']:.3g}+{100 * row['sieving']:.3g}",
                (cost, accuracy.mean),
                xytext=(0, -11),
                textcoords="offset points",
                ha="center",
                fontsize=6,
                color=colour,
            )
    published, flops = material.published(row, "accuracy"), material.published(row, "training_flops")
    if published and flops:
        axes.plot(flops.value / 10**power, published.value, marker, mec=colour, mfc="white", ms=6.5, mew=1, zorder=2)


def _legend(figure: Figure, material: Material) -> None:
    names = dict.fromkeys(row["method"] for row in material.plan if row["sparsity"])
    entries = [Line2D([], [], linestyle="", **_key(name), label=method(name)) for name in names]
    entries.append(Line2D([], [], color=style.BLACK, linestyle=(0, (5, 2)), linewidth=1, label="Dense"))
    if material.comparable:
        entries.append(Line2D([], [], linestyle="", marker="o", mec=style.GREY, mfc="white", label="published"))
    figure.legend(handles=entries, loc="outside lower center", ncols=len(entries), columnspacing=1.2, handletextpad=0.4)


def _key(name: str) -> dict[str, str]:
    colour, marker = style.mark(name)
    return {"marker": marker, "color": colour}
