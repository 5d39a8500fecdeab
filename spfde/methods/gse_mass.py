"""What GSE draws positions of a weight by, and the sums over activations that this is made of."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol, cast

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


class Sketch(Protocol):
    """What is summed up of a layer's inputs and of its outputs' gradients."""

    def term(self, values: Tensor) -> Tensor:
        """Of the values, what enters the sums."""

    def signs(self, shape: Sequence[int], like: Tensor, draws: torch.Generator) -> Tensor:
        """The factor of every sample and position, of this shape: that of one output channel."""


class LayerWatcher:
    """Sums up what a layer reads and the gradients of what it gives, over all batches that it sees.

    Attributes:
        mass: the sums so far.
    """

    def __init__(self, sketch: Sketch, layer: SparseLayer, module: nn.Module, draws: torch.Generator) -> None:
        self.sketch, self.module, self.draws = sketch, module, draws
        self.channel = channel_axis(module)
        self.mass = Mass.even(layer, int(getattr(module, "groups", 1)), 0.0)
        self._signs: list[Tensor] = []  # of each pass that is still to go back

    def forward(self, inputs: Tensor, outputs: Sequence[int]) -> None:
        """Takes the inputs, and the shape of the outputs."""
        shape = list(outputs)
        shape[self.channel] = 1
        self._signs.append(self.sketch.signs(shape, inputs, self.draws))
        self.mass.units += unit_sums(self.module, self.sketch.term(inputs), self._signs[-1])

    def backward(self, gradient: Tensor) -> None:
        """Takes the gradient of the outputs."""
        terms = self.sketch.term(gradient) * self._signs.pop()
        self.mass.outputs += terms.movedim(self.channel, 0).flatten(1).sum(1)

    def hook(self, module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        """Both, as a forward hook of the layer's module."""
        self.forward(inputs[0].detach(), output.shape)
        output.register_hook(self.backward)
