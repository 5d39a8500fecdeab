"""`spfde bench`."""

from pathlib import Path
from typing import Annotated

import typer

from spfde.cli.options import Device


def bench(
    scale: Annotated[str, typer.Option("--scale", help="Scale whose network is timed.")] = "cifar100",
    out: Annotated[Path, typer.Option("--out", help="CSV file for the means; the repeats go beside it.")] = Path(
        "bench.csv"
    ),
    device: Device = None,
    steps: Annotated[int, typer.Option(min=1, help="Timed steps of a case in a repeat.")] = 4,
    batch_size: Annotated[int | None, typer.Option(min=1, help="Samples per step; by default the scale's.")] = None,
    repeats: Annotated[int, typer.Option(min=2, help="How often each case is timed.")] = 5,
) -> None:
    """Measure what freezing and sieving save in time, on random images: no data are needed."""
    from spfde.files import write_text
    from spfde.training.bench import bench as measure
    from spfde.training.bench import summarise
    from spfde.training.device import choose

    timed = measure(scale, choose(device), steps, repeats, batch_size=batch_size)
    means = summarise(timed)
    write_text(out.with_suffix(".repeats.csv"), timed.to_csv(index=False))
    write_text(out, means.to_csv(index=False))
    typer.echo(means[["kind", "flops_reduction", "seconds_per_epoch", "std", "speedup", "n"]].to_string(index=False))
