"""Appendix B of the SpFDE paper: accuracy of the freezing schemes at equal training FLOPs."""

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from spfde.results.figures import style
from spfde.results.labels import percent, scheme
from spfde.results.material import Material

COLOURS = (style.VERMILION, style.BLUE, style.GREEN, style.PURPLE)
MARKERS = ("D", "s", "^", "v")
CONTROL = (style.GREY, "o")


def draw(material: Material) -> style.Drawing:
    """Panel a: accuracy a scheme, mean and standard deviation over the seeds, with each seed. Panel b: FLOPs."""
    rows = material.plan
    base = material.costs(rows[0])["flops.paper"]
    figure = Figure(figsize=(style.DOUBLE, 1.2 + 0.32 * len(rows)))
    accuracy, flops = figure.subplots(1, 2, sharey=True, width_ratios=(1.6, 1))
    looks = [*zip(COLOURS, MARKERS, strict=True), *[CONTROL] * len(rows)]
    for place, (row, (colour, marker)) in enumerate(zip(rows, looks, strict=False)):
        found = material.accuracy(row)
        if found.n:
            each = material.of(row)["accuracy.test_last"]
            accuracy.plot(each, np.full(len(each), place), "|", color=colour, ms=9, alpha=0.6)
            std = found.std if found.n > 1 else None
            accuracy.errorbar(found.mean, place, xerr=std, fmt=marker, color=colour, ms=6)
        else:
            accuracy.annotate("not run", (0.5, place), xycoords=("axes fraction", "data"), ha="center", va="center")
        flops.barh(place, 100 * material.costs(row)["flops.paper"] / base, 0.62, color=colour)
        flops.annotate(
            f"{100 * material.costs(row)['flops.paper'] / base:.2f}%",
            (0, place),
            (4, 0),
            textcoords="offset points",
            va="center",
            color="white",
        )
    counts = style.span({material.accuracy(row).n for row in rows})
    accuracy.set_yticks(range(len(rows)), [scheme(row["freezing_scheme"]) for row in rows])
    accuracy.invert_yaxis()
    accuracy.margins(x=0.12, y=0.12)
    accuracy.set_xlabel(f"Test accuracy after the last epoch (%), n = {counts}")
    flops.set_xlabel("Training FLOPs, single-shot = 100%")
    flops.tick_params(axis="y", length=0)
    first = rows[0]
    style.letter(accuracy, 0, f"{first['title']} at {percent(first['sparsity'])} sparsity, freezing only")
    style.letter(flops, 1, "Training FLOPs (paper)")
    return style.Drawing(figure, points(material))


def points(material: Material) -> pd.DataFrame:
    """Accuracy (percent) and FLOPs, one a seed; a row that was not run has its plan's FLOPs, and no seed."""
    lines = []
    for row in material.plan:
        known = {"row": row["row"], "scheme": row["freezing_scheme"]}
        for run in material.of(row).to_dict("records"):
            lines.append({**known, **{name: run[name] for name in ("seed", "accuracy.test_last", "flops.paper")}})
        if material.of(row).empty:
            lines.append({**known, "flops.paper": row["flops"]["paper"]})
    return pd.DataFrame(lines, columns=["row", "scheme", "seed", "accuracy.test_last", "flops.paper"])
