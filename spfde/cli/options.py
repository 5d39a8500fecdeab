"""The options that commands share, as annotated types: `def train(scale: Scale, rows: Rows = None)`."""

from pathlib import Path
from typing import Annotated, Literal

import typer


def _default_scale() -> str:
    from spfde.experiments.files import default_scale

    return default_scale()


def _checked_scale(name: str) -> str:
    """The name of a scale becomes part of the paths of all results, which must not leave their folder."""
    from spfde.errors import SpfdeError, nearest
    from spfde.experiments.files import NAME, scale_names

    if not NAME.fullmatch(name):
        raise SpfdeError(f'unknown scale "{name}"', nearest(name, scale_names()))
    return name


Scale = Annotated[
    str,
    typer.Option(
        "--scale",
        callback=_checked_scale,
        default_factory=_default_scale,
        show_default="that of config/config.yaml",
        help="Scale: the name of a file in config/scales.",
    ),
]
Experiments = Annotated[
    list[str] | None,
    typer.Option("--experiment", help="Experiment: the name of a file in config/experiments; repeatable."),
]
Rows = Annotated[
    list[str] | None,
    typer.Option(
        "--row",
        help="Row of the experiments, e.g. spfde-s90-f20-d20 or table2/dense; repeatable; by default all.",
    ),
]
Assignments = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="A setting, e.g. sparsity.target=0.95; repeatable."),
]
Seeds = Annotated[
    list[int] | None, typer.Option("--seed", min=0, help="Root seed; repeatable; by default the scale's.")
]
SettingsFile = Annotated[
    Path | None,
    typer.Option("--settings", help="A record's settings.yaml or a planned one, in place of scale and experiment."),
]
DataRoot = Annotated[Path | None, typer.Option("--data-root", help="Folder that holds the data sets, one folder each.")]
Cache = Annotated[Path, typer.Option("--cache", help="Folder for decoded data.")]
Out = Annotated[Path, typer.Option("--out", help="Folder for the records, one folder for each run.")]
Device = Annotated[
    str | None, typer.Option("--device", help="cpu, cuda or cuda:N; by default the GPU, if there is one.")
]
TimeLimit = Annotated[
    float | None, typer.Option("--time-limit", min=0, help="Stop resumably, with exit code 75, after so many seconds.")
]
Kernels = Annotated[
    Literal["auto", "dense", "sparse"],
    typer.Option("--kernels", help="On a CPU: skip the zeros (sparse), multiply by masks (dense), or what is faster."),
]
Json = Annotated[bool, typer.Option("--json", help="One JSON array on stdout, and nothing else.")]
