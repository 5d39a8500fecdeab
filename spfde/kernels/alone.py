"""Single layers on sparse kernels: a convolution without what surrounds it, and a linear layer.

A linear layer is a 1x1 convolution: the rows of its input, 16 at a time, are the pixels of one block of images.
"""

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from spfde.kernels.blocked import activation, aligned
from spfde.kernels.convolution import Convolution, plain
from spfde.kernels.library import LANES, library
from spfde.kernels.memory import borrow
from spfde.kernels.structure import Structure, as_convolution

_WIDTH = 4  # pixels of a row of the image that a matrix becomes: the width of a tile


class _Convolve(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, z: Tensor, weight: Tensor, structure: Structure, positions: Structure, batch: int, threads: int
    ) -> Tensor:
        ctx.conv, ctx.positions = Convolution(structure, batch, z.shape, threads), positions
        ctx.save_for_backward(z, weight)
        return ctx.conv.forward(plain(z), as_convolution(weight))[0]

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dy: Tensor) -> tuple[Any, ...]:
        z, weight = ctx.saved_tensors
        input_needed, weight_needed, *_ = ctx.needs_input_grad
        dx = borrow(*z.shape) if input_needed else None
        positions = ctx.positions if weight_needed else None
        dw, _ = ctx.conv.backward(plain(z), plain(aligned(dy)), as_convolution(weight), positions, dx)
        return dx, dw if dw is None else dw.view(weight.shape), None, None, None, None


class _Rows(torch.autograd.Function):
    """A matrix (rows, channels) as (1, height, channels, 4, 16)."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, threads: int) -> Tensor:
        ctx.rows, ctx.threads = len(x), threads
        return _block_rows(x, threads)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dz: Tensor) -> tuple[Tensor, None]:
        return _unblock_rows(aligned(dz), ctx.rows, ctx.threads), None


class _Matrix(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, z: Tensor, rows: int, threads: int) -> Tensor:
        ctx.threads = threads
        return _unblock_rows(z, rows, threads)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dx: Tensor) -> tuple[Tensor, None, None]:
        return _block_rows(dx.contiguous(), ctx.threads), None, None


def _block_rows(x: Tensor, threads: int) -> Tensor:
    z = borrow(1, -(-len(x) // (LANES * _WIDTH)), x.shape[1], _WIDTH, LANES)
    library().blocks_from_rows(activation(LANES, z, threads), x.data_ptr(), len(x), z.data_ptr())
    return z


def _unblock_rows(z: Tensor, rows: int, threads: int) -> Tensor:
    x = torch.empty(rows, z.shape[2])
    library().blocks_to_rows(activation(LANES, z, threads), z.data_ptr(), x.data_ptr(), rows)
    return x


def convolve(
    z: Tensor, weight: Tensor, bias: Tensor | None, structure: Structure, positions: Structure, batch: int, threads: int
) -> Tensor:
    """A convolution of a blocked activation of `batch` images.

    Args:
        positions: where the gradient of the weight is computed.
    """
    y = _Convolve.apply(z, weight, structure, positions, batch, threads)
    if bias is None:
        return y
    live = torch.arange(LANES * len(z)).view(-1, 1, 1, 1, LANES) < batch  # dead lanes hold 0
    return y + bias[:, None, None] * live


def linear(
    x: Tensor, weight: Tensor, bias: Tensor | None, structure: Structure, positions: Structure, threads: int
) -> Tensor:
    """A linear layer on (..., inputs)."""
    rows = x.reshape(-1, x.shape[-1]).contiguous()
    y = _Convolve.apply(_Rows.apply(rows, threads), weight, structure, positions, LANES, threads)
    y = _Matrix.apply(y, len(rows), threads).view(*x.shape[:-1], -1)
    return y if bias is None else y + bias
