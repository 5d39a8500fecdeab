"""One run of SpFDE over its epochs: density, the layers as they freeze, the partial set, accuracy."""

from typing import Any

import numpy as np
import pandas as pd
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.colors import ListedColormap, Normalize
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from matplotlib.ticker import PercentFormatter

from spfde.errors import NotRun
from spfde.results.figures import style
from spfde.results.histories import epochs_of, trace_of
from spfde.results.labels import label, levels, percent
from spfde.results.material import Material

FROZEN = "#C8C8C8"


def draw(material: Material) -> style.Drawing:
    """Draws the first seed of the SpFDE row with the most freezing, at the lowest sparsity that was run.

    Raises:
        SpfdeError: no such run is finished, or its histories cannot be read.
    """
    row, run = _chosen(material)
    epochs, trace = epochs_of(material, run["run_id"]), trace_of(material, run["run_id"])
    frozen = trace.pivot(index="layer", columns="epoch", values="frozen").loc[trace["layer"].unique()]
    density = trace.pivot(index="layer", columns="epoch", values="forward_density").loc[frozen.index]
    figure = Figure(figsize=(style.DOUBLE, 5.4))
    first, second, third, fourth = figure.subplots(4, 1, height_ratios=(1, 1.8, 1, 1.2))
    _density(first, epochs, density, frozen, row["sparsity"])
    _layers(second, density, frozen)
    _shares(third, epochs, frozen, row["sieving"])
    _accuracy(fourth, epochs)
    fourth.set_xlabel("Epoch")
    for axes in (first, third, fourth):  # the heat map counts cells from 0, its epochs stand in their middle
        axes.set_xlim(-0.5, len(epochs) - 0.5)
        axes.tick_params(axis="x", labelbottom=axes is fourth)
    title = f"{label(row)} {levels(row)}, {percent(row['sparsity'])} sparsity, seed {run['seed']} (n = 1)"
    figure.suptitle(title, fontsize=8.5, x=0.01, ha="left")
    for index, (axes, name) in enumerate(
        ((first, "Density"), (second, "Layers"), (third, "Freezing and sieving"), (fourth, "Accuracy"))
    ):
        style.letter(axes, index, name)
    return style.Drawing(figure, epochs.assign(run_id=run["run_id"], frozen_layers=frozen.mean().to_numpy()))


def _chosen(material: Material) -> tuple[dict[str, Any], dict[str, Any]]:
    rows = [row for row in material.plan if row["method"] == "spfde" and row["freezing"]]
    for row in sorted(rows, key=lambda row: (row["sparsity"], -row["freezing"])):
        runs = material.of(row).sort_values("seed").to_dict("records")
        if runs:
            return row, {str(key): value for key, value in runs[0].items()}
    remedy = f"train one with `spfde train --scale {material.scale} --experiment table2`"
    raise NotRun("the timeline needs a finished run of SpFDE and there is none", remedy)


def _density(axes: Axes, epochs: pd.DataFrame, density: pd.DataFrame, frozen: pd.DataFrame, sparsity: float) -> None:
    sparse = density[density.min(axis=1) < 1]
    upper = sparse.where(frozen.loc[sparse.index] == 0).max()
    axes.step(epochs["epoch"], 100 * upper, where="mid", color=style.VERMILION, label="active layers (upper bound)")
    axes.step(
        epochs["epoch"],
        100 * (1 - epochs["sparsity"]),
        where="mid",
        color=style.BLUE,
        ls="--",
        label="all sparse layers",
    )
    axes.axhline(100 * (1 - sparsity), color=style.BLACK, linewidth=0.9, linestyle=":", label="target")
    axes.set_ylabel("Density (%)")
    axes.margins(y=0.15)
    _beside(axes)


def _layers(axes: Axes, density: pd.DataFrame, frozen: pd.DataFrame) -> None:
    """Layers from the first (top) to the last, coloured by density while they are active, grey once they are frozen."""
    sparse = density[density.min(axis=1) < 1].to_numpy()
    colours = ListedColormap(colormaps["YlGnBu"](np.linspace(0.15, 0.7, 256))).with_extremes(over=style.BLACK)
    norm = Normalize(0.95 * sparse.min(), 1.02 * sparse.max())
    numbered = density.set_axis(range(1, len(density) + 1))
    axes.set_facecolor(FROZEN)  # frozen cells are masked, so the background shows
    style.heatmap(axes, numbered, colours, norm, mask=frozen.to_numpy() > 0, labels=(8, 8))
    axes.tick_params(axis="x", labelbottom=False)
    axes.set_ylabel("Layer")
    place = axes.inset_axes((1.025, 0.0, 0.02, 0.5))
    bar = axes.figure.colorbar(axes.collections[0], cax=place, format=PercentFormatter(1))
    bar.outline.set_linewidth(0.5)
    bar.ax.set_title("density", fontsize=7.5, weight="normal", pad=3)
    keys = [Patch(color=FROZEN, label="frozen"), Patch(color=style.BLACK, label="dense layer")]
    axes.legend(handles=keys, loc="upper left", bbox_to_anchor=(1.0, 1.06))


def _shares(axes: Axes, epochs: pd.DataFrame, frozen: pd.DataFrame, removed: float) -> None:
    samples = 100 * (1 - removed) * epochs["samples"] / epochs["samples"].max()
    axes.step(epochs["epoch"], samples, where="mid", color=style.BLUE, ls="--", label="partial set")
    axes.step(epochs["epoch"], 100 * frozen.mean(), where="mid", color=style.VERMILION, label="frozen layers")
    axes.set_ylabel("Share of the\nwhole (%)")
    axes.set_ylim(-5, 105)
    _beside(axes)


def _accuracy(axes: Axes, epochs: pd.DataFrame) -> None:
    axes.plot(epochs["epoch"], epochs["train_accuracy"], color=style.SKY, ls="--", label="training")
    axes.plot(epochs["epoch"], epochs["test_accuracy"], color=style.BLACK, label="test")
    axes.set_ylabel("Accuracy (%)")
    _beside(axes)


def _beside(axes: Axes) -> None:
    axes.legend(loc="upper left", bbox_to_anchor=(1.0, 1.08))
