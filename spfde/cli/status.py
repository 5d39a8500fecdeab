"""`spfde status`."""

import json
from collections import Counter
from pathlib import Path
from typing import Annotated

import typer

from spfde.cli.options import Experiments, Json, Scale


def status(
    scale: Scale,
    experiments: Experiments = None,
    results: Annotated[Path, typer.Option(help="Folder of all results.")] = Path("results"),
    as_json: Json = False,
) -> None:
    """The runs of a scale in the order of training: done, diverged, begun or missing, and the time they take.

    A letter per seed: D done, x diverged, b begun, . missing. Hours are CPU hours, predicted where runs are not done
    from those that are most alike, on the kind of device that training takes here.
    """
    from spfde.results.status import STATES
    from spfde.results.status import status as look_up

    found = look_up(scale, results, experiments or ())
    if as_json:
        typer.echo(json.dumps([one.as_json() for one in found], indent=1))
        return
    letters = dict(zip(STATES, "Dxb.", strict=True))
    rows: dict[tuple[str, str], str] = {}
    left: dict[tuple[str, str], float] = {}
    for one in found:
        key = one.tier, one.row
        rows[key] = rows.get(key, "") + letters[one.state]
        if one.state in ("begun", "missing"):
            left[key] = left.get(key, 0.0) + (one.seconds or float("nan"))
    tier = None
    for (of, row), states in rows.items():
        if of != tier:
            tier = of
            typer.echo(f"tier {of}" if of else scale)
        hours = f"{left[of, row] / 3600:6.1f} h left" if left.get((of, row), float("nan")) > 0 else ""
        typer.echo(f"  {row:<44} {states:<10} {hours}".rstrip())
    counts = Counter(one.state for one in found)
    typer.echo(", ".join(f"{counts[state]} {state}" for state in STATES) + f" of {len(found)} runs")
