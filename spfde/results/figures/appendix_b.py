"""Appendix B of the SpFDE paper: accuracy of the freezing schemes at equal training FLOPs."""

from typing import Any

import pandas as pd
import seaborn as sns
from matplotlib.figure import Figure

from spfde.results.figures import style
from spfde.results.labels import percent, scheme
from spfde.results.material import Material

COLOURS = (style.VERMILION, style.BLUE, style.GREEN, style.PURPLE)
MARKERS = ("D", "s", "^", "v")
CONTROL = (style.GREY, "o")


def draw(material: Material) -> style.Drawing:
    """Panel a: accuracy of each scheme, mean and standard deviation over the seeds, with each seed. Panel b: FLOPs."""
    rows, values = material.plan, points(material)
    names = [scheme(row["freezing_scheme"]) for row in rows]
    values = values.assign(name=values["scheme"].map(scheme))
    values["share"] = 100 * values["flops.paper"] / material.costs(rows[0])["flops.paper"]
    looks = dict(zip(names, [*zip(COLOURS, MARKERS, strict=True), *[CONTROL] * len(rows)], strict=False))
    colours = {name: colour for name, (colour, _) in looks.items()}
    figure = Figure(figsize=(style.DOUBLE, 1.2 + 0.32 * len(rows)))
    accuracy, flops = figure.subplots(1, 2, sharey=True, width_ratios=(1.6, 1))
    common: dict[str, Any] = {"y": "name", "hue": "name", "order": names, "hue_order": names, "palette": colours}
    common |= {"data": values, "legend": False}
    sns.stripplot(
        x="accuracy.test_last", ax=accuracy, marker="|", size=9, linewidth=1, alpha=0.6, jitter=False, **common
    )
    markers = [marker for _, marker in looks.values()]
    means: dict[str, Any] = {"linestyle": "none", "markersize": 6, "markeredgewidth": 0, "capsize": 0.15}
    sns.pointplot(
        x="accuracy.test_last", ax=accuracy, errorbar="sd", markers=markers, err_kws={"lw": 1.3}, **means, **common
    )
    sns.barplot(x="share", ax=flops, errorbar=None, width=0.62, saturation=1, **common)
    for place, row in enumerate(rows):
        if not material.accuracy(row).n:
            accuracy.annotate("not run", (0.5, place), xycoords=("axes fraction", "data"), ha="center", va="center")
        share = f"{values.loc[values['name'] == names[place], 'share'].mean():.2f}%"
        inside: dict[str, Any] = {"textcoords": "offset points", "va": "center", "color": "white"}
        flops.annotate(share, (0, place), (4, 0), **inside)
    counts = style.span({material.accuracy(row).n for row in rows})
    accuracy.margins(x=0.12)
    accuracy.set(xlabel=f"Test accuracy after the last epoch (%), n = {counts}", ylabel="")
    flops.set(xlabel="Training FLOPs, single-shot = 100%", ylabel="")
    flops.tick_params(axis="y", length=0)
    first = rows[0]
    style.letter(accuracy, 0, f"{first['title']} at {percent(first['sparsity'])} sparsity, freezing only")
    style.letter(flops, 1, "Training FLOPs (paper)")
    return style.Drawing(figure, points(material))


def points(material: Material) -> pd.DataFrame:
    """Accuracy (percent) and FLOPs, one for each seed; a row that was not run has its plan's FLOPs, and no seed."""
    lines = []
    for row in material.plan:
        known = {"row": row["row"], "scheme": row["freezing_scheme"]}
        for run in material.of(row).to_dict("records"):
            lines.append({**known, **{name: run[name] for name in ("seed", "accuracy.test_last", "flops.paper")}})
        if material.of(row).empty:
            lines.append({**known, "flops.paper": row["flops"]["paper"]})
    return pd.DataFrame(lines, columns=["row", "scheme", "seed", "accuracy.test_last", "flops.paper"])
