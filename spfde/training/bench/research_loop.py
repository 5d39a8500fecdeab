"""A training loop as published with papers on sparse training, with which `spfde` is compared.

Images are decoded pictures in a DataLoader with torchvision's transforms, masks are applied parameter by parameter in
Python, and forgetting is counted sample by sample. Nothing in it is slow on purpose.
"""

from collections import defaultdict
from collections.abc import Iterator

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from spfde.data import Split


class Pictures(Dataset[tuple[Tensor, int, int]]):
    """Pictures with the usual crop, flip and normalisation, and their indices."""

    def __init__(self, split: Split) -> None:
        from torchvision.transforms import Compose, Normalize, RandomCrop, RandomHorizontalFlip, ToTensor

        self.pictures = [Image.fromarray(np.asarray(image.permute(1, 2, 0))) for image in split.images]
        self.labels = split.labels.tolist()
        normalise = Normalize((0.5, 0.5, 0.5), (0.25, 0.25, 0.25))
        self.transform = Compose([RandomCrop(split.images.shape[-1], 4), RandomHorizontalFlip(), ToTensor(), normalise])

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> tuple[Tensor, int, int]:
        return self.transform(self.pictures[index]), self.labels[index], index


class ResearchLoop:
    """Steps of such a loop, epoch after epoch.

    Args:
        model: the network.
        optimizer: its optimizer.
        masks: 0 and 1 of each sparse weight, by parameter name.
        split: the samples.
        batch: samples per step.
    """

    def __init__(
        self,
        model: nn.Module,
        optimizer: torch.optim.Optimizer,
        masks: dict[str, Tensor],
        split: Split,
        batch: int,
    ) -> None:
        self.model, self.optimizer, self.masks = model.train(), optimizer, masks
        self.loader = DataLoader(Pictures(split), batch, shuffle=True)
        self.right: dict[int, int] = {}
        self.forgotten: dict[int, int] = defaultdict(int)
        self._batches = self.batches()

    def batches(self) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
        while True:
            yield from self.loader

    def step(self) -> None:
        images, labels, indices = next(self._batches)
        self.optimizer.zero_grad()
        output = self.model(images)
        F.cross_entropy(output, labels).backward()
        for name, parameter in self.model.named_parameters():
            if name in self.masks and parameter.grad is not None:
                parameter.grad.data = parameter.grad.data * self.masks[name]
        self.optimizer.step()
        for name, parameter in self.model.named_parameters():
            if name in self.masks:
                parameter.data = parameter.data * self.masks[name]
        predicted = output.max(1)[1]
        for position, index in enumerate(indices):
            key, right = int(index.item()), int(predicted[position].item() == labels[position].item())
            if self.right.get(key, 0) > right:
                self.forgotten[key] += 1
            self.right[key] = right
