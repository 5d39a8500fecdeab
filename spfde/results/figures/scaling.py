"""What a step costs over a network's width and over sparsity, measured by `spfde bench scaling`."""

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from spfde.errors import NotRun
from spfde.results.figures import style
from spfde.results.material import Material
from spfde.results.measured import SCALING, measured_path
from spfde.training.bench.scaling import METHODS, break_even, growth, widest

NAMES = {"dense": "Dense", "rigl": "RigL", "gse-uniform": "GSE"}
COLOURS = {"dense": (style.BLACK, "*"), "rigl": (style.GREEN, "^"), "gse-uniform": (style.VERMILION, "D")}


def draw(material: Material) -> style.Drawing:
    """Seconds and bytes of a step over the width, and seconds over sparsity.

    Raises:
        NotRun: nothing was measured.
    """
    path = measured_path(material.results / material.scale, SCALING)
    if not path.is_file():
        raise NotRun(f"no measurements at {path}", f"make them with `spfde bench scaling --out {path}`")
    return drawing(pd.read_csv(path))


def drawing(frame: pd.DataFrame) -> style.Drawing:
    """The figure of what `spfde bench scaling` measured."""
    figure = Figure(figsize=(style.DOUBLE, 3.0))
    panels = figure.subplots(1, 3)
    _widths(panels[0], frame, "seconds", 1e3, "Milliseconds per step")
    _widths(panels[1], frame, "bytes", 1e-6, "Megabytes")
    _sparsity(panels[2], frame)
    titles = ("Time over width", "Memory over width", "Time, ResNet-32 2x")
    for index, (axes, title) in enumerate(zip(panels, titles, strict=True)):
        style.letter(axes, index, title)
    counts = set(frame.groupby(["part", "method", "width", "sparsity"])["turn"].nunique())
    note = f"a, c: median of the turns, n = {style.span(counts)}; bands reach over all of them. b: one process each."
    figure.supxlabel(note, fontsize=7)
    return style.Drawing(figure, frame)


def _widths(axes: Axes, frame: pd.DataFrame, column: str, unit: float, label: str) -> None:
    powers, (narrow, wide) = growth(frame, column), widest(frame)
    of = frame[(frame.part == "width") & frame[column].notna()]
    for method in METHODS:
        values = of[of.method == method].groupby("width")[column].agg(["median", "min", "max"]) * unit
        colour, marker = COLOURS[method]
        name = f"{NAMES[method]}: {powers[method]}"
        axes.plot(values.index, values["median"], color=colour, marker=marker, label=name)
        axes.fill_between(values.index, values["min"], values["max"], color=colour, alpha=0.15, linewidth=0)
    axes.set(xscale="log", yscale="log", xlabel="Width (times ResNet-8's)", ylabel=label)
    widths = sorted(of["width"].unique())
    axes.set_xticks(widths, [f"{width}" for width in widths])
    axes.minorticks_off()
    low, high = axes.get_ylim()
    axes.set_ylim(low, high * (high / low) ** 0.6)  # room for the legend
    axes.legend(title=f"Exponent, width {narrow} to {wide}", loc="upper left", handlelength=1.2, fontsize=6.5)


def _sparsity(axes: Axes, frame: pd.DataFrame) -> None:
    of = frame[frame.part == "sparsity"]
    values = of.groupby("sparsity").seconds.agg(["median", "min", "max"]) * 1e3
    dense, sparse = values.loc[0.0], values.drop(0.0)
    axes.axhline(float(values["median"].iloc[0]), color=style.BLACK, linestyle=(0, (5, 2)), label="dense kernels")
    axes.plot(100 * sparse.index, sparse["median"], color=style.VERMILION, marker="D", label="sparse kernels")
    axes.fill_between(100 * sparse.index, sparse["min"], sparse["max"], color=style.VERMILION, alpha=0.15, linewidth=0)
    point = break_even(frame)
    if point is not None and point > float(np.min(sparse.index)):
        axes.axvline(100 * point, color=style.GREY, linewidth=0.8)
        axes.annotate(f"break-even {point:.0%}", (100 * point, dense["median"]), fontsize=7, color=style.GREY)
    axes.set(xlabel="Sparsity (%)", ylabel="Milliseconds per step", ylim=(0, None))
    axes.legend(loc="lower left")
