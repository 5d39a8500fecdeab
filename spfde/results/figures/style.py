"""One style for every figure: colours that the colour-blind tell apart (Okabe and Ito, 2008), fonts, sizes, files."""

import textwrap
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import matplotlib as mpl
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from spfde.files import writing_all

BLACK, ORANGE, SKY, GREEN = "#000000", "#E69F00", "#56B4E9", "#009E73"
YELLOW, BLUE, VERMILION, PURPLE, GREY = "#F0E442", "#0072B2", "#D55E00", "#CC79A7", "#767676"

SINGLE, DOUBLE = 3.5, 7.2  # inches: one column and two of a page

# Method -> colour and marker: colour alone never tells two apart. A method without an entry gets a free marker in grey.
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
    """A figure, the values behind it, one a seed or point, and what its reader must know of the runs behind it."""

    figure: Figure
    points: pd.DataFrame
    cautions: Sequence[str] = ()


@contextmanager
def publication(name: str) -> Iterator[None]:
    """The style while a figure is drawn and saved; the ids in its SVG follow from its name, not from chance."""
    with mpl.rc_context({**RC, "svg.hashsalt": name}):
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


def letter(axes: Axes, index: int, title: str) -> None:
    """The panel's title with its letter in front, e.g. "a  Density"."""
    axes.set_title(f"{'abcdefghij'[index]}  {title}")


def span(values: set[int]) -> str:
    """Counts in a label: "3", or "1–3" where they differ."""
    low, high = min(values), max(values)
    return str(low) if low == high else f"{low}–{high}"
