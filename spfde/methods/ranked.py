"""Methods that rank all weights of the network together, so that the ranking decides the density of each layer."""

import copy
import warnings
from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from typing import ClassVar

import torch
from torch import Tensor, nn

from spfde.errors import SpfdeWarning
from spfde.methods.base import Method
from spfde.methods.run import Run
from spfde.rounding import count_of
from spfde.sparsity.masks import SparseLayer


def best(scores: Sequence[Tensor], density: float) -> list[Tensor]:
    """Masks of the highest scores of all tensors together: exactly density x size weights in all, rounded half up."""
    flat = torch.cat([score.flatten() for score in scores])
    chosen = torch.zeros_like(flat, dtype=torch.bool)
    chosen[flat.topk(count_of(density, flat.numel())).indices] = True
    parts = chosen.split([score.numel() for score in scores])
    return [part.view_as(score) for part, score in zip(parts, scores, strict=True)]


class Ranked(Method):
    """A mask that follows from a ranking over all sparse layers, and does not change during training.

    How dense a layer gets depends on data, so plans have the distribution's densities and traces the real ones.
    """

    scope = "global"
    unplannable = True
    mask_of_weights = True

    @property
    def density(self) -> float:
        """Share of active weights over all sparse layers together."""
        return 1 - self.plan.settings.sparsity.target

    def settle(self, run: Run, layer: SparseLayer) -> None:
        """Does nothing: a fixed mask is final, whatever density was planned for the layer."""


class Scored(Ranked, ABC):
    """Pruning before training: scores every weight of the dense network on a few samples and keeps the best.

    The scores are computed on a copy of the network. Training starts from the scored weights, and scoring changes no
    gradient, no BatchNorm statistics and no random stream of the network itself.
    """

    kind = "before training"
    needs_dense_gradient: ClassVar[bool] = True
    scores_classes: ClassVar[bool] = True

    @abstractmethod
    def scores(self, run: Run, network: nn.Module, weights: list[Tensor]) -> list[Tensor]:
        """The score of each weight, the highest are kept; `weights` are those of the sparse layers in the copy."""

    def shuffled(self, run: Run) -> Tensor:
        """The samples that training is going to see first, in random order: positions, int64."""
        order = torch.randperm(run.samples, generator=run.generator("method", "samples"))
        return order if run.partial_set is None else order[run.partial_set.cpu()[order]]

    def start(self, run: Run) -> None:
        network = copy.deepcopy(run.model)
        weights: list[Tensor] = [network.get_parameter(f"{layer.name}.weight") for layer in run.masks]
        with torch.random.fork_rng([weights[0].device] if weights[0].is_cuda else []):
            scores = self.scores(run, network, weights)
        for layer, mask in zip(run.masks, best(scores, self.density), strict=True):
            layer.start(mask)
        warn_of_empty(self.name, run.masks)


def warn_of_empty(method: str, masks: Iterable[SparseLayer]) -> None:
    """Warns of layers that a ranking over the whole network left without a weight.

    Nothing keeps one there, as in the authors' codes: that layers collapse is a property of these methods (Tanaka et
    al., NeurIPS 2020). Where each layer has its own count, rounding leaves it at least one weight.
    """
    empty = [layer.name for layer in masks if not layer.mask.any()]
    if empty:
        named = ", ".join(empty[:3]) + (f" and {len(empty) - 3} more" if len(empty) > 3 else "")
        warnings.warn(
            f"method {method} leaves no weight in {named}: nothing is learned there; lower sparsity.target, or use "
            "a method that ranks by layer",
            SpfdeWarning,
            stacklevel=2,
        )


def gradient(value: Tensor, weights: list[Tensor], create_graph: bool = False) -> tuple[Tensor, ...]:
    """Gradient of a scalar with respect to each weight; zeros for a weight that is not used."""
    return torch.autograd.grad(value, weights, create_graph=create_graph, materialize_grads=True)
