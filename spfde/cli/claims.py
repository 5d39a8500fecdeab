"""`spfde claims`."""

import json
from pathlib import Path
from typing import Annotated

import typer

from spfde.cli.options import Json, Scale


def claims(
    scale: Scale,
    results: Annotated[Path, typer.Option("--results", help="Folder of all results.")] = Path("results"),
    records: Annotated[
        list[Path] | None,
        typer.Option("--records", help="Folder of records of the same protocol that others made; repeatable."),
    ] = None,
    as_json: Json = False,
) -> None:
    """Decide the papers' claims from the results: claims.json, claims.md and claims.html in results/<scale>/."""
    from spfde.experiments.files import read_scale
    from spfde.results.claims import read
    from spfde.results.evidence import decide_all
    from spfde.results.verdicts import tally, write

    read_scale(scale)
    verdicts = decide_all(read(), scale, results, records or ())
    paths = write(verdicts, scale, results / scale)
    if as_json:
        typer.echo(json.dumps(verdicts, indent=1))
        return
    found = tally(verdicts)
    for verdict, count in found.counts.items():
        typer.echo(f"{verdict:20} {count}")
    for sentence in found.sentences[1:]:
        typer.echo(sentence)
    typer.echo(paths[0])
