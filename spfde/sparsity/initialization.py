"""Initial weights by the mask's real fan-in: each output starts with variance 1, however few inputs it has.

GSE (Heddes et al. 2024, arXiv 2401.06898; layers.py of its code): a weight is drawn uniformly within sqrt(3 / fan-in),
where the fan-in is the number of active weights of its output. A bias is drawn within the same bound.
"""

import math

import torch
from torch import Tensor, nn

from spfde.sparsity.masks import SparseLayer


@torch.no_grad()
def draw_by_fan_in(layer: SparseLayer, module: nn.Module, generator: torch.Generator) -> None:
    """Draws the weights of a layer as if all of them were active."""
    turned = layer.scheme.layout.turned(layer.weight)
    bound = math.sqrt(3 / turned[0].numel())
    for parameter in (layer.weight, getattr(module, "bias", None)):
        if parameter is not None:
            drawn = torch.rand(parameter.shape, generator=generator).to(parameter)
            parameter.copy_((2 * drawn - 1) * bound)


@torch.no_grad()
def scale_to_fan_in(layer: SparseLayer, module: nn.Module) -> None:
    """Widens what `draw_by_fan_in` drew to the fan-in under the layer's mask; an output without inputs counts as one.

    A uniform draw within a bound, times a factor, is one within the wider bound, and its signs are the same.
    """
    turned = layer.scheme.layout.turned
    active = turned(layer.mask).flatten(1)
    factor = (active.shape[1] / active.sum(dim=1).clamp(min=1)).sqrt()
    layer.weight.mul_(turned(_spread(factor, turned(layer.weight))))
    bias = getattr(module, "bias", None)
    if bias is not None:
        bias.mul_(factor)


def _spread(factor: Tensor, like: Tensor) -> Tensor:
    """One factor per output over a weight (out, in, *kernel)."""
    return factor.view(-1, *[1] * (like.dim() - 1)).expand(like.shape)
