"""What GSE draws positions of a weight by, and the sums over activations that this is made of."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from spfde.sparsity.masks import SparseLayer


@dataclass
class Mass:
    """What the positions (output, unit) of a layer are drawn by: in proportion to outputs x units.

    A unit is an input of the layer's im2col view: (input channel, kernel position).

    Attributes:
        outputs: shape (out,).
        units: shape (groups, in / groups x kernel): each group of outputs reads units of its own.
    """

    outputs: Tensor
    units: Tensor

    @classmethod
    def even(cls, layer: SparseLayer, groups: int = 1, value: float = 1.0) -> "Mass":
        rows, columns = len(layer.weight), layer.weight[0].numel()
        device = layer.weight.device
        return cls(torch.full((rows,), value, device=device), torch.full((groups, columns), value, device=device))

    def draw(self, count: int, generator: torch.Generator) -> Tensor:
        """Flat positions in the weight, (count,) int64, drawn with replacement by inverting cumulative sums."""
        first, second = torch.rand(2, count, generator=generator).double().to(self.outputs.device)
        rows = torch.searchsorted(_cumulative(self.outputs[None])[0], first, right=True)
        groups, columns = self.units.shape
        group = rows // (len(self.outputs) // groups)
        every = (_cumulative(self.units) + torch.arange(groups, device=rows.device)[:, None]).flatten()
        place = torch.searchsorted(every, group + second, right=True)
        return rows * columns + (place - group * columns)


def _cumulative(mass: Tensor) -> Tensor:
    """Cumulative shares along the rows, ending at exactly 1; even ones for a row without any mass."""
    mass = mass.double().abs()
    sums = torch.where(mass.sum(1, keepdim=True) > 0, mass, torch.ones_like(mass)).cumsum(1)
    return sums / sums[:, -1:]


def unit_sums(module: nn.Module, inputs: Tensor, factors: Tensor) -> Tensor:
    """Sum over samples and positions of factors x each unit of the im2col view, shape (groups, units).

    It is the weight gradient of a layer with one output a group, so no im2col view is ever made.

    Args:
        module: a convolution or linear layer.
        inputs: its input.
        factors: of the shape of one output channel.
    """
    with torch.enable_grad():
        groups = int(getattr(module, "groups", 1))
        weight = cast(Tensor, module.weight)
        probe = torch.zeros(groups, *weight.shape[1:], dtype=inputs.dtype, device=inputs.device, requires_grad=True)
        apply = F.linear if isinstance(module, nn.Linear) else cast(Callable[..., Tensor], module._conv_forward)
        spread = factors.repeat_interleave(groups, channel_axis(module))
        (sums,) = torch.autograd.grad(apply(inputs, probe, None), probe, spread)
    return sums.flatten(1)


def channel_axis(module: nn.Module) -> int:
    """Where the outputs are in a layer's output."""
    return -1 if isinstance(module, nn.Linear) else 1
