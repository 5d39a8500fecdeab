"""How much faster than the best dense training, from what `spfde bench --out` wrote: one line for each network."""

import pandas as pd
from matplotlib.figure import Figure

from spfde.results.figures import style

# What begins a row's name -> what the legend calls it, its colour and its marker.
LINES = {
    "resnet32_2x at": ("ResNet-32 2x", style.VERMILION, "D"),
    "resnet32_2x, 10 blocks frozen, against dense frozen, at": (
        "the same, 10 of 15 blocks\nfrozen on both sides",
        style.ORANGE,
        "v",
    ),
    "resnet20 at": ("ResNet-20", style.BLUE, "s"),
    "vgg19 at": ("VGG-19", style.GREEN, "^"),
    "torchvision resnet18 at 64x64 at": ("ResNet-18 at 64x64", style.PURPLE, "P"),
    "resnet32_2x against bf16 autocast at": ("ResNet-32 2x, against\ndense under bf16 autocast", style.GREY, "o"),
}


def drawing(frame: pd.DataFrame) -> style.Drawing:
    """Ratios over sparsity with their intervals; at 1 a sparse step takes as long as the dense one beside it."""
    figure = Figure(figsize=(style.DOUBLE * 0.78, 3.3))
    axes = figure.subplots()
    for start, (label, colour, marker) in LINES.items():
        rows = frame[frame["name"].str.match(rf"{start} \d+%")]
        if rows.empty:
            continue
        sparsity = rows["name"].str.extract(r"(\d+)%$")[0].astype(float)
        spread = [rows["ratio"] - rows["low"], rows["high"] - rows["ratio"]]
        axes.errorbar(sparsity, rows["ratio"], yerr=spread, color=colour, marker=marker, label=label)
    axes.axhline(1, color=style.BLACK, linestyle=(0, (5, 2)), linewidth=1)
    axes.annotate("as fast as the dense step", (80, 1), (0, -9), textcoords="offset points", fontsize=7)
    axes.set(xlabel="Unstructured sparsity (%)", ylabel="Times as fast as the same step, dense", ylim=(0, None))
    axes.set_xticks([80, 90, 95, 98])
    note = (
        f"Medians of n = {style.span(set(frame['n']))} turns and their 95 % intervals (order statistics).\n"
        "Dense: the fastest fp32 step, but where the legend names another one."
    )
    figure.supxlabel(note, fontsize=7)
    figure.legend(loc="outside right upper")
    return style.Drawing(figure, frame)
