"""`spfde claims`."""

import json
from pathlib import Path
from typing import Annotated

import typer

from spfde.cli.options import Json, Scale


def claims(
    scale: Scale,
    results: Annotated[Path, typer.Option("--results", help="Folder of all results.")] = Path("results"),
    as_json: Json = False,
) -> None:
    """Hold the papers' claims against the results: claims.json, claims.md and claims.html in results/<scale>/."""
    from spfde.experiments.files import read_scale
    from spfde.results.claims import read
    from spfde.results.evidence import counts, decide_all
    from spfde.results.verdicts import write

    read_scale(scale)
    verdicts = decide_all(read(), scale, results)
    paths = write(verdicts, scale, results / scale)
    if as_json:
        typer.echo(json.dumps(verdicts, indent=1))
        return
    for verdict, count in counts(verdicts).items():
        typer.echo(f"{verdict:13} {count}")
    typer.echo(paths[0])
