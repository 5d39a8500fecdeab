"""Tables and figures for notebooks: the same as in the report, drawn from the records, written nowhere."""

import io
from dataclasses import dataclass
from pathlib import Path

from spfde.results import figures, tables
from spfde.results.figures import style
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
    return Html(fragment(tables.build(name, scale, results)))


def figure(name: str, scale: str, results: Path) -> Svg:
    """A figure of the report, e.g. tradeoff.

    Raises:
        SpfdeError: no such figure (naming the nearest), no plan of its experiment, a broken record.
    """
    text = io.StringIO()
    with style.publication(name):
        drawing = figures.draw(name, scale, results)
        drawing.figure.savefig(text, format="svg", metadata={"Date": None})
    return Svg(text.getvalue())
