"""`spfde kernels`: whether this machine has sparse kernels, which, and why not."""

import dataclasses
import json

import typer

from spfde.cli.options import Json


def kernels(as_json: Json = False) -> None:
    """Show the kernels that skip zeros on this machine's CPU: instruction set, compiler, or why there are none."""
    from spfde.kernels import status

    found = status()
    if as_json:
        typer.echo(json.dumps([dataclasses.asdict(found)], indent=1))
        return
    typer.echo(f"sparse kernels  {'available' if found.available else 'not available: dense kernels are used'}")
    for name, value in (
        ("instructions", found.isa),
        ("compiler", found.compiler),
        ("digest", found.digest),
        ("reason", found.reason),
    ):
        if value:
            typer.echo(f"{name:<15} {value}")
