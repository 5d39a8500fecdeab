"""`spfde train`."""

from pathlib import Path
from typing import Annotated

import typer

from spfde.cli.options import (
    Assignments,
    Cache,
    DataRoot,
    Device,
    Experiments,
    Kernels,
    Out,
    Rows,
    Scale,
    Seeds,
    SettingsFile,
    TimeLimit,
)
from spfde.cli.selection import selected


def train(
    scale: Scale,
    experiments: Experiments = None,
    rows: Rows = None,
    assignments: Assignments = None,
    seeds: Seeds = None,
    settings: SettingsFile = None,
    data_root: DataRoot = Path(".data"),
    cache: Cache = Path(".data/cache"),
    out: Out = Path("runs"),
    device: Device = None,
    time_limit: TimeLimit = None,
    kernels: Kernels = "auto",
    keep_diverged: Annotated[
        bool, typer.Option("--keep-diverged", help="A run that diverges counts as done: others go on, exit code 0.")
    ] = False,
) -> None:
    """Train runs and write their records; finished ones are skipped, interrupted ones go on."""
    from spfde.data import load
    from spfde.errors import Diverged
    from spfde.plans import plan_settings, planned_seed
    from spfde.training.clock import Clock
    from spfde.training.distributed import joined
    from spfde.training.loop import finished_before
    from spfde.training.loop import train as train_run
    from spfde.training.progress import say

    runs = selected(settings, scale, experiments, rows, assignments, seeds)
    for run in {(run.row_digest, planned_seed(run)): run for run in runs if run.freezing.flops_reduction}.values():
        plan_settings(run)  # if freezing cannot save what is wanted, this fails before anything has been trained
    clock = Clock(limit=time_limit)
    clock.listen()
    splits = {}
    with joined(device) as (team, where):
        for run in runs:
            try:
                if finished_before(run, out, team):
                    continue
                if run.data not in splits:
                    splits = {run.data: load(run.data, data_root, cache)}
                train_run(run, splits[run.data], out, where, clock, team, kernels)
            except Diverged as error:
                if not keep_diverged:
                    raise
                say(f"warning: {error.cause}")
