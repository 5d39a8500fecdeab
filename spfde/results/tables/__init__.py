"""Tables: what the registry of artefacts (`spfde.results.artefacts`) lists is made of the records and written."""

from dataclasses import replace
from pathlib import Path

from spfde.errors import lookup
from spfde.results.artefacts import TABLES
from spfde.results.material import gather
from spfde.results.tables.render import write
from spfde.results.tables.table import Table


def build(name: str, scale: str, results: Path) -> Table:
    """A table as the registry describes it, not written yet.

    Raises:
        SpfdeError: no such table (naming the nearest), no plan of its experiment, a broken record.
    """
    entry = lookup("table", name, TABLES)
    material = gather(scale, results, entry.experiment)
    table: Table = entry.load()(material)
    return replace(table, notes=[*table.notes, *material.cautions])


def make(name: str, scale: str, results: Path) -> list[Path]:
    """Writes a table to results/<scale>/tables/ as Markdown, CSV, TeX, HTML and the values of each seed behind it.

    Returns:
        the paths of what was written.

    Raises:
        SpfdeError: no such table (naming the nearest), no plan of its experiment, a broken record.
    """
    return write(build(name, scale, results), results / scale / "tables")
