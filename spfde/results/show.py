"""Tables and figures for notebooks: the same as in the report, drawn from the records, written nowhere."""

import importlib
import io
from dataclasses import dataclass
from pathlib import Path

from spfde.errors import lookup
from spfde.results.figures import FIGURES, style
from spfde.results.material import gather
from spfde.results.tables import TABLES
from spfde.results.tables.render import fragment


@dataclass(frozen=True)
class Html:
    """What a notebook shows of HTML."""

    text: str

    def _repr_html_(self) -> str:
        return self.text


@dataclass(frozen=True)
class Svg:
    """What a notebook shows of a vector image."""

    text: str

    def _repr_svg_(self) -> str:
        return self.text


def table(name: str, scale: str, results: Path) -> Html:
    """A table of the report, e.g. table2.

    Raises:
        SpfdeError: no such table (naming the nearest), no plan of its experiment, a broken record.
    """
    module = importlib.import_module(f"spfde.results.tables.{lookup('table', name, TABLES)}")
    return Html(fragment(module.build(gather(scale, results, module.EXPERIMENT))))


def figure(name: str, scale: str, results: Path) -> Svg:
    """A figure of the report, e.g. tradeoff.

    Raises:
        SpfdeError: no such figure (naming the nearest), no plan of its experiment, a broken record.
    """
    module = importlib.import_module(f"spfde.results.figures.{lookup('figure', name, FIGURES)}")
    text = io.StringIO()
    with style.publication(name):
        drawing = module.draw(gather(scale, results, module.EXPERIMENT))
        drawing.figure.savefig(text, format="svg", metadata={"Date": None})
    return Svg(text.getvalue())
