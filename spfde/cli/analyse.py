"""`spfde analyse`."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from spfde.cli.options import Cache, DataRoot, Device, Rows, Scale, Seeds


class Kind(StrEnum):
    similarity = "similarity"
    cka = "cka"
    gradients = "gradients"


def analyse(
    kind: Annotated[Kind, typer.Argument(help="Structural similarity or CKA to the final network, or gradient norms.")],
    scale: Scale,
    experiment: Annotated[str, typer.Option("--experiment", help="Experiment whose runs keep snapshots.")] = "figure1",
    rows: Rows = None,
    seeds: Seeds = None,
    results: Annotated[Path, typer.Option("--results", help="Folder of all results.")] = Path("results"),
    data_root: DataRoot = Path(".data"),
    cache: Cache = Path(".data/cache"),
    device: Device = None,
) -> None:
    """Analyse the snapshots of an experiment's runs, layer by layer, into results/<scale>/analysis/."""
    import pandas as pd

    from spfde import analysis
    from spfde.data import load
    from spfde.errors import SpfdeError
    from spfde.experiments.resolve import select
    from spfde.results.collect import record_folders, write
    from spfde.training.device import choose

    runs = [run for run in select(scale, [experiment], rows or [], seeds or []) if run.training.snapshots]
    folders = {folder.name: folder for folder in record_folders(scale, results)}
    where = choose(device)
    frames = []
    for run in runs:
        if run.run_id not in folders:
            raise SpfdeError(
                f"{run.run_id} is not among the records", f"train it with --scale {scale} --experiment {experiment}"
            )
        folder = folders[run.run_id]
        if kind is Kind.similarity:
            frame = analysis.structure(folder)
        else:
            compute = analysis.representations if kind is Kind.cka else analysis.gradients
            frame = compute(folder, load(run.data, data_root, cache), where)
        identity = {"run_id": run.run_id, "row": run.row, "seed": run.seed}
        frames.append(pd.DataFrame(identity, index=frame.index).join(frame))
    if not frames:
        raise SpfdeError(f"no run of {experiment} keeps snapshots", "add training.snapshots to a row's settings")
    path = results / scale / "analysis" / f"{experiment}.{kind.value}.csv"
    write(pd.concat(frames, ignore_index=True), path)
    typer.echo(path)
