"""Figure 3 of the SpFDE paper: the freezing schemes as timelines, and gradient norms and their changes by layer."""

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.colors import ListedColormap, LogNorm, Normalize
from matplotlib.figure import Figure, SubFigure
from matplotlib.patches import Patch
from matplotlib.ticker import MaxNLocator, NullLocator

from spfde.results.figures import style
from spfde.results.labels import percent, scheme
from spfde.results.material import Material

FROZEN = "#C8C8C8"


def draw(material: Material) -> style.Drawing:
    """Timelines from the plan; gradients of the run that kept snapshots, means over its seeds.

    Raises:
        SpfdeError: no analysis of the run's snapshots.
    """
    frame = material.analysis("figure3.gradients")
    figure = Figure(figsize=(style.DOUBLE, 4.9))
    top, bottom = np.asarray(figure.subfigures(2, 1, height_ratios=(1, 1.15), hspace=0.03))
    _timelines(top, material)
    _gradients(bottom, material, frame)
    return style.Drawing(figure, frame)


def _timelines(figure: SubFigure, material: Material) -> None:
    rows = [row for row in material.plan if row["freezing"]]
    panels = figure.subplots(1, len(rows), sharey=True, squeeze=False)[0]
    for index, (axes, row) in enumerate(zip(panels, rows, strict=True)):
        counts, blocks = np.array(row["frozen_blocks"]), row["blocks"]
        frozen = np.arange(blocks)[:, None] < counts[None, :]
        edges = np.arange(len(counts) + 1), np.arange(blocks + 1) + 0.5
        axes.pcolormesh(*edges, frozen, cmap=ListedColormap([style.SKY, FROZEN]), vmin=0, vmax=1, rasterized=True)
        axes.hlines(edges[1][1:-1], 0, len(counts), color="white", lw=0.5)
        title = f"{scheme(row['freezing_scheme'])}\n−{100 * row['freezing_achieved']:.1f}% FLOPs"
        if index:
            axes.set_title(title, weight="normal")
        else:
            style.letter(axes, 0, title)
        axes.set_xlabel("Epoch")
        axes.xaxis.set_major_locator(MaxNLocator(4, integer=True, steps=[1, 2, 5, 10]))
        axes.grid(visible=False)
    panels[0].set_ylabel("Block")
    panels[0].yaxis.set_major_locator(MaxNLocator(5, integer=True))
    panels[0].set_ylim(rows[0]["blocks"] + 0.5, 0.5)  # the first on top
    keys = [Patch(color=style.SKY, label="active"), Patch(color=FROZEN, label="frozen")]
    figure.legend(handles=keys, loc="outside right center")


def _gradients(figure: SubFigure, material: Material, frame: pd.DataFrame) -> None:
    norms = frame.pivot_table(index="number", columns="epoch", values="norm")
    relative = norms.pct_change(axis="columns").iloc[:, 1:]
    first, second = figure.subplots(1, 2, sharey=True)
    (row,) = (row for row in material.plan if row["row"] == frame["row"].iloc[0])
    name = f"{row['title']}, {percent(row['sparsity'])} sparsity, n = {frame['seed'].nunique()}"
    norm = LogNorm(norms.min().min(), norms.max().max())
    style.letter(first, 1, "Gradient norm (L2)")
    _heatmap(figure, first, norms, "viridis", norm)
    style.letter(second, 2, "Its change since the last snapshot (%)")
    _heatmap(figure, second, 100 * relative, "RdBu_r", Normalize(-100, 100))
    first.set_ylabel("Layer")
    first.yaxis.set_major_locator(MaxNLocator(8, integer=True))
    first.invert_yaxis()
    figure.supxlabel(f"Epoch ({name})", fontsize=8)


def _heatmap(figure: SubFigure, axes: Axes, table: pd.DataFrame, colours: str, norm: Normalize) -> None:
    epochs = table.columns.to_numpy(float)
    step = np.diff(epochs, prepend=2 * epochs[0] - epochs[1])
    edges = np.append(epochs - step, epochs[-1])  # a value stands over the stretch that ends with its snapshot
    layers = np.append(table.index.to_numpy() - 0.5, table.index.max() + 0.5)
    mesh = axes.pcolormesh(edges, layers, table.to_numpy(), cmap=colours, norm=norm, rasterized=True)
    bar = figure.colorbar(mesh, ax=axes, pad=0.02, aspect=24, extend="max" if norm.vmax == 100 else "neither")
    bar.outline.set_linewidth(0.5)
    bar.ax.yaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_locator(MaxNLocator(6, integer=True, steps=[1, 2, 5, 10]))
    axes.grid(visible=False)
