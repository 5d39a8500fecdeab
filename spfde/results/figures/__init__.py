"""Figures: what the registry of artefacts (`spfde.results.artefacts`) lists is drawn from the records and written."""

from pathlib import Path

import pandas as pd
from matplotlib.figure import Figure

from spfde.errors import NotRun, lookup
from spfde.results.artefacts import FIGURES
from spfde.results.figures import style
from spfde.results.material import gather


def draw(name: str, scale: str, results: Path) -> style.Drawing:
    """A figure as the registry describes it, not written yet; called within `style.publication`.

    Where what it shows was not run, or does not exist at this scale, the figure says so.

    Raises:
        SpfdeError: no such figure (naming the nearest), no plan of its experiment, a broken record.
    """
    entry = lookup("figure", name, FIGURES)
    try:
        material = gather(scale, results, entry.experiment)
        drawing: style.Drawing = entry.load()(material)
    except NotRun as reason:
        return _absent(reason)
    return drawing._replace(cautions=material.cautions)


def make(name: str, scale: str, results: Path) -> list[Path]:
    """Writes a figure to results/<scale>/figures/ as PNG and SVG, and the values of each seed behind it as CSV.

    Returns:
        the paths of what was written.

    Raises:
        SpfdeError: no such figure (naming the nearest), no plan of its experiment, a broken record.
    """
    with style.publication(name):
        return style.save(draw(name, scale, results), name, results / scale / "figures")


def _absent(reason: NotRun) -> style.Drawing:
    """Stands in the figure's place."""
    figure = Figure(figsize=(style.DOUBLE, 1.6))
    figure.text(0.5, 0.62, reason.state, ha="center", fontsize=11)
    figure.text(0.5, 0.36, f"{reason.cause};\n{reason.remedy}", ha="center", va="center", fontsize=7, wrap=True)
    return style.Drawing(figure, pd.DataFrame(columns=["row", "seed"]))
