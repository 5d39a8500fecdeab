"""Convolution, BatchNorm and ReLU as one step of autograd: the stem of a residual network, and the layers of VGG."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from spfde.kernels.block import Stage
from spfde.kernels.blocked import aligned, planes
from spfde.kernels.convolution import Convolution, plain
from spfde.kernels.library import LANES, library
from spfde.kernels.memory import borrow
from spfde.kernels.norm import Affine, Sums, check_count, uses_batch


@dataclass
class ConvBlock:
    """relu(BatchNorm(convolution)) at one forward pass."""

    stage: Stage
    threads: int

    def __call__(self, z: Tensor, batch: int) -> Tensor:
        """The output for a blocked activation of `batch` images; nothing is kept where no gradient is wanted."""
        stage = self.stage
        wanted = z.requires_grad or any(p is not None and p.requires_grad for p in stage.parameters)
        if wanted and torch.is_grad_enabled():
            return _ConvBlock.apply(self, batch, z, *stage.parameters)
        with torch.no_grad():
            if uses_batch(stage.bn):
                return self.run(z, batch)[-1]
            conv = Convolution(stage.structure, batch, z.shape, self.threads)
            return conv.apply(plain(z), stage.conv.weight, Affine(stage.bn, conv.shape, None, 0), relu=True)

    def run(self, z: Tensor, batch: int) -> tuple[Convolution, Affine, Tensor, Tensor]:
        """The convolution, its normalisation, its output and that of the block."""
        stage, conv = self.stage, Convolution(self.stage.structure, batch, z.shape, self.threads)
        check_count(stage.bn, conv.count)
        y, sums = conv.forward(plain(z), stage.conv.weight, sums=uses_batch(stage.bn))
        norm = Affine(stage.bn, conv.shape, sums, conv.count)
        out = borrow(*y.shape)
        shape = planes(batch, y.shape, self.threads)
        library().residual_end(shape, out.data_ptr(), y.data_ptr(), norm.a, norm.b, None, None, None)
        return conv, norm, y, out


class _ConvBlock(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, block: ConvBlock, batch: int, z: Tensor, *parameters: Tensor | None) -> Tensor:
        ctx.block, ctx.batch = block, batch
        ctx.conv, ctx.norm, y, out = block.run(z, batch)
        ctx.save_for_backward(z, *parameters, y, out)
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dz: Tensor) -> tuple[Any, ...]:
        z, weight, _, _, y, out = ctx.saved_tensors
        dz, g, sums = aligned(dz), borrow(*out.shape), torch.empty(*out.shape[:2], 3, LANES)
        library().residual_end_backward(
            planes(ctx.batch, out.shape, ctx.block.threads), g.data_ptr(), dz.data_ptr(), out.data_ptr(),
            y.data_ptr(), ctx.norm.mean, None, None, sums.data_ptr(),
        )  # fmt: skip
        dy, *norm = ctx.norm.backward(g, y, Sums(sums, 1))
        input_needed, weight_needed, *_ = ctx.needs_input_grad[2:]
        dx = borrow(*z.shape) if input_needed else None
        dw, _ = ctx.conv.backward(plain(z), dy, weight, ctx.block.stage.positions if weight_needed else None, dx)
        gradients = (dx, dw, *norm)
        return (None, None, *(g if need else None for g, need in zip(gradients, ctx.needs_input_grad[2:], strict=True)))
