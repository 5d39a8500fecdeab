"""Norms of a network's gradients by layer over training, and how they change (SpFDE, Fig. 3)."""

from itertools import islice
from pathlib import Path

import pandas as pd
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from spfde.analysis.snapshots import Snapshots, numbers
from spfde.data import Splits, info, open_loader

SAMPLES, BATCH = 1024, 128


def gradients(folder: Path, splits: Splits, device: torch.device | None = None, samples: int = SAMPLES) -> pd.DataFrame:
    """Gradient norms by epoch and layer, on training samples without augmentation.

    Args:
        folder: a record with snapshots.
        splits: the data of its run.
        device: where to compute; the CPU by default.
        samples: how many training samples, at most.

    Returns:
        Columns epoch, layer, number, norm and difference. The norm is the L2 norm of the mean loss's gradient at the
        layer's active weights; the difference is to the norm at the previous snapshot, NaN at the first. The networks
        are in evaluation mode.

    Raises:
        SpfdeError: no snapshots, or they cannot be read.
    """
    snapshots = Snapshots.of(folder)
    device = device or torch.device("cpu")
    model = snapshots.model().to(device).eval()
    data = snapshots.settings.data
    loader = open_loader(splits.train, data, info(data.name), BATCH, snapshots.settings.seed, device, train=False)
    batches = [(images, labels) for _, images, labels in islice(loader.epoch(0), -(-samples // BATCH))]
    shown, masked = numbers(model), set(snapshots.masked)
    rows = []
    for epoch, state in snapshots.trained():
        model.load_state_dict(state)
        norms = gradient_norms(model, batches, list(shown), masked)
        rows += [(epoch, name, number, norm) for (name, number), norm in zip(shown.items(), norms, strict=True)]
    frame = pd.DataFrame(rows, columns=["epoch", "layer", "number", "norm"])
    return frame.assign(difference=frame.groupby("layer", sort=False)["norm"].diff())


def gradient_norms(
    model: nn.Module, batches: list[tuple[Tensor, Tensor]], names: list[str], masked: set[str]
) -> list[float]:
    """L2 norms of the gradient of the mean cross-entropy over all samples with respect to the layers' weights.

    Args:
        model: the network, already in training or in evaluation mode.
        batches: pairs (images, labels).
        names: the layers.
        masked: the sparse ones among them. Their zero weights are outside the mask, so their gradient does not count.
    """
    weights = [model.get_submodule(name).get_parameter("weight") for name in names]
    count = sum(len(labels) for _, labels in batches)
    total = [torch.zeros_like(weight) for weight in weights]
    for images, labels in batches:
        loss = F.cross_entropy(model(images), labels, reduction="sum") / count
        torch._foreach_add_(total, list(torch.autograd.grad(loss, weights)))
    for name, weight, gradient in zip(names, weights, total, strict=True):
        if name in masked:
            gradient.mul_(weight != 0)
    return [float(gradient.norm()) for gradient in total]
