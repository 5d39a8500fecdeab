"""`spfde methods`."""

import json
from typing import Any

import typer

from spfde.cli.options import Json


def methods(as_json: Json = False) -> None:
    """The methods, what they need and their options."""
    from spfde.methods import METHODS, Method

    def describe(method: type[Method]) -> dict[str, Any]:
        fields = method.Options.model_fields.items()
        return {
            "name": method.name,
            "title": method.title,
            "paper": method.paper,
            "year": method.year,
            "kind": method.kind,
            "scope": method.scope,
            "needs_dense_gradient": method.needs_dense_gradient,
            "options": {
                name: {"default": field.default, "description": field.description or ""} for name, field in fields
            },
        }

    described = [describe(method) for method in METHODS.values()]
    if as_json:
        typer.echo(json.dumps(described, indent=1))
        return
    typer.echo(f"{'method':20} {'kind':16} {'scope':7} {'dense gradient':15} paper, options")
    for row in described:
        paper = " ".join(str(part) for part in (row["paper"], row["year"]) if part not in (None, "-"))
        needs = "needed" if row["needs_dense_gradient"] else "-"
        typer.echo(f"{row['name']:20} {row['kind']:16} {row['scope']:7} {needs:15} {paper or '-'}")
        for name, option in row["options"].items():
            typer.echo(f"    {name}={json.dumps(option['default'])}: {option['description']}")
