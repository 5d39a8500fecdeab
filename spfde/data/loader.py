"""Batches of a split that is kept on the device: one gather per step crops and flips the whole batch.

Order and augmentation are drawn from two separate random streams for the full training set and then filtered. A run on
fewer samples therefore sees a subsequence of the same order, and each sample gets the same augmentation.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator

import torch
import torch.nn.functional as F
from torch import Tensor

from spfde.data.split import AnySplit, DataInfo, Split
from spfde.rng import generator
from spfde.settings import DataSettings

Batch = tuple[Tensor, Tensor, Tensor]


class LoaderBase(ABC):
    """Base of the loaders: draws the order and cuts it into batches; a subclass makes the images.

    Attributes:
        memory_format: the memory layout of the images; torch's default (channels first) unless it is set.
    """

    memory_format = torch.contiguous_format

    def __init__(
        self, split: AnySplit, info: DataInfo, batch_size: int, seed: int, device: torch.device | str, train: bool
    ) -> None:
        self.batch_size, self.seed, self.device, self.train = batch_size, seed, torch.device(device), train
        self._labels = split.labels.to(self.device)
        self._mean = torch.tensor(info.mean, device=self.device).view(1, -1, 1, 1)
        self._std = torch.tensor(info.std, device=self.device).view(1, -1, 1, 1)

    def __len__(self) -> int:
        return len(self._labels)

    def steps(self, samples: int) -> int:
        """The number of steps that so many samples take; a short last batch counts as a step."""
        return -(-samples // self.batch_size)

    def epoch(
        self,
        epoch: int,
        members: Tensor | None = None,
        skip: int = 0,
        share: Callable[[Tensor], Tensor] = lambda batch: batch,
    ) -> Iterator[Batch]:
        """One pass over the members, in random order when training.

        Args:
            epoch: its number selects the order and the augmentation of this pass.
            members: bool (samples,), the samples that take part; by default all.
            skip: leading batches to leave out, because they were trained before an interruption.
            share: which samples of each batch this process gets when several processes train together; by default all.

        Yields:
            Sample indices int64 (B,) of the whole batch, and of this process's share of it normalised images float32
            (S, C, H, W) and labels int64 (S,), on the device. The last batch may be short.
        """
        order = self._order(epoch)
        if members is not None:
            order = order[members.to(order.device)[order]]
        batches = list(order.split(self.batch_size))[skip:] if len(order) else []
        shares = self._batches(epoch, [share(batch) for batch in batches])
        for indices, (images, labels) in zip(batches, shares, strict=True):
            yield indices.to(self.device, non_blocking=True), images, labels

    def fetch(self, indices: Tensor) -> tuple[Tensor, Tensor]:
        """Normalised images (B, C, H, W) and labels (B,) of given samples, without augmentation, on the device."""
        indices = indices.to(self.device)
        return self._normalise(self._plain(indices)), self._labels[indices]

    @abstractmethod
    def _plain(self, indices: Tensor) -> Tensor:
        """Images uint8 (B, C, H, W) without augmentation, on the device."""

    def _order(self, epoch: int) -> Tensor:
        if not self.train:
            return torch.arange(len(self))
        return torch.randperm(len(self), generator=generator(self.seed, "order", epoch))

    @abstractmethod
    def _batches(self, epoch: int, batches: list[Tensor]) -> Iterator[tuple[Tensor, Tensor]]:
        """Images and labels of batches of indices."""

    def _normalise(self, images: Tensor) -> Tensor:
        return images.to(torch.float32, memory_format=self.memory_format).div_(255).sub_(self._mean).div_(self._std)


class Loader(LoaderBase):
    """Batches of decoded samples, kept on the device as uint8.

    In training, images are shifted by up to `settings.padding` pixels over black borders (as torchvision's padded
    RandomCrop before Normalize) and, with `settings.flip`, mirrored with probability one half.
    """

    def __init__(
        self,
        split: Split,
        settings: DataSettings,
        info: DataInfo,
        batch_size: int,
        seed: int,
        device: torch.device | str,
        train: bool = True,
    ) -> None:
        super().__init__(split, info, batch_size, seed, device, train)
        self._shifts = 2 * settings.padding + 1 if train else 1
        self._flip = settings.flip and train
        border = self._shifts // 2
        images = F.pad(split.images.to(self.device), (border,) * 4)
        # (N, C, shifts, shifts, H, W): every crop of every image, as a view
        self._crops = images.unfold(2, info.size, 1).unfold(3, info.size, 1)

    def _plain(self, indices: Tensor) -> Tensor:
        return self._crops[indices, :, self._shifts // 2, self._shifts // 2]

    def _order(self, epoch: int) -> Tensor:
        return super()._order(epoch).to(self.device)

    def _batches(self, epoch: int, batches: list[Tensor]) -> Iterator[tuple[Tensor, Tensor]]:
        draws = generator(self.seed, "augmentation", epoch)
        down, right = torch.randint(self._shifts, (2, len(self)), generator=draws).to(self.device)
        mirror = torch.rand(len(self), generator=draws).lt(0.5).to(self.device).view(-1, 1, 1, 1)
        for indices in batches:
            images = self._crops[indices, :, down[indices], right[indices]]
            if self._flip:
                images = torch.where(mirror[indices], images.flip(3), images)
            yield self._normalise(images), self._labels[indices]
