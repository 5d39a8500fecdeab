"""Figures 1 and A1 of the SpFDE paper: how early a layer's structure and representation are those of the final network.

Panel a: structural similarity by layer and epoch. Panels b: CKA to the final network by epoch at single layers.
"""

from typing import Any

import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure, SubFigure
from matplotlib.ticker import MaxNLocator

from spfde.results.figures import style
from spfde.results.labels import percent
from spfde.results.material import Material

LAYERS = (1, 3, 10, 18, 25, 32)  # the layers that the paper shows, of the 32 of its network
TITLE: dict[str, Any] = {"x": 0.01, "ha": "left", "fontsize": 8.5, "weight": "bold"}
LINES: tuple[tuple[str, Any, str], ...] = (  # colour, dashes and marker of each row
    (style.BLACK, "", "o"),
    (style.SKY, (4, 1.5), "s"),
    (style.ORANGE, (6, 1.5, 1.5, 1.5), "^"),
    (style.VERMILION, (1, 1), "D"),
)


def draw(material: Material) -> style.Drawing:
    """Means over the seeds; bands are the standard deviation where there are several.

    Raises:
        SpfdeError: no analysis of the runs' snapshots.
    """
    structure, cka = (_named(material, material.analysis(f"figure1.{kind}")) for kind in ("similarity", "cka"))
    figure = Figure(figsize=(style.DOUBLE, 6.4))
    top, bottom = np.asarray(figure.subfigures(2, 1, height_ratios=(1, 1.75), hspace=0.03))
    _structure(top, material, structure)
    _representations(bottom, material, cka)
    points = pd.concat([structure.rename(columns={"similarity": "value"}), cka.rename(columns={"cka": "value"})])
    quantity = np.repeat(["similarity", "cka"], [len(structure), len(cka)])
    return style.Drawing(figure, points.assign(quantity=quantity))


def places(count: int) -> list[int]:
    """The paper's layers in a network of `count` layers: the same ones, or those at the same relative depth."""
    depth = [1 + round((layer - 1) * (count - 1) / (LAYERS[-1] - 1)) for layer in LAYERS]
    return list(dict.fromkeys(depth))


def _named(material: Material, frame: pd.DataFrame) -> pd.DataFrame:
    """The analysis with each run's method and sparsity, in the plan's order."""
    plan = pd.DataFrame([{key: row[key] for key in ("row", "title", "sparsity")} for row in material.plan])
    return plan.assign(order=range(len(plan))).merge(frame, on="row", how="inner").drop(columns="order")


def _structure(figure: SubFigure, material: Material, frame: pd.DataFrame) -> None:
    rows = [row for row in material.plan if row["row"] in set(frame["row"])]
    panels = figure.subplots(1, max(1, len(rows)), sharex=True, sharey=True, squeeze=False)[0]
    layers = sorted(frame["number"].unique())
    scale = ScalarMappable(Normalize(min(layers, default=0), max(layers, default=1)), colormaps["viridis_r"])
    for axes, row in zip(panels, rows, strict=False):
        values = frame[frame["row"] == row["row"]].assign(percent=lambda found: 100 * found["similarity"])
        common: dict[str, Any] = {"palette": "viridis_r", "hue_norm": scale.norm, "legend": False, "lw": 1}
        look: dict[str, Any] = {"marker": "o", "ms": 2, "markeredgewidth": 0}
        sns.lineplot(values, x="epoch", y="percent", hue="number", errorbar=None, ax=axes, **common, **look)
        axes.set_title(_label(row), weight="normal")
        axes.set(xlabel="Epoch", ylabel="")
        _epochs(axes, frame)
    figure.suptitle("a  Structural similarity", **TITLE)
    panels[0].set_ylabel("Similarity to the\nfinal network (%)")
    bar = figure.colorbar(scale, ax=list(panels), pad=0.015, aspect=24)
    bar.set_label("Layer")
    bar.ax.yaxis.set_major_locator(MaxNLocator(integer=True))
    bar.ax.invert_yaxis()
    bar.outline.set_linewidth(0.5)


def _representations(figure: SubFigure, material: Material, frame: pd.DataFrame) -> None:
    shown = places(int(frame["number"].max()))
    panels = figure.subplots(2, 3, sharex=True, sharey=True).ravel()
    labels = {row["row"]: _label(row) for row in material.plan if row["row"] in set(frame["row"])}
    names = list(labels.values())[: len(LINES)]
    values = frame.assign(name=frame["row"].map(labels))
    for index, (axes, number) in enumerate(zip(panels, shown, strict=False)):
        sns.lineplot(
            values[values["number"] == number],
            x="epoch",
            y="cka",
            hue="name",
            style="name",
            hue_order=names,
            style_order=names,
            palette=[colour for colour, *_ in LINES[: len(names)]],
            dashes=[dashes for _, dashes, _ in LINES[: len(names)]],
            markers=[marker for *_, marker in LINES[: len(names)]],
            errorbar="sd",
            err_kws={"alpha": 0.15, "lw": 0},
            ms=3.2,
            markeredgewidth=0,
            lw=1.2,
            ax=axes,
        )
        axes.set_title(f"Layer {number} of {int(frame['number'].max())}", weight="normal")
        _epochs(axes, frame)
        axes.xaxis.set_tick_params(labelbottom=index + 3 >= len(shown))
        axes.set_xlabel("Epoch" if index + 3 >= len(shown) else "")
        axes.set_ylabel("CKA to the final network" if index % 3 == 0 else "")
    figure.suptitle("b  CKA", **TITLE)
    for axes in panels[len(shown) :]:
        axes.set_axis_off()
    seeds = style.span({int(count) for count in frame.groupby("row")["seed"].nunique()})
    handles, titles = panels[0].get_legend_handles_labels()
    for axes in panels[: len(shown)]:
        axes.get_legend().remove()
    if len(shown) < len(panels):
        panels[-1].legend(handles, titles, loc="center", title=f"n = {seeds}", fontsize=8)
    else:
        figure.legend(handles, titles, loc="outside upper center", ncols=4, title=f"n = {seeds}")


def _label(row: dict[str, Any]) -> str:
    return f"{row['title']}, {percent(row['sparsity'])} sparsity" if row["sparsity"] else str(row["title"])


def _epochs(axes: Axes, frame: pd.DataFrame) -> None:
    axes.set_xlim(0, frame["epoch"].max() * 1.03)
    axes.xaxis.set_major_locator(MaxNLocator(5, integer=True, steps=[1, 2, 5, 10]))
