"""Pooling on blocked activations."""

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from spfde.kernels.blocked import activation, aligned
from spfde.kernels.library import LANES, library
from spfde.kernels.memory import borrow


class _Mean(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, z: Tensor, batch: int, threads: int) -> Tensor:
        ctx.shape, ctx.threads = z.shape, threads
        out = torch.empty(batch, z.shape[2])
        library().mean_of_pixels(activation(batch, z, threads), z.data_ptr(), out.data_ptr())
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, g: Tensor) -> tuple[Tensor, None, None]:
        g, dz = g.contiguous(), borrow(*ctx.shape)
        library().mean_of_pixels_backward(activation(len(g), dz, ctx.threads), g.data_ptr(), dz.data_ptr())
        return dz, None, None


class _Max(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, batch: int, threads: int) -> Tensor:
        blocks, height, channels, width, _ = x.shape
        ctx.batch, ctx.threads = batch, threads
        z = borrow(blocks, height // 2, channels, width // 2, LANES)
        library().max_of_pixels(activation(batch, z, threads), x.data_ptr(), z.data_ptr(), height, width)
        ctx.save_for_backward(x, z)
        return z

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dz: Tensor) -> tuple[Tensor, None, None]:
        x, z = ctx.saved_tensors
        dz, dx = aligned(dz), borrow(*x.shape)
        library().max_of_pixels_backward(
            activation(ctx.batch, z, ctx.threads), x.data_ptr(), z.data_ptr(), dz.data_ptr(), dx.data_ptr(),
            x.shape[1], x.shape[3],
        )  # fmt: skip
        return dx, None, None


def mean(z: Tensor, batch: int, threads: int) -> Tensor:
    """Mean over the pixels, (batch, channels)."""
    return _Mean.apply(z, batch, threads)


def halve(z: Tensor, batch: int, threads: int) -> Tensor:
    """Maximum over squares of 2x2 pixels, as `nn.MaxPool2d(2)`; a blocked activation."""
    return _Max.apply(z, batch, threads)
