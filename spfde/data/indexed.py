"""Any data set of (image, label), with the position of each sample."""

from collections.abc import Sized
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.utils.data import Dataset, default_collate


class Samples(Sized, Protocol):
    """Pairs (image, label) by position, as torchvision's data sets have them."""

    def __getitem__(self, position: int, /) -> Any: ...


class Indexed(Dataset[tuple[int, Any, Any]]):
    """Gives (position, image, label) of each sample, so that sieving knows which sample it was.

    Args:
        samples: the training set.
        plain: the same samples without random augmentation, for methods that score data; by default the
            training set itself.
    """

    def __init__(self, samples: Samples, plain: Samples | None = None) -> None:
        self.samples = samples
        self.plain = samples if plain is None else plain

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, position: int) -> tuple[int, Any, Any]:
        image, label = self.samples[position]
        return position, image, label

    def fetch(self, indices: Tensor) -> tuple[Tensor, Tensor]:
        """Images and labels at indices (int64), as SparseTraining's `fetch` needs them."""
        images, labels = default_collate([self.plain[index] for index in indices.tolist()])
        return images, torch.as_tensor(labels)
