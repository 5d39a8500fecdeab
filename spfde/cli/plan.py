"""`spfde plan`."""

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from spfde.cli.options import Assignments, Experiments, Json, Rows, Scale, Seeds, SettingsFile
from spfde.cli.selection import selected, with_one_seed
from spfde.errors import SpfdeError, lookup

SHOWN = 20  # combinations that are printed; --json lists all


def plan(
    scale: Scale,
    experiments: Experiments = None,
    rows: Rows = None,
    assignments: Assignments = None,
    seeds: Seeds = None,
    settings: SettingsFile = None,
    budget_flops: Annotated[
        float | None,
        typer.Option(min=0, help="List what meets this budget of training FLOPs (paper column)."),
    ] = None,
    budget_memory: Annotated[
        float | None, typer.Option(min=0, help="The same for bytes (the paper's memory, mean over training).")
    ] = None,
    budget_time: Annotated[
        float | None, typer.Option(min=0, help="The same for seconds of training, by measured step times (--bench).")
    ] = None,
    bench: Annotated[
        Path | None, typer.Option(help="What `spfde bench epochs` measured; by default results/SCALE/bench.csv.")
    ] = None,
    write: Annotated[
        Path | None,
        typer.Option(help="With a budget: write the settings of the best, or of --row, for `spfde train --settings`."),
    ] = None,
    as_json: Json = False,
) -> None:
    """What runs cost and when blocks freeze, without training and without data.

    With a budget: the combinations of sparsity, freezing and sieving (method spfde) that meet it. The best come first:
    lowest sparsity, then the smallest share at which neither freezing nor sieving exceeds it, then least frozen, then
    least removed. A --set of sparsity.target, freezing.flops_reduction or sieving.removed fixes it.
    """
    from spfde.budget import Budget

    budget = Budget(budget_flops, budget_memory, budget_time)
    if budget.limits:
        if experiments or settings:
            cause = "a budget is planned over a grid of its own"
            raise SpfdeError(cause, "leave --experiment and --settings out; --set fixes a sparsity or a share")
        if bench and budget_time is None:
            raise SpfdeError("--bench has the times of a budget of time", "add --budget-time, or leave it out")
        _plan_budget(budget, scale, rows or [], assignments or [], seeds or [], bench, write, as_json)
        return
    if write or bench:
        raise SpfdeError(
            "--write and --bench belong to a budget", "add --budget-flops, --budget-memory or --budget-time"
        )
    from spfde.plans import describe_rows

    runs = selected(settings, scale, experiments, rows, assignments, seeds)
    _show(describe_rows(runs, seeds=True), as_json)


def plans(
    experiments: Annotated[list[str], typer.Argument(help="Experiments; each at its own scale, where it has one.")],
    scale: Scale,
    out: Annotated[Path, typer.Option(help="Folder for the plans, EXPERIMENT.json each.")] = Path("plans"),
) -> None:
    """The plans of whole experiments, as `spfde plan --json` prints one."""
    from spfde.experiments.files import scale_of
    from spfde.experiments.resolve import select
    from spfde.files import write_json
    from spfde.plans import describe_rows

    for experiment in experiments:
        write_json(out / f"{experiment}.json", describe_rows(select(scale_of(experiment, scale), [experiment])))


def _plan_budget(
    budget: Any,
    scale: str,
    rows: list[str],
    assignments: list[str],
    seeds: list[int],
    bench: Path | None,
    write: Path | None,
    as_json: bool,
) -> None:
    from spfde.budget import ORDER, combinations
    from spfde.experiments.files import read_scale
    from spfde.experiments.resolve import parse_assignments
    from spfde.experiments.stored import write_settings
    from spfde.plans import describe

    seed = (seeds or read_scale(scale).seeds)[0]
    told = with_one_seed(parse_assignments(assignments), seeds)
    found = combinations(scale, budget, told, seed, bench)
    by_row = {one.plan.settings.row: one for one in found}
    listed = [lookup("combination in the budget", row, by_row) for row in rows] or found
    if write:
        write_settings(write, listed[0].plan.settings)
    if as_json:
        _show([describe(one.plan) for one in listed], as_json)
        return
    limits = " ".join(f"--budget-{kind} {limit:g}" for kind, limit in budget.limits.items())
    typer.echo(f"{len(found)} combinations meet {limits}; best first: {ORDER}")
    _show([describe(one.plan) for one in listed[:SHOWN]], as_json)
    if len(listed) > SHOWN:
        typer.echo(f"and {len(listed) - SHOWN} more; --json lists them all")


def _show(described: list[dict[str, Any]], as_json: bool) -> None:
    if as_json:
        typer.echo(json.dumps(described, indent=1))
        return
    typer.echo(
        f"{'row':32} {'paper':>9} {'full':>9} {'executed':>9}  {'memory min':>10} {'avg':>8}  {'T_frz':>5} {'saved':>6}"
    )
    for row in described:
        flops, memory = row["flops"], row["memory"]
        name = row["row"] + (f" seed {row['seed']}" if row["seed"] is not None else "")
        freeze = f"{row['t_frz']:5d} {row['freezing_achieved']:6.1%}" if row["t_frz"] is not None else ""
        if flops["paper"] is None:
            typer.echo(f"{name:32} {'costs depend on the mask; a record has them':53} {freeze}".rstrip())
            continue
        typer.echo(
            f"{name:32} {flops['paper']:9.3e} {flops['full']:9.3e} {flops['executed']:9.3e}  "
            f"{memory['paper_min'] / 1e6:7.1f} MB {memory['paper_avg'] / 1e6:5.1f} MB  {freeze}"
        )
    if left_out := sorted({name for row in described for name in row["not_in_paper"]}):
        typer.echo(f"not in paper, in full and executed: {', '.join(left_out)}")
    typer.echo("executed assumes dense kernels, which multiply by masks; a record counts what was run")
