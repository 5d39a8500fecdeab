"""`spfde bench`."""

import json
from pathlib import Path
from typing import Annotated, Literal

import typer

What = Annotated[
    Literal["speed", "epochs", "steps", "scaling"],
    typer.Argument(
        help="speed: steps, loader, updates and start-up against the best dense ones. epochs: what freezing and "
        "sieving save. steps: of a scale's network, from which tables take the seconds of "
        "every row. scaling: over the network's width and over sparsity."
    ),
]


SHARED = {"what", "repeats", "out"}  # options of every kind of benchmark, and those of each
TAKES = {
    "speed": {"rows", "as_json"},
    "epochs": {"scale", "device", "model", "epochs", "samples", "batch_size"},
    "steps": {"scale"},
    "scaling": set[str](),
}


def bench(
    context: typer.Context,
    what: What = "speed",
    rows: Annotated[
        list[str] | None, typer.Option("--row", help="Of speed: a row; repeatable; all by default.")
    ] = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="Of speed: one JSON array on stdout, and nothing else.")
    ] = False,
    repeats: Annotated[
        int | None, typer.Option(min=2, help="How often everything takes its turn; 7, of epochs 2, by default.")
    ] = None,
    out: Annotated[
        Path | None, typer.Option("--out", help="CSV file for the numbers; the repeats of epochs go beside it.")
    ] = None,
    scale: Annotated[
        str, typer.Option("--scale", help="Of epochs and steps: whose data and recipe are timed.")
    ] = "cifar100",
    device: Annotated[
        str | None,
        typer.Option("--device", help="Of epochs: cpu, cuda or cuda:N; by default the GPU, if there is one."),
    ] = None,
    model: Annotated[str, typer.Option(help="Of epochs: the network; scale: that of the scale.")] = "resnet20",
    epochs: Annotated[int, typer.Option(min=16, help="Of epochs: how many consecutive ones.")] = 50,
    samples: Annotated[int, typer.Option(min=1, help="Of epochs: random images of the training set.")] = 2000,
    batch_size: Annotated[
        int | None, typer.Option(min=1, help="Of epochs: samples per step; by default the scale's.")
    ] = None,
) -> None:
    """Measure speed, on random images: no data are needed."""
    from spfde.errors import SpfdeError, lookup
    from spfde.files import write_text
    from spfde.training.bench import turns

    for option in context.command.params:
        name = str(option.name)
        given = context.get_parameter_source(name)
        if given and given.name == "COMMANDLINE" and name not in SHARED | TAKES[what]:
            others = " and ".join(kind for kind, taken in TAKES.items() if name in taken)
            cause = f"bench {what} does not take {option.opts[0]}"
            raise SpfdeError(cause, f"leave it out; it is an option of bench {others}")
    if what == "speed":
        from spfde.training.bench import speed

        for name in rows or ():
            lookup("row", name, speed.ROWS)
        found = []
        for one in speed.bench(rows or list(speed.ROWS), repeats or 7):
            found.append(one)
            if not as_json:
                typer.echo(turns.line(one))
        if as_json:
            typer.echo(json.dumps([one._asdict() for one in found], indent=2))
        if out:
            write_text(out, turns.frame(found).to_csv(index=False))
    elif what == "epochs":
        from spfde.training.bench import epochs as measured
        from spfde.training.device import choose

        of_scale = model == "scale"
        timed = measured.bench(
            scale, choose(device), None if of_scale else model, epochs, samples, repeats or 2, batch_size
        )
        means, path = measured.summarise(timed), out or Path("bench.csv")
        write_text(path.with_suffix(".repeats.csv"), timed.to_csv(index=False))
        write_text(path, means.to_csv(index=False))
        columns = ["kind", "flops_reduction", "seconds_per_epoch", "std", "speedup", "n"]
        typer.echo(means[columns].to_string(index=False))
    elif what == "steps":
        from spfde.training.bench import steps as stepped

        frame = stepped.bench(scale, repeats or 7)
        write_text(out or Path("results") / scale / "steps.csv", frame.to_csv(index=False))
        typer.echo(frame[["share", "frozen", "seconds", "turns"]].to_string(index=False))
    else:
        from spfde.training.bench import scaling

        frame = scaling.bench(repeats or 7)
        write_text(out or Path("scaling.csv"), frame.to_csv(index=False))
        typer.echo(scaling.summary(frame))
