"""Figure 3 of the SpFDE paper: the freezing schemes as timelines, and gradient norms and their changes by layer."""

import numpy as np
import pandas as pd
from matplotlib.colors import ListedColormap, LogNorm, Normalize
from matplotlib.figure import Figure, SubFigure
from matplotlib.patches import Patch

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
        frozen = pd.DataFrame(np.arange(blocks)[:, None] < counts[None, :], index=range(1, blocks + 1))
        style.heatmap(axes, frozen, ListedColormap([style.SKY, FROZEN]), Normalize(0, 1), labels=(4, 5))
        axes.hlines(range(1, blocks), 0, len(counts), color="white", lw=0.5)
        title = f"{scheme(row['freezing_scheme'])}\n−{100 * row['freezing_achieved']:.1f}% FLOPs"
        if index:
            axes.set_title(title, weight="normal")
        else:
            style.letter(axes, 0, title)
        axes.set_xlabel("Epoch")
    panels[0].set_ylabel("Block")
    keys = [Patch(color=style.SKY, label="active"), Patch(color=FROZEN, label="frozen")]
    figure.legend(handles=keys, loc="outside right center")


def _gradients(figure: SubFigure, material: Material, frame: pd.DataFrame) -> None:
    norms = frame.pivot_table(index="number", columns="epoch", values="norm")
    relative = norms.pct_change(axis="columns").iloc[:, 1:]
    first, second = figure.subplots(1, 2, sharey=True)
    (row,) = (row for row in material.plan if row["row"] == frame["row"].iloc[0])
    name = f"{row['title']}, {percent(row['sparsity'])} sparsity, n = {frame['seed'].nunique()}"
    norm = LogNorm(norms.min().min(), norms.max().max())
    style.letter(first, 1, "Gradient norm")
    style.heatmap(first, norms, "viridis", norm, bar="L2 norm")
    style.letter(second, 2, "Its change since the last snapshot")
    style.heatmap(second, 100 * relative, "RdBu_r", Normalize(-100, 100), bar="Change (%)")
    first.set_ylabel("Layer")
    figure.supxlabel(f"Epoch of the snapshot ({name})", fontsize=8)
