"""`spfde plan`."""

import json

import typer

from spfde.cli.options import Assignments, Experiment, Json, Rows, Scale, Seeds


def plan(
    scale: Scale = "smoke",
    experiment: Experiment = None,
    rows: Rows = None,
    assignments: Assignments = None,
    seeds: Seeds = None,
    as_json: Json = False,
) -> None:
    """What runs cost and when blocks freeze, without training and without data."""
    from spfde.experiments import parse_assignments, select
    from spfde.planning import describe, plan_settings

    runs = select(scale, experiment, rows or [], seeds or [], parse_assignments(assignments or []))
    first = {run.row: run for run in reversed(runs)}  # the plan of a row is the same for all its seeds
    described = [describe(plan_settings(run)) for row, run in reversed(first.items())]
    if as_json:
        typer.echo(json.dumps(described, indent=1))
        return
    typer.echo(
        f"{'row':32} {'paper':>9} {'full':>9} {'executed':>9}  {'memory min':>10} {'avg':>8}  {'T_frz':>5} {'saved':>6}"
    )
    for row in described:
        flops, memory = row["flops"], row["memory"]
        freeze = f"{row['t_frz']:5d} {row['freezing_achieved']:6.1%}" if row["t_frz"] is not None else ""
        typer.echo(
            f"{row['row']:32} {flops['paper']:9.3e} {flops['full']:9.3e} {flops['executed']:9.3e}  "
            f"{memory['paper_min'] / 1e6:7.1f} MB {memory['paper_avg'] / 1e6:5.1f} MB  {freeze}"
        )
