"""Linear CKA (Kornblith et al., 2019) in minibatches, by the unbiased estimator of HSIC (Nguyen et al., 2021)."""

from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import pandas as pd
import torch
from torch import Tensor, nn

from spfde.analysis.snapshots import Snapshots, State, numbers
from spfde.data import Splits, info, open_loader
from spfde.errors import SpfdeError

SAMPLES, BATCH = 1024, 128


def representations(
    folder: Path, splits: Splits, device: torch.device | None = None, samples: int = SAMPLES, batch: int = BATCH
) -> pd.DataFrame:
    """CKA between each layer's output in a snapshot and in the final network, on test samples.

    Args:
        folder: a record with snapshots.
        splits: the data of its run.
        device: where to compute; the CPU by default.
        samples: how many test samples, at most; whole batches are used.
        batch: samples of a minibatch, at least 4.

    Returns:
        Columns epoch, layer, number, cka. The networks are in evaluation mode. A layer's output is what its convolution
        returns, before BatchNorm.

    Raises:
        SpfdeError: no snapshots, or fewer test samples than a minibatch.
    """
    snapshots = Snapshots.of(folder)
    device = device or torch.device("cpu")
    model = snapshots.model().to(device).eval()
    data = snapshots.settings.data
    loader = open_loader(splits.test, data, info(data.name), batch, snapshots.settings.seed, device, train=False)
    whole = min(samples, len(loader)) // batch
    if not whole or batch < 4:
        raise SpfdeError(f"no minibatch of {batch} in {len(loader)} test samples", "choose another size, at least 4")
    images = [images for _, images, _ in islice(loader.epoch(0), whole)]
    shown = numbers(model)
    final = list(_grams(model, snapshots.final, images, list(shown)))
    rows = []
    for epoch, state in snapshots.trained():
        sums = {name: torch.zeros(3, dtype=torch.float64, device=device) for name in shown}
        for now, then in zip(_grams(model, state, images, list(shown)), final, strict=True):
            for name in shown:
                sums[name] += _terms(now[name], then[name])
        rows += [(epoch, name, number, _ratio(sums[name])) for name, number in shown.items()]
    return pd.DataFrame(rows, columns=["epoch", "layer", "number", "cka"])


def cka(first: Tensor, second: Tensor, batch: int | None = None) -> float:
    """Linear CKA between two representations of the same samples.

    Args:
        first: (samples, features).
        second: (samples, other features).
        batch: samples of a minibatch, at least 4; all at once by default. A short last one is left out.
    """
    size = batch or len(first)
    pairs = [pair for pair in zip(first.split(size), second.split(size), strict=True) if len(pair[0]) == size]
    return _ratio(sum((_terms(_gram(one), _gram(other)) for one, other in pairs), torch.zeros(3, dtype=torch.float64)))


def hsic(first: Tensor, second: Tensor) -> Tensor:
    """The unbiased estimate of HSIC from two Gram matrices (n, n) of the same samples, n >= 4 (Song et al., 2012)."""
    n = len(first)
    hollow = 1 - torch.eye(n, dtype=first.dtype, device=first.device)
    one, other = first * hollow, second * hollow
    sums = one.sum() * other.sum() / ((n - 1) * (n - 2)) - 2 * (one.sum(0) @ other.sum(0)) / (n - 2)
    return ((one * other).sum() + sums) / (n * (n - 3))


def _terms(first: Tensor, second: Tensor) -> Tensor:
    """HSIC of the first with the second, of the first with itself, and of the second with itself.

    Summed over minibatches, these three terms give CKA.
    """
    return torch.stack([hsic(first, second), hsic(first, first), hsic(second, second)])


def _ratio(terms: Tensor) -> float:
    both, first, second = terms.tolist()
    return float(both / (first * second) ** 0.5)


def _gram(features: Tensor) -> Tensor:
    flat = features.flatten(1).double()
    flat = flat - flat.mean(dim=0)  # does not change HSIC, and avoids the loss of digits
    return flat @ flat.T


@torch.no_grad()
def _grams(model: nn.Module, state: State, images: list[Tensor], names: list[str]) -> Iterator[dict[str, Tensor]]:
    """Gram matrices (n, n) of the layers' outputs, minibatch by minibatch."""
    model.load_state_dict(state)
    grams: dict[str, Tensor] = {}

    def keep(name: str, output: Tensor) -> None:
        grams[name] = _gram(output)

    handles = [
        model.get_submodule(name).register_forward_hook(lambda _, __, output, name=name: keep(name, output))
        for name in names
    ]
    try:
        for batch in images:
            model(batch)
            yield dict(grams)
    finally:
        for handle in handles:
            handle.remove()
