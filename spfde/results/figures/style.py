"""One theme for every figure: colours that the colour-blind tell apart (Okabe and Ito, 2008), fonts, sizes, files.

seaborn draws what is statistical (means with intervals, heat maps, distributions), matplotlib the rest; both under the
same settings.
"""

import textwrap
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import matplotlib as mpl
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.colors import Colormap, LogNorm, Normalize
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullLocator

from spfde.files import writing_all

BLACK, ORANGE, SKY, GREEN = "#000000", "#E69F00", "#56B4E9", "#009E73"
BLUE, VERMILION, PURPLE, GREY = "#0072B2", "#D55E00", "#CC79A7", "#767676"

DOUBLE = 7.2  # width in inches of two columns of a page

# Colour and marker of each method; no two methods differ by colour only. Others get a free marker in grey.
METHODS = {
    "dense": (BLACK, "*"),
    "static": (GREY, "o"),
    "set": (SKY, "s"),
    "rigl": (GREEN, "^"),
    "mest-em": (PURPLE, "v"),
    "mest-ems": (BLUE, "P"),
    "spfde": (VERMILION, "D"),
    "snip": (GREY, "<"),
    "grasp": (GREY, ">"),
    "lottery": (ORANGE, "h"),
    "deepr": (ORANGE, "p"),
    "dsr": (ORANGE, "X"),
    "small-dense": (BLACK, "8"),
    "set-itop": (SKY, "d"),
    "rigl-itop": (GREEN, "H"),
}
FREE_MARKERS = ("$A$", "$B$", "$C$", "$E$", "$F$", "$G$", "$J$")

# Over seaborn's styles "ticks" and "paper".
RC: dict[Any, Any] = {
    "font.family": "DejaVu Sans",
    "font.size": 8,
    "axes.titlesize": 8.5,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.labelsize": 8,
    "axes.linewidth": 0.7,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#E4E4E4",
    "grid.linewidth": 0.6,
    "xtick.labelsize": 7.5,
    "ytick.labelsize": 7.5,
    "legend.fontsize": 7.5,
    "legend.title_fontsize": 7.5,
    "legend.frameon": False,
    "lines.linewidth": 1.3,
    "lines.markersize": 5,
    "errorbar.capsize": 2,
    "hatch.linewidth": 0.6,
    "figure.dpi": 100,
    "savefig.dpi": 300,
    "figure.constrained_layout.use": True,
}


class Drawing(NamedTuple):
    """A figure, the values behind it (for each seed or point), and what its reader must know of the runs behind it."""

    figure: Figure
    points: pd.DataFrame
    cautions: Sequence[str] = ()


@contextmanager
def publication(name: str) -> Iterator[None]:
    """The theme while a figure is drawn and saved; the ids in its SVG follow from its name, not from chance."""
    base = {**sns.axes_style("ticks"), **sns.plotting_context("paper")}
    with mpl.rc_context({**base, **RC, "svg.hashsalt": name}):
        yield


def save(drawing: Drawing, name: str, folder: Path) -> list[Path]:
    """Writes <name>.png (300 dpi), <name>.svg and <name>.csv, all or none; equal drawings give equal bytes."""
    lines = [line for sentence in drawing.cautions for line in textwrap.wrap(sentence, 110)]
    if lines:
        drawing.figure.text(0.01, -0.01, "\n".join(lines), fontsize=6.5, style="italic", va="top")
    box = "tight" if lines else None  # makes room for them
    paths = [folder / f"{name}.{suffix}" for suffix in ("png", "svg", "csv")]
    with writing_all(*paths) as (png, svg, csv):
        drawing.figure.savefig(png, format="png", metadata={"Software": None}, bbox_inches=box)
        drawing.figure.savefig(svg, format="svg", metadata={"Date": None}, bbox_inches=box)
        drawing.points.to_csv(csv, index=False)
    return paths


def mark(method: str) -> tuple[str, str]:
    """Colour and marker of a method, the same in every figure."""
    return METHODS.get(method, (GREY, FREE_MARKERS[sum(map(ord, method)) % len(FREE_MARKERS)]))


def heatmap(
    axes: Axes,
    table: pd.DataFrame,
    colours: str | Colormap,
    norm: Normalize,
    bar: str = "",
    labels: tuple[int, int] = (6, 8),
    **more: Any,
) -> None:
    """A heat map, a cell for each entry, the first row on top.

    Args:
        axes: where to draw.
        table: the values; its index and columns label the cells.
        colours: a colour map, or its name.
        norm: from values to the colour map.
        bar: title of the colour bar; without a title there is no bar.
        labels: about how many columns and how many rows get a label.
        more: passed on to `seaborn.heatmap`.
    """
    across, down = (-(-size // count) for size, count in zip(table.shape[::-1], labels, strict=True))
    over = "max" if norm.vmax is not None and float(table.max().max()) > norm.vmax else "neither"
    keys: dict[str, Any] = {"label": bar, "pad": 0.02, "aspect": 24, "extend": over} if bar else {}
    sns.heatmap(
        table,
        ax=axes,
        cmap=colours,
        norm=norm,
        cbar=bool(bar),
        cbar_kws=keys,
        xticklabels=across,
        yticklabels=down,
        rasterized=True,
        **more,
    )
    axes.tick_params(axis="both", labelrotation=0, length=0)
    axes.set(xlabel="", ylabel="")
    axes.grid(visible=False)
    if bar:
        scale = axes.collections[0].colorbar
        assert scale is not None
        scale.outline.set_linewidth(0.5)
        scale.ax.yaxis.set_minor_locator(NullLocator())
        if isinstance(norm, LogNorm):
            scale.ax.yaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
            scale.ax.yaxis.set_major_formatter("{x:.3g}")


def letter(axes: Axes, index: int, title: str) -> None:
    """The panel's title with its letter in front, e.g. "a  Density"."""
    axes.set_title(f"{'abcdefghij'[index]}  {title}")


def span(values: set[int]) -> str:
    """Counts in a label: "3", or "1–3" where they differ."""
    low, high = min(values), max(values)
    return str(low) if low == high else f"{low}–{high}"
