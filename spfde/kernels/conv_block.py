"""Convolution, BatchNorm and ReLU as one step of autograd: the stem of a residual network, and the layers of VGG."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from spfde.kernels.block import Stage
from spfde.kernels.convolution import Convolution, plain
from spfde.kernels.ending import Ending
from spfde.kernels.memory import borrow
from spfde.kernels.norm import Affine, Sums, check_count, uses_batch


@dataclass
class ConvBlock:
    """relu(BatchNorm(convolution)) at one forward pass."""

    stage: Stage
    threads: int

    def __call__(self, z: Tensor, batch: int, before: Ending | None = None) -> tuple[Tensor, Ending | None]:
        """The output for a blocked activation of `batch` images, and its end where it has a gradient.

        Nothing is kept where no gradient is wanted.

        Args:
            before: end of the block whose output z is, if it is a block's.
        """
        stage = self.stage
        wanted = z.requires_grad or any(p is not None and p.requires_grad for p in stage.parameters)
        if wanted and torch.is_grad_enabled():
            run = _Pass(self, batch, z, before)
            return _ConvBlock.apply(run, z, *stage.parameters), run.ending
        with torch.no_grad():
            if uses_batch(stage.bn):
                return _Pass(self, batch, z).run(z)[-1], None
            conv = Convolution(stage.structure, batch, z.shape, self.threads)
            return conv.apply(plain(z), stage.conv.weight, Affine(stage.bn, conv.shape, None, 0), relu=True), None


class _Pass:
    """Forward and backward pass of one batch."""

    ending: Ending

    def __init__(self, block: ConvBlock, batch: int, z: Tensor, before: Ending | None = None) -> None:
        self.block, self.batch, self.before = block, batch, before
        stage = block.stage
        self.conv = Convolution(stage.structure, batch, z.shape, block.threads, stage.watcher)
        check_count(block.stage.bn, self.conv.count)

    def run(self, z: Tensor) -> tuple[Tensor, Tensor]:
        """Outputs of the convolution and of the block."""
        bn = self.block.stage.bn
        y, sums = self.conv.forward(plain(z), self.block.stage.conv.weight, sums=uses_batch(bn))
        self.norm = Affine(bn, self.conv.shape, sums, self.conv.count)
        self.ending = Ending(self.batch, self.block.threads, y, self.norm)
        return y, self.ending.forward()

    def backward(self, dz: Tensor, z: Tensor, weight: Tensor, y: Tensor, out: Tensor, needed: list[bool]) -> list[Any]:
        """Gradients of the input, the weight, and BatchNorm's weight and bias."""
        g, sums = self.ending.backward(dz, out)
        dy, *norm = self.norm.backward(g, y, Sums(sums, 1))
        positions = self.block.stage.positions if needed[1] else None
        dx = borrow(*z.shape) if needed[0] else None
        # Where z is relu(norm(y)) of a convolution before, its ReLU's gradient and sums come along.
        before = self.before if self.before and self.before.alone and dx is not None else None
        through = (before.y, before.norm) if before else None
        dw, sums_before = self.conv.backward(plain(z), dy, weight, positions, dx, through=through)
        if before and dx is not None and sums_before is not None:
            before.note(dx, sums_before)
        return [dx, dw, *norm]


class _ConvBlock(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, run: _Pass, z: Tensor, *parameters: Tensor | None) -> Tensor:
        ctx.run = run
        y, out = run.run(z)
        ctx.save_for_backward(z, *parameters, y, out)
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dz: Tensor) -> tuple[Any, ...]:
        z, weight, _, _, y, out = ctx.saved_tensors
        needed = ctx.needs_input_grad[1:]
        gradients = ctx.run.backward(dz, z, weight, y, out, list(needed))
        return None, *(g if need else None for g, need in zip(gradients, needed, strict=True))
