"""Figures: what the registry of artefacts (`spfde.results.artefacts`) lists is drawn from the records and written."""

from pathlib import Path

from spfde.errors import lookup
from spfde.results.artefacts import FIGURES
from spfde.results.figures import style
from spfde.results.material import gather


def draw(name: str, scale: str, results: Path) -> style.Drawing:
    """A figure as the registry describes it, not written yet; called within `style.publication`.

    Raises:
        SpfdeError: no such figure (naming the nearest), no plan of its experiment, a broken record.
    """
    entry = lookup("figure", name, FIGURES)
    material = gather(scale, results, entry.experiment)
    drawing: style.Drawing = entry.load()(material)
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
