"""The data sets by name: what is known of each, and its samples.

Folders of images of your own take a file in config/data (`spfde.data.described`); anything else takes a class and
`register_source`.
"""

import functools
import warnings
from pathlib import Path

import torch

from spfde.data.cifar import Cifar
from spfde.data.described import described, described_names, description_digest
from spfde.data.digits import Digits
from spfde.data.imagefolder import StreamedFolder
from spfde.data.loader import Loader, LoaderBase
from spfde.data.split import AnySplit, DataInfo, FolderSplit, Source, Splits, divide
from spfde.data.streaming import StreamedLoader
from spfde.errors import SpfdeError, nearest
from spfde.settings import DataSettings

SOURCES: dict[str, Source] = {}


def register_source(source: Source) -> None:
    """Makes a data set known under the name in its `info`; a later registration replaces an earlier one."""
    SOURCES[source.info.name] = source


def source(name: str) -> Source:
    """A data set: one that is registered, or one that a file in config/data describes, which is read only now.

    Raises:
        SpfdeError: no such data set (naming the nearest), or its description is broken.
    """
    own = described_names()
    if name in SOURCES:
        if name in own:
            _warn_of_namesake(name)
        return SOURCES[name]
    if name in own:
        return described(name)
    raise SpfdeError(f'unknown data set "{name}"', nearest(name, [*SOURCES, *own]))


@functools.cache  # once for each name
def _warn_of_namesake(name: str) -> None:
    cause = f"config/data/{name}.yaml is not used: a data set of that name is built in"
    warnings.warn(f"{cause}; describe yours under another name", stacklevel=4)


def is_known(name: str) -> bool:
    """Whether there is a data set of that name."""
    return name in SOURCES or name in described_names()


def info(name: str) -> DataInfo:
    """What is known of a data set without its files.

    Raises:
        SpfdeError: no such data set.
    """
    return source(name).info


def is_streamed(name: str) -> bool:
    """Whether the images of a data set stay on disk, so that training decodes them.

    Raises:
        SpfdeError: no such data set.
    """
    return isinstance(source(name), StreamedFolder)


def digest(name: str) -> str | None:
    """Digest of the description in config/data of a data set; none where it is built in or registered, or unknown.

    Raises:
        SpfdeError: its description is broken.
    """
    return description_digest(name) if name not in SOURCES and name in described_names() else None


def load(settings: DataSettings, data_root: Path | None, cache: Path | None) -> Splits:
    """The samples of a data set, from files that are there; nothing is downloaded.

    Args:
        data_root: holds a folder for each data set; digits need none.
        cache: folder of decoded data; with None the files are decoded each time.

    Raises:
        SpfdeError: no such data set, or its files are missing, damaged or incomplete.
    """
    train, test = source(settings.name).open(data_root, cache)
    return Splits(*divide(train, settings), test)


def prepare(name: str, data_root: Path | None, cache: Path) -> Path:
    """Downloads a data set if needed and possible, decodes it into the cache, and returns the file in the cache.

    A streamed data set is only checked, not decoded, and the path is that of its folder.

    Raises:
        SpfdeError: no such data set, a failed download, or files missing, damaged or incomplete.
    """
    return source(name).prepare(data_root, cache)


def open_loader(
    split: AnySplit,
    settings: DataSettings,
    info: DataInfo,
    batch_size: int,
    seed: int,
    device: torch.device | str,
    train: bool = True,
) -> LoaderBase:
    """The loader that serves a split: `Loader` in memory, `StreamedLoader` from disk."""
    if isinstance(split, FolderSplit):
        return StreamedLoader(split, settings, info, batch_size, seed, device, train)
    return Loader(split, settings, info, batch_size, seed, device, train)


DIGITS = DataInfo("digits", 10, 1, 8, 1437, 360, mean=(0.30535122,), std=(0.37571714,))
CIFAR10 = DataInfo(
    "cifar10", 10, 3, 32, 50_000, 10_000,
    mean=(0.49139968, 0.48215841, 0.44653091), std=(0.24703223, 0.24348513, 0.26158784),
)  # fmt: skip
CIFAR100 = DataInfo(
    "cifar100", 100, 3, 32, 50_000, 10_000,
    mean=(0.50707516, 0.48654887, 0.44091784), std=(0.26733429, 0.25643846, 0.27615047),
)  # fmt: skip
IMAGENET = DataInfo("imagenet", 1000, 3, 224, 1_281_167, 50_000, mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225))

register_source(Digits(DIGITS))
register_source(
    Cifar(
        CIFAR10,
        "https://www.cs.toronto.edu/~kriz/cifar-10-binary.tar.gz",
        "c32a1d4ab5d03f1284b67883e8d87530",
        label_bytes=1,
        train=tuple(f"cifar-10-batches-bin/data_batch_{part}.bin" for part in range(1, 6)),
        test=("cifar-10-batches-bin/test_batch.bin",),
    )
)
register_source(
    Cifar(
        CIFAR100,
        "https://www.cs.toronto.edu/~kriz/cifar-100-binary.tar.gz",
        "03b5dce01913d631647c71ecec9e9cb8",
        label_bytes=2,
        train=("cifar-100-binary/train.bin",),
        test=("cifar-100-binary/test.bin",),
    )
)
register_source(StreamedFolder(IMAGENET))
