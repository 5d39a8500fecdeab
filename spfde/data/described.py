"""Your own data sets without code: folders of images, each described by a file in config/data.

# config/data/flowers.yaml: images in <data root>/flowers/{train,val}/<class>/
classes: 5
size: 64
train_samples: 3000
test_samples: 600
"""

import dataclasses
import hashlib
import json
from typing import Annotated, Any, Literal

from pydantic import Field

from spfde.configuration import config_file, config_files
from spfde.data.imagefolder import ImageFolder, StreamedFolder
from spfde.data.split import DataInfo
from spfde.errors import SpfdeError
from spfde.files import read_yaml
from spfde.settings import Section, parse


class Description(Section):
    """What a file in config/data says; its name is the data set's."""

    classes: int = Field(ge=2, le=1_000_000, description="folders in train and in val")
    channels: Literal[1, 3] = Field(3, description="1: grey, 3: colour")
    size: int = Field(
        ge=1, le=4096, description="side of the square images in pixels, to which they are scaled and cropped"
    )
    train_samples: int = Field(ge=1, le=1_000_000_000, description="images in train")
    test_samples: int = Field(ge=1, le=1_000_000_000, description="images in val")
    mean: list[float] | None = Field(None, description="of each channel, of pixels scaled to 0..1; by default 0.5")
    std: list[Annotated[float, Field(gt=0)]] | None = Field(None, description="of each channel; by default 0.25")
    streamed: bool = Field(False, description="images are decoded whenever they are needed, not once into memory")


def described_names() -> list[str]:
    """The names of the data sets that have a file in config/data."""
    return [path.stem for path in config_files("data")]


def description_digest(name: str) -> str:
    """Twelve hex digits over what a description means: layout and comments of the file do not count.

    Raises:
        SpfdeError: as `described`.
    """
    source = described(name)
    meant = {**dataclasses.asdict(source.info), "streamed": isinstance(source, StreamedFolder)}
    return hashlib.sha256(json.dumps(meant, sort_keys=True).encode()).hexdigest()[:12]


def described(name: str) -> ImageFolder | StreamedFolder:
    """The data set that config/data/<name>.yaml describes.

    Raises:
        SpfdeError: the file is not YAML, or not such a description.
    """
    path = config_file("data", f"{name}.yaml")
    values: Any = read_yaml(path, "description", "mend the file") or {}
    told = parse(Description, values, str(path))
    mean, std = told.mean or [0.5] * told.channels, told.std or [0.25] * told.channels
    if not len(mean) == len(std) == told.channels:
        raise SpfdeError(f"{path} has not a mean and std for each of {told.channels} channels", "give one a channel")
    sizes = (told.classes, told.channels, told.size, told.train_samples, told.test_samples)
    info = DataInfo(path.stem, *sizes, tuple(mean), tuple(std))
    return StreamedFolder(info) if told.streamed else ImageFolder(info)
