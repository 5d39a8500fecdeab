"""The layout of the kernels, (batch / 16, height, channels, width, 16), and the ways in and out of it.

Lanes of the last block beyond the batch are dead: they hold 0 in every activation and every gradient.
"""

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from spfde.kernels import library as c
from spfde.kernels.library import LANES, library
from spfde.kernels.memory import borrow


def aligned(x: Tensor) -> Tensor:
    """A contiguous tensor that begins at a vector's boundary: the given one or a copy."""
    x = x.contiguous()
    return x.clone() if x.data_ptr() % (4 * LANES) else x


def activation(batch: int, z: Tensor, threads: int) -> c.Activation:
    """What the kernels must know of a blocked activation."""
    _, height, channels, width, _ = z.shape
    return c.Activation(batch, height, channels, width, threads)


def _block(x: Tensor, threads: int) -> Tensor:
    batch, channels, height, width = x.shape
    z = borrow(-(-batch // LANES), height, channels, width, LANES)
    library().blocks_from(activation(batch, z, threads), x.data_ptr(), c.Strided(*x.stride()), z.data_ptr())
    return z


def _unblock(z: Tensor, batch: int, threads: int) -> Tensor:
    _, height, channels, width, _ = z.shape
    x = torch.empty(batch, channels, height, width, memory_format=torch.channels_last)
    library().blocks_to(activation(batch, z, threads), z.data_ptr(), x.data_ptr(), c.Strided(*x.stride()))
    return x


class _Block(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, threads: int) -> Tensor:
        ctx.batch, ctx.threads = x.shape[0], threads
        return _block(x, threads)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dz: Tensor) -> tuple[Tensor, None]:
        return _unblock(aligned(dz), ctx.batch, ctx.threads), None


class _Unblock(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, z: Tensor, batch: int, threads: int) -> Tensor:
        ctx.threads = threads
        return _unblock(z, batch, threads)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dx: Tensor) -> tuple[Tensor, None, None]:
        return _block(dx, ctx.threads), None, None


def block(x: Tensor, threads: int) -> Tensor:
    """To blocks of 16 images, from (batch, channels, height, width) of any strides."""
    return _Block.apply(x, threads)


def unblock(z: Tensor, batch: int, threads: int) -> Tensor:
    """Back to (batch, channels, height, width), in channels_last."""
    return _Unblock.apply(z, batch, threads)
