"""`spfde overview`, `show`, `notebook`, `crate` and `publish`: from results to pages and packages."""

from pathlib import Path
from typing import Annotated

import typer

from spfde.cli.options import Scale
from spfde.cli.results import Results


def overview(scale: Scale, results: Results = Path("results")) -> None:
    """Write the first page of the report: what was run and on what, verdicts, headline table and figure."""
    from spfde.results.overview import write

    typer.echo(write(scale, results))


def show(scale: Scale, results: Results = Path("results")) -> None:
    """Print the headline table, the verdicts on the claims and where the report is."""
    from spfde.results.summary import summary

    typer.echo(summary(scale, results))


def notebook(
    name: Annotated[str, typer.Argument(help="Notebook: the name of a file in notebooks, without suffix.")],
    scale: Scale,
    results: Results = Path("results"),
    in_place: Annotated[
        bool, typer.Option("--in-place", help="Write the outputs into the notebook, not into a page.")
    ] = False,
) -> None:
    """Run a notebook on the results and render it to one HTML page."""
    from spfde.results.notebooks import keep, render

    typer.echo((keep if in_place else render)(name, scale, results))


def crate(
    out: Annotated[Path, typer.Option("--out", help="Folder, or file that ends in .zip, to write.")],
    scale: Scale,
    results: Results = Path("results"),
) -> None:
    """Pack the results of a scale, with settings, workflow and metadata, as an RO-Crate."""
    from spfde.results.crate import export

    typer.echo(f"{export(scale, results, out)} files in {out}")


def publish(
    scale: Scale,
    run_ids: Annotated[list[str] | None, typer.Argument(help="Run ids; by default all finished runs.")] = None,
    results: Results = Path("results"),
    to: Annotated[Path | None, typer.Option(help="Folder of published records; by default RESULTS/published.")] = None,
) -> None:
    """Copy finished records, without weights, analyses and measured times to RESULTS/published/SCALE/, or TO/SCALE/."""
    from spfde.results.publish import publish as copy

    written, kept = copy(scale, results, run_ids or (), to)
    for path in kept:
        typer.echo(f"already published: {path}")
    for path in written:
        typer.echo(path)
