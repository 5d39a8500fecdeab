"""`spfde collect`, `spfde table` and `spfde figure`: from records to tables and figures."""

import json
from pathlib import Path
from typing import Annotated

import typer

from spfde.cli.options import Json, Scale

Results = Annotated[Path, typer.Option("--results", help="Folder of all results.")]


def collect(
    scale: Scale,
    results: Results = Path("results"),
    out: Annotated[
        Path | None, typer.Option("--out", help="CSV file to write; by default results/<scale>/runs.csv.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Gather the records of a scale, fresh and published, into one tidy table with a row for each run."""
    from spfde.results import load
    from spfde.results.collect import record_folders, warn_of_other_code, write
    from spfde.training.environment import code_digest

    record_folders(scale, results)  # reads the weights too, once for all that is made of the records afterwards
    runs = load(scale, results)
    warn_of_other_code(runs, code_digest())
    path = out or results / scale / "runs.csv"
    write(runs, path)
    typer.echo(
        json.dumps(json.loads(runs.to_json(orient="records")), indent=1) if as_json else f"{len(runs)} runs in {path}"
    )


def table(
    name: Annotated[str, typer.Argument(help="Table, e.g. table2.")],
    scale: Scale,
    results: Results = Path("results"),
) -> None:
    """Write a table as Markdown, CSV, TeX and HTML, with the values of each seed behind it."""
    from spfde.results.tables import make

    for path in make(name, scale, results):
        typer.echo(path)


def figure(
    name: Annotated[str, typer.Argument(help="Figure, e.g. tradeoff.")],
    scale: Scale,
    results: Results = Path("results"),
) -> None:
    """Draw a figure as PNG and SVG, with the values of each seed behind it."""
    from spfde.results.figures import make

    for path in make(name, scale, results):
        typer.echo(path)
