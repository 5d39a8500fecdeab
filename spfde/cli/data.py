"""`spfde data`: download and decode a data set."""

from pathlib import Path
from typing import Annotated

import typer


def data(
    name: Annotated[str, typer.Argument(help="data set: digits, cifar10, cifar100, imagenet, or one of config/data")],
    data_root: Annotated[Path, typer.Option(help="folder with a folder for each data set")] = Path(".data"),
    cache: Annotated[Path, typer.Option(help="folder for decoded data")] = Path(".data/cache"),
) -> None:
    """Download a data set where that is possible, check it, and decode it into the cache."""
    from spfde.data.sources import prepare

    typer.echo(f"{name}: ready in {prepare(name, data_root, cache)}")
