"""`spfde cost`."""

import json
from pathlib import Path
from typing import Annotated

import typer

from spfde.cli.options import Json, Scale
from spfde.cli.results import Results
from spfde.errors import SpfdeError


def cost(
    scale: Scale,
    folders: Annotated[list[Path] | None, typer.Argument(help="Records; by default all of the scale.")] = None,
    results: Results = Path("results"),
    out: Annotated[
        Path | None, typer.Option("--out", help="CSV file to write, e.g. results/SCALE/costs.csv, which tables follow.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Account for finished runs again: FLOPs and memory by the present code, from their settings and traces alone."""
    from spfde.results.account import account, write_costs
    from spfde.results.collect import record_folders

    chosen = folders or record_folders(scale, results, weights=False)
    if out:
        if as_json:
            raise SpfdeError("--json prints costs and --out writes them", "leave one of them out")
        typer.echo(f"{write_costs(chosen, out)} runs in {out}")
        return
    found = [account(folder) for folder in chosen]
    if as_json:
        typer.echo(json.dumps(found, indent=1))
        return
    width = max([len(one["run_id"]) for one in found], default=6)
    heads = f"{'paper':>9} {'full':>9} {'executed':>9} {'extra':>9}  {'memory min':>10} {'avg':>9} {'peak':>9}"
    typer.echo(f"{'run id':{width}} {heads}")
    for one in found:
        flops = " ".join(f"{one['flops'][column]:9.3e}" for column in ("paper", "full", "executed", "extra"))
        least, mean, peak = (one["memory"][column] / 1e6 for column in ("paper_min", "paper_avg", "full_peak"))
        typer.echo(f"{one['run_id']:{width}} {flops}  {least:7.1f} MB {mean:6.1f} MB {peak:6.1f} MB")
