"""Memory by sparsity (Figure 4 of the SpFDE paper): SpFDE's average and minimum against the minimum of DST methods."""

from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.colors import to_hex, to_rgb
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from spfde.results.figures import style
from spfde.results.labels import percent
from spfde.results.material import Material
from spfde.results.reference import interval
from spfde.results.tables.table import bytes_unit, exponent

DST = ("set", "rigl", "mest-em", "mest-ems")  # the dynamic methods; the static mask of this experiment is not one
NAMES = ("paper_min", "paper_avg", "full_peak", "measured_peak")


class Group(NamedTuple):
    """The rows of a sparsity: the DST row of the least memory, and SpFDE's by the FLOPs that freezing removes."""

    sparsity: float
    dst: dict[str, Any]
    spfde: dict[float, dict[str, Any]]


def draw(material: Material) -> style.Drawing:
    """Panel a in the paper's convention, with the reference ranges where they are comparable; panel b the full ledger.

    The minimum of the DST methods is over their rows that freeze nothing, at the same sparsity.
    """
    groups = _groups(material)
    shades = _shades({level for group in groups for level in group.spfde})
    power = exponent(material.costs(row)["memory.full_peak"] for group in groups for row in group.spfde.values())
    figure = Figure(figsize=(style.DOUBLE, 3.3))
    paper, full = figure.subplots(1, 2, width_ratios=(2.2, 1))
    for place, group in enumerate(groups):
        _paper(paper, material, group, place, power, shades)
        _full(full, material, group, place, power, shades)
    for index, (axes, title) in enumerate(((paper, "Paper convention"), (full, "Full ledger at its peak"))):
        style.letter(axes, index, title)
        axes.set_xticks(range(len(groups)), [percent(group.sparsity) for group in groups])
        axes.set_xlabel("Sparsity")
        axes.set_ylabel(f"Memory ({bytes_unit(power)})")
        axes.tick_params(axis="x", length=0)
        axes.grid(axis="x", visible=False)
        axes.margins(y=0.2)
    _legend(figure, material, groups, shades)
    return style.Drawing(figure, points(material))


def points(material: Material) -> pd.DataFrame:
    """The memory of every sparse row in bytes, for each seed; a row that was not run has its plan's, and no seed."""
    lines = []
    for row in material.plan:
        shares = {key: row[key] for key in ("row", "method", "sparsity", "freezing", "sieving")}
        for run in material.of(row).to_dict("records"):
            lines.append({**shares, "seed": run["seed"], **{name: run[f"memory.{name}"] for name in NAMES}})
        if material.of(row).empty:
            lines.append({**shares, "seed": None, **{name: row["memory"].get(name) for name in NAMES}})
    return pd.DataFrame(lines)


def _groups(material: Material) -> list[Group]:
    groups = []
    for sparsity in sorted({row["sparsity"] for row in material.plan}):
        rows = [row for row in material.plan if row["sparsity"] == sparsity]
        still = [row for row in rows if row["method"] in DST and not row["freezing"]]
        frozen = {row["freezing"]: row for row in reversed(rows) if row["method"] == "spfde" and row["freezing"]}
        if still and frozen:
            least = min(still, key=lambda row: material.costs(row)["memory.paper_min"])
            groups.append(Group(sparsity, least, dict(sorted(frozen.items()))))
    return groups


