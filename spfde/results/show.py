"""Tables, figures and plans for notebooks: the same as in the report, made from records, but not written to files."""

import io
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from spfde.results import figures, tables
from spfde.results.figures import style
from spfde.results.material import planned
from spfde.results.tables.render import fragment


@dataclass(frozen=True)
class Html:
    """HTML, as a notebook shows it."""

    text: str

    def _repr_html_(self) -> str:
        return self.text


@dataclass(frozen=True)
class Svg:
    """A vector image, as a notebook shows it."""

    text: str

    def _repr_svg_(self) -> str:
        return self.text


def planned_rows(experiment: str, scale: str, results: Path) -> list[dict[str, Any]]:
    """The rows of an experiment as planned (`spfde.plans.describe`), from results/<scale>/plans.

    Raises:
        SpfdeError: there is no plan; it says how to make it.
    """
    return planned(scale, results, experiment)


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
