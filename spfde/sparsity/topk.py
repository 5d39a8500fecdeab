"""A layer that runs on its largest weights and learns from its largest activations (SWAT, Raihan and Aamodt 2020).

Forward: the weights of the layer's mask, all activations. Backward: the same weights for the input gradient; for the
weight gradient, which is dense, the activations at or above a threshold. Only these activations are saved, as values
and positions (4 bytes each). A GPU has to wait once per layer and step, because their number must be known to store
them; that number is also what is counted of them.
"""

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn.modules.conv import _ConvNd

from spfde.rounding import up
from spfde.sparsity.masks import SparseLayer


def kth_largest(values: Tensor, count: int) -> Tensor:
    """The `count`-th largest magnitude, a tensor without dimensions; never waits for the device."""
    return values.detach().abs().flatten().kthvalue(values.numel() - count + 1).values


class TopKForward:
    """The forward pass that takes a module's place until `detach`.

    Works for linear layers and for convolutions of every kind, padded in every way, under autocast, with gradient
    accumulation and with second losses; not for gradients of gradients. `torch.compile` breaks its graph here.

    Args:
        module: a convolution or linear layer; its input needs a batch dimension.
        layer: its sparse layer; `layer.mask` says which weights are used.
        count: how many weights are to be used.
        share: share of the activations that the weight gradient uses; by default that of the weights.

    Attributes:
        wanted: how many weights the next exact threshold is to select; `count` is how many the present one selected.
        exact: whether a training step computes its thresholds exactly, or uses those of an earlier step.
        weight_threshold: magnitude of the least weight that is used.
        threshold: magnitude of the least activation that the weight gradient uses.
        kept: how many activations were saved for weight gradients since `take_counts`.
        seen: of how many.
    """

    def __init__(self, module: nn.Module, layer: SparseLayer, count: int, share: float | None = None) -> None:
        self.module: Any = module
        self.layer = layer
        self.count = self.wanted = count
        self.share = count / layer.weight.numel() if share is None else share
        self.exact = True
        self.weight_threshold = self.threshold = torch.zeros(())
        self.kept = self.seen = 0
        # Not a decorator, which would import the compiler, for seconds, with this file; and not bound to this object,
        # so that a copied module runs on its own weights.
        self._uncompiled = torch.compiler.disable(TopKForward._forward)
        self.module.forward = self.forward

    def find_weights(self) -> None:
        """The exact threshold of the weights, and the mask that follows from it."""
        self.count = self.wanted
        self.weight_threshold = kth_largest(self.layer.weight, self.count)
        self.select_weights()

    def select_weights(self) -> None:
        """Sets the mask that follows from the present threshold."""
        self.layer.set_mask(self.layer.weight.detach().abs() >= self.weight_threshold, None)

    def take_counts(self) -> tuple[int, int]:
        """`kept` and `seen`, which begin anew."""
        counts, self.kept, self.seen = (self.kept, self.seen), 0, 0
        return counts

    def detach(self) -> None:
        """Gives the module its own forward pass back."""
        del self.module.forward

    def forward(self, x: Tensor) -> Tensor:
        return self._uncompiled(self, x)

    def _forward(self, x: Tensor) -> Tensor:
        weight, bias, kind = self.layer.weight, self.module.bias, x.device.type
        cast = torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else x.dtype
        learns = self.module.training and torch.is_grad_enabled() and weight.requires_grad
        x = x.to(cast)
        if learns and self.exact:
            self.find_weights()
            self.threshold = kth_largest(x, up(self.share * x.numel()))
        size = x.numel()
        x, used, bias = _padded(self.module, x), weight.to(cast), None if bias is None else bias.to(cast)
        if getattr(self.module, "padding_mode", "zeros") != "zeros":
            size = x.numel()  # copies of activations are used like any others; padding with zeros adds none
        with torch.autocast(kind, enabled=False):
            if learns:
                self.seen += size
                return _TopK.apply(x, used, bias, self.layer.mask, self.threshold, self)
            return _apply(self.module, x, used * self.layer.mask.to(cast), bias)


class _TopK(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, mask: Tensor, threshold: Tensor, caller: TopKForward
    ) -> Tensor:
        ctx.module, ctx.shape = caller.module, x.shape
        used = (x.abs() >= threshold) & (x != 0)  # with a threshold of 0 the zeros behind a ReLU would be kept too
        positions = used.flatten().nonzero().squeeze(1)
        caller.kept += len(positions)
        values = x.flatten()[positions]
        ctx.save_for_backward(weight, mask, values, positions.int() if x.numel() < 2**31 else positions)
        return _apply(caller.module, x, weight * mask.to(weight.dtype), bias)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        weight, mask, values, positions = ctx.saved_tensors
        x = values.new_zeros(ctx.shape.numel())
        x[positions] = values
        sparse = weight * mask.to(weight.dtype)
        return (*_gradients(ctx.module, gradient, x.view(ctx.shape), sparse, ctx.needs_input_grad[:3]), *3 * [None])


def _pads_first(module: Any) -> bool:
    """Whether a convolution's padding is a step of its own: "same", or other than zeros."""
    return isinstance(module, _ConvNd) and (isinstance(module.padding, str) or module.padding_mode != "zeros")


def _padded(module: Any, x: Tensor) -> Tensor:
    if not _pads_first(module):
        return x
    mode = "constant" if module.padding_mode == "zeros" else module.padding_mode
    return F.pad(x, module._reversed_padding_repeated_twice, mode=mode)


def _geometry(module: Any) -> tuple[Any, ...]:
    """Stride, padding, dilation, transposed, output padding and groups of the convolution itself."""
    padding = [0] * len(module.stride) if _pads_first(module) else module.padding
    return module.stride, padding, module.dilation, module.transposed, module.output_padding, module.groups


def _apply(module: Any, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    if isinstance(module, nn.Linear):
        return F.linear(x, weight, bias)
    return torch.convolution(x, weight, bias, *_geometry(module))


def _gradients(
    module: Any, gradient: Tensor, x: Tensor, weight: Tensor, needed: Sequence[bool]
) -> tuple[Tensor | None, ...]:
    """Gradients of input, weight and bias, those that are needed."""
    if isinstance(module, nn.Linear):
        rows = gradient.flatten(0, -2)
        return (
            gradient @ weight if needed[0] else None,
            rows.T @ x.flatten(0, -2) if needed[1] else None,
            rows.sum(0) if needed[2] else None,
        )
    biases = [gradient.shape[1]] if needed[2] else None
    found = torch.ops.aten.convolution_backward(gradient, x, weight, biases, *_geometry(module), list(needed))
    return tuple(value if wanted else None for value, wanted in zip(found, needed, strict=True))
