"""Tables: what the registry of artefacts (`spfde.results.artefacts`) lists is made of the records and written."""

from dataclasses import replace
from pathlib import Path

import pandas as pd

from spfde.errors import NotRun, lookup
from spfde.results.artefacts import TABLES
from spfde.results.material import gather
from spfde.results.tables.render import write
from spfde.results.tables.table import Column, Table


def build(name: str, scale: str, results: Path) -> Table:
    """A table as the registry describes it, not written yet. Where it has no rows at this scale, it says so.

    Raises:
        SpfdeError: no such table (naming the nearest), no plan of its experiment, a broken record.
    """
    entry = lookup("table", name, TABLES)
    try:
        material = gather(scale, results, entry.experiment)
        table: Table = entry.load()(material)
    except NotRun as reason:
        return _absent(name, scale, reason)
    return replace(table, notes=[*table.notes, *material.cautions])


def make(name: str, scale: str, results: Path) -> list[Path]:
    """Writes a table to results/<scale>/tables/ as Markdown, CSV, TeX, HTML and the values of each seed behind it.

    Returns:
        the paths of what was written.

    Raises:
        SpfdeError: no such table (naming the nearest), no plan of its experiment, a broken record.
    """
    return write(build(name, scale, results), results / scale / "tables")


def _absent(name: str, scale: str, reason: NotRun) -> Table:
    """Stands in the table's place."""
    values = pd.DataFrame([{"row": reason.state}])
    columns = [Column("Row", lambda row: row["row"], numeric=False)]
    note = f"{reason.cause[:1].upper()}{reason.cause[1:]}."
    return Table(name, f"{name} (scale {scale})", values, columns, pd.DataFrame(columns=["row", "seed"]), [note])
