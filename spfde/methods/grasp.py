"""GraSP: before training, prune the weights whose removal harms the flow of gradients least."""

import math
import warnings
from collections.abc import Callable, Sequence
from typing import Any, ClassVar, TypeVar

import numpy as np
import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from spfde.cost.profile import LayerProfile
from spfde.data import info, is_known
from spfde.errors import SpfdeWarning
from spfde.methods.base import Options, register, scoring_macs
from spfde.methods.ranked import Scored, gradient
from spfde.methods.run import Run
from spfde.settings import RunSettings, parse

P = TypeVar("P")
CHUNK = 256  # samples fetched at a time in the search for enough of each class
MUCH = 1000  # samples at once that any training of small images has memory for; two parts of CIFAR-100's are as many


class GraspOptions(Options):
    per_class: int = Field(10, ge=1, description="random training samples of each class that are scored")
    temperature: float = Field(200.0, gt=0, description="what logits are divided by")
    parts: int = Field(
        2,
        ge=1,
        description="equal parts of the samples, sorted by class, that go through the network one by one; more of them "
        "take less memory",
    )


@register
class Grasp(Scored):
    """Removes the weights with the highest -w (H g) of the dense network at initialisation: Wang et al. 2020, Eq. 8.

    g is the gradient and H the Hessian of the loss, summed over the parts; BatchNorm uses each part's own statistics.
    Where it has no statistics of the part, any number of equal parts ranks the weights alike: k parts have k times the
    gradient and k times the Hessian of the mean loss.
    All convolutions and the classifier are ranked together, unless `sparsity.dense_layers` says otherwise.
    """

    name = "grasp"
    title = "GraSP"
    paper = "Wang et al., ICLR"
    year = 2020
    dense_kernels = "its score takes gradients of gradients"
    Options: ClassVar[type[Options]] = GraspOptions
    defaults: ClassVar[dict[str, Any]] = {"sparsity": {"dense_layers": "none"}}

    @classmethod
    def warn(cls, settings: RunSettings) -> None:
        """Warns of parts that take far more memory than a training batch, on a data set whose classes are known."""
        options = parse(GraspOptions, settings.sparsity.options, "sparsity.options")
        if not is_known(settings.data.name):  # as of a loop of one's own
            return
        samples, batch = options.per_class * info(settings.data.name).classes, settings.training.batch_size
        part = math.ceil(samples / options.parts)
        if 2 * part > max(batch, MUCH):
            warnings.warn(
                f"grasp scores {samples} samples in parts of {part}; the graph of one takes "
                f"the memory of {2 * part} in training, where a batch has {batch}; "
                f"set sparsity.options.parts={math.ceil(2 * samples / max(batch, MUCH))} or more",
                SpfdeWarning,
                stacklevel=2,
            )

    def scores(self, run: Run, network: nn.Module, weights: list[Tensor]) -> list[Tensor]:
        images, labels = self._samples(run, network)
        parts = list(zip(images.tensor_split(self.options.parts), labels.tensor_split(self.options.parts), strict=True))
        network.train()
        product = hessian_gradient(
            lambda part: F.cross_entropy(network(part[0]) / self.options.temperature, part[1]), parts, weights
        )
        return [weight.detach() * hg for weight, hg in zip(weights, product, strict=True)]

    @torch.no_grad()
    def _samples(self, run: Run, network: nn.Module) -> tuple[Tensor, Tensor]:
        """Random samples, equally many of each class (all of a class that has fewer), sorted by class."""
        network.eval()
        found: list[tuple[Tensor, Tensor]] = []
        missing = torch.empty(0)
        for indices in self.shuffled(run).split(CHUNK):
            images, labels = run.fetch(indices)
            if not found:
                classes = network(images[:1]).shape[1]
                missing = torch.full((classes,), self.options.per_class, device=labels.device)
            member = F.one_hot(labels, len(missing))
            taken = ((member.cumsum(0) <= missing) & member.bool()).any(dim=1)  # the first `per_class` of each class
            found.append((images[taken], labels[taken]))
            missing = missing - member[taken].sum(0)
            if not missing.any():
                break
        images, labels = (torch.cat(tensors) for tensors in zip(*found, strict=True))
        by_class = labels.argsort(stable=True)
        return images[by_class], labels[by_class]

    def extra_macs(self, epoch: int, layers: Sequence[LayerProfile], samples: int) -> np.ndarray:
        """One pass for g and a longer one for H g, before epoch 0.

        H g costs a forward and a backward pass and the reverse pass through both (Pearlmutter 1994, Sec. 3): each
        multiplication of the two passes gives two in reverse, so 3 x 3 forward passes a layer, and 2 x 2 in a first
        layer, whose input has no gradient, or in one that never trains.
        """
        scored = self._scored(epoch, samples)
        product = [scored * layer.macs * (1 + (layer.input_block >= 0) + (layer.block >= 0)) ** 2 for layer in layers]
        return scoring_macs(layers, scored) + np.array(product)

    def executed_extra_macs(self, epoch: int, layers: Sequence[LayerProfile], samples: int) -> np.ndarray:
        """torch's double backward of a convolution also computes the gradient of an input that needs none."""
        first = [layer.kind == "conv" and layer.input_block < 0 <= layer.block for layer in layers]
        needless = np.array([layer.macs for layer in layers]) * first
        return self.extra_macs(epoch, layers, samples) + self._scored(epoch, samples) * needless

    def scored_samples(self, epoch: int, layers: Sequence[LayerProfile], samples: int) -> int:
        """Those of one part, twice: the graph of g keeps the activations' gradients beside them."""
        return 2 * math.ceil(self._scored(epoch, samples) / self.options.parts)

    def _scored(self, epoch: int, samples: int) -> int:
        return min(self.options.per_class * self.plan.classes, samples) if epoch == 0 else 0


def hessian_gradient(loss: Callable[[P], Tensor], parts: Sequence[P], weights: list[Tensor]) -> list[Tensor]:
    """H g, with g the gradient and H the Hessian of the sum of `loss(part)` over the parts, by double backward.

    One part's graph is alive at a time: g first, then each part's share of H g.
    """
    g = [torch.zeros_like(weight) for weight in weights]
    for part in parts:
        torch._foreach_add_(g, gradient(loss(part), weights))
    product = [torch.zeros_like(weight) for weight in weights]
    for part in parts:
        own = gradient(loss(part), weights, create_graph=True)
        inner = torch.stack([(a * b).sum() for a, b in zip(g, own, strict=True)]).sum()
        torch._foreach_add_(product, gradient(inner, weights))
    return product
