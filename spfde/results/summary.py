"""The results of a scale in a few lines for the terminal: where the report is, the headline table, the verdicts."""

from pathlib import Path

import pandas as pd

from spfde.errors import SpfdeError
from spfde.files import read_json
from spfde.results.material import gather
from spfde.results.overview import headline
from spfde.results.tables.table import Table
from spfde.results.verdicts import tally


def summary(scale: str, results: Path) -> str:
    """What `make reproduce` says at its end; what is not there is left out.

    Raises:
        SpfdeError: nothing was made at this scale, a broken record, plan or claims file.
    """
    home = results / scale
    parts = []
    if (home / "plans/table2.json").is_file():
        table = headline(gather(scale, results, "table2"))
        parts.append(f"{table.title}\n\n{plain(table)}")
    if (home / "claims.json").is_file():
        found = tally(read_json(home / "claims.json", "claims file", "remove it and make it again"))
        parts.append(f"Claims of the papers: {' '.join(found.sentences)}")
    report = home / "report.html"
    if report.is_file():
        parts.append(f"Report: {report}")
    if not parts:
        raise SpfdeError(f"nothing was made at scale {scale} in {results}", f"run `snakemake --config scale={scale}`")
    return "\n\n".join(parts)


def plain(table: Table) -> str:
    """A table's cells in columns of equal width."""
    titles = [f"{column.group}, {column.title}" if column.group else column.title for column in table.columns]
    return pd.DataFrame(table.cells, columns=titles).to_string(index=False)
