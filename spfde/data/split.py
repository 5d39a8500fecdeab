"""What a data set is (`DataInfo`), its samples (`Split`, `Splits`), and how samples are held out."""

from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import torch
from torch import Tensor

from spfde.errors import SpfdeError
from spfde.rng import generator
from spfde.rounding import count_of
from spfde.settings import DataSettings


@dataclass(frozen=True)
class DataInfo:
    """What is known of a data set before its files are there: enough to plan and cost a run.

    `size` is the side of the square images in pixels; `mean` and `std` are those of each channel, for pixels in 0..1.
    """

    name: str
    classes: int
    channels: int
    size: int
    train_samples: int
    test_samples: int
    mean: tuple[float, ...]
    std: tuple[float, ...]

    def training_samples(self, settings: DataSettings) -> int:
        """Samples a run trains on: what the limit and the held-out validation share leave of the training set.

        Raises:
            SpfdeError: the validation share is less than one sample.
        """
        kept = min(settings.train_limit or self.train_samples, self.train_samples)
        return kept - validation_samples(kept, settings.validation)


@dataclass(frozen=True)
class Split:
    """Decoded samples in memory: images uint8 (N, C, H, W), labels int64 (N,)."""

    images: Tensor
    labels: Tensor

    def __len__(self) -> int:
        return len(self.labels)

    def select(self, which: Tensor) -> "Split":
        """The samples that `which` (bool (N,)) names, in their order."""
        return Split(self.images[which], self.labels[which])


@dataclass(frozen=True)
class FolderSplit:
    """Samples that stay on disk: the path of each image file, and labels int64 (N,)."""

    paths: tuple[str, ...]  # strings: a million Path objects take a gigabyte
    labels: Tensor

    def __len__(self) -> int:
        return len(self.labels)

    def select(self, which: Tensor) -> "FolderSplit":
        """The samples that `which` (bool (N,)) names, in their order."""
        return FolderSplit(tuple(self.paths[i] for i in which.nonzero().flatten().tolist()), self.labels[which])


AnySplit = Split | FolderSplit


@dataclass(frozen=True)
class Splits:
    """Training, validation (None without a held-out share) and test samples."""

    train: AnySplit
    validation: AnySplit | None
    test: AnySplit


class Source(Protocol):
    """Where a data set comes from; `Decoded` and `StreamedFolder` are the two kinds."""

    info: DataInfo

    def open(self, root: Path | None, cache: Path | None) -> tuple[AnySplit, AnySplit]:
        """The official training and test samples, from files that are there; never downloads."""

    def prepare(self, root: Path | None, cache: Path) -> Path:
        """Prepares the data for `open`, with a download where that is possible; returns where the prepared data is."""


def divide(train: AnySplit, settings: DataSettings) -> tuple[AnySplit, AnySplit | None]:
    """The first `train_limit` training samples, less a stratified validation set that is the same for every seed.

    Raises:
        SpfdeError: the validation share is less than one sample.
    """
    if settings.train_limit is not None:
        train = train.select(torch.arange(len(train)) < settings.train_limit)
    held = validation_samples(len(train), settings.validation)
    if not held:
        return train, None
    chosen = stratified(train.labels, held, "validation")
    return train.select(~chosen), train.select(chosen)


def validation_samples(total: int, share: float) -> int:
    held = count_of(share, total)
    if share and not held:
        cause = f"setting data.validation = {share} is less than one of {total} samples"
        raise SpfdeError(cause, "hold out a larger share, or none")
    return held


def stratified(labels: Tensor, held: int, purpose: str) -> Tensor:
    """Holds out exactly `held` samples at random, each class in proportion (largest remainders); bool (N,).

    The draw depends on `purpose` and the labels alone, not on a run's seed.
    """
    sizes = torch.bincount(labels)
    quota = sizes * held // len(labels)
    remainders = sizes * held % len(labels)
    quota[remainders.argsort(descending=True, stable=True)[: held - int(quota.sum())]] += 1
    order = torch.randperm(len(labels), generator=generator(0, purpose))
    order = order[labels[order].argsort(stable=True)]  # sorted by class, in random order within a class
    rank = torch.arange(len(labels)) - (sizes.cumsum(0) - sizes)[labels[order]]
    chosen = torch.zeros(len(labels), dtype=torch.bool)
    chosen[order] = rank < quota[labels[order]]
    return chosen
