"""Figures, a module each: its name is the figure's, `EXPERIMENT` names the experiment of its rows, `draw` draws it."""

import importlib
import pkgutil
from pathlib import Path

from spfde.errors import lookup
from spfde.results.figures import style
from spfde.results.material import gather

FIGURES = {module.name: module.name for module in pkgutil.iter_modules(__path__) if module.name != "style"}


def make(name: str, scale: str, results: Path) -> list[Path]:
    """Writes a figure to results/<scale>/figures/ as PNG and SVG, and the values a seed behind it as CSV.

    Returns:
        the paths of what was written.

    Raises:
        SpfdeError: no such figure (naming the nearest), no plan of its experiment, a broken record.
    """
    module = importlib.import_module(f"{__name__}.{lookup('figure', name, FIGURES)}")
    with style.publication(name):
        drawing = module.draw(gather(scale, results, module.EXPERIMENT))
        return style.save(drawing, name, results / scale / "figures")