def _paper(axes: Axes, material: Material, group: Group, place: int, power: int, shades: dict[float, str]) -> None:
    base = material.costs(group.dst)["memory.paper_min"]
    costs = [material.costs(row) for row in group.spfde.values()]
    heights = [base, *(cost["memory.paper_avg"] for cost in costs), min(cost["memory.paper_min"] for cost in costs)]
    width = 0.84 / (len(shades) + 2)  # as if every sparsity had all levels, so that bars are equally wide
    lefts = [place + width * (index - (len(heights) - 1) / 2) for index in range(len(heights))]
    colours = [style.GREY, *(shades[level] for level in group.spfde), "white"]
    bars = axes.bar(lefts, [height / 10**power for height in heights], 0.92 * width, color=colours)
    bars[-1].set(hatch="//////", edgecolor=style.BLUE, linewidth=0.8)
    average, minimum = (interval(material.reference, f"memory_{part}_vs_dst_min") for part in ("avg", "min"))
    ranges = [average if level in (0.2, 0.25) else None for level in group.spfde]  # the levels it refers to
    for left, height, span in zip(lefts[1:], heights[1:], [*ranges, minimum], strict=True):
        if span:
            middle, half = base * (span.low + span.high) / 2, base * (span.high - span.low) / 2
            black: dict[str, Any] = {"ecolor": style.BLACK, "elinewidth": 1.1, "capsize": 3}
            axes.errorbar(left, middle / 10**power, half / 10**power, fmt="none", **black)
        top = max(height, base * span.high if span else 0.0) / 10**power
        text = f"{100 * (height / base - 1):+.1f}%".replace("-", "−")
        axes.annotate(text, (left, top), (0, 4), textcoords="offset points", rotation=90, ha="center", fontsize=6.5)


def _shades(levels: set[float]) -> dict[float, str]:
    """One hue, darker for more freezing: lightness tells the levels apart without colour vision."""
    colours = colormaps["Oranges"](np.linspace(0.25, 0.85, len(levels)))
    return {level: to_hex(colour) for level, colour in zip(sorted(levels), colours, strict=True)}


def _full(axes: Axes, material: Material, group: Group, place: int, power: int, shades: dict[float, str]) -> None:
    level, most = list(group.spfde.items())[-1]
    for row, left, colour in ((group.dst, place - 0.2, style.GREY), (most, place + 0.2, shades[level])):
        axes.bar(left, material.costs(row)["memory.full_peak"] / 10**power, 0.36, color=colour)
        name = f"{row['title']} {percent(row['freezing'], none='')}"
        ink = style.BLACK if sum(to_rgb(colour)) > 1.5 else "white"
        inside: dict[str, Any] = {"color": ink, "rotation": 90, "ha": "center", "va": "bottom", "fontsize": 7}
        axes.annotate(name, (left, 0), (0, 4), textcoords="offset points", **inside)
        measured = _measured(material, row)
        if not pd.isna(measured):
            axes.plot(left, measured / 10**power, "_", color=style.BLACK, ms=11, mew=1.6)


def _measured(material: Material, row: dict[str, Any]) -> float:
    """The measured peak, bytes: the mean over the seeds, NaN where nothing was measured."""
    return float(pd.to_numeric(material.of(row)["memory.measured_peak"]).mean())


def _legend(figure: Figure, material: Material, groups: list[Group], shades: dict[float, str]) -> None:
    dst = ", ".join(dict.fromkeys(group.dst["title"] for group in groups))
    entries: list[Patch | Line2D] = [Patch(color=style.GREY, label=f"DST minimum ({dst})")]
    entries += [Patch(color=colour, label=f"SpFDE average, x = {percent(level)}") for level, colour in shades.items()]
    entries.append(Patch(fc="white", ec=style.BLUE, hatch="//////", label="SpFDE minimum"))
    if any(not pd.isna(_measured(material, row)) for group in groups for row in (group.dst, *group.spfde.values())):
        entries.append(
            Line2D([], [], linestyle="", marker="_", color=style.BLACK, ms=9, mew=1.6, label="measured peak")
        )
    found = interval(material.reference, "memory_avg_vs_dst_min")
    if found:
        label = f"reference range ({found.standing})"
        entries.append(Line2D([], [], linestyle="", marker="|", color=style.BLACK, ms=9, mew=1.1, label=label))
    figure.legend(handles=entries, loc="outside upper center", ncols=4, columnspacing=1.2, handletextpad=0.5)
