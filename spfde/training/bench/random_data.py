"""Random images and labels of the shape of a data set."""

import torch

from spfde.data import Split, Splits, info
from spfde.experiments.resolve import resolve


def random_splits(scale: str, samples: int) -> Splits:
    """So many training samples of the shape of a scale's data set, which are the test set too."""
    data = info(resolve(scale, {}).data.name)
    draws = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (samples, data.channels, data.size, data.size), generator=draws, dtype=torch.uint8)
    split = Split(images, torch.randint(0, data.classes, (samples,), generator=draws))
    return Splits(split, None, split)
