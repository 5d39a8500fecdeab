"""A residual basic block as one step of autograd: two 3x3 convolutions, three passes less than torch makes.

BatchNorm's sums are taken while a convolution stores its output; normalisation and ReLU are applied while the next one
reads it; ReLU's gradient, the sums for BatchNorm's gradients and the residual's addition ride on the input gradients,
and so does the gradient of the block before's last ReLU.
"""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from spfde.kernels import library as c
from spfde.kernels.convolution import Convolution, normalised, plain
from spfde.kernels.ending import Ending
from spfde.kernels.memory import borrow
from spfde.kernels.norm import Affine, Sums, check_count, uses_batch
from spfde.kernels.structure import Structure


@dataclass
class Stage:
    """A convolution and its BatchNorm.

    Attributes:
        structure: nonzeros of the weight.
        positions: where the gradient of the weight is computed: the nonzeros, or more.
    """

    conv: nn.Conv2d
    bn: nn.BatchNorm2d
    structure: Structure
    positions: Structure

    @property
    def parameters(self) -> tuple[Tensor, Tensor | None, Tensor | None]:
        return self.conv.weight, self.bn.weight, self.bn.bias


@dataclass
class Padding:
    """A shortcut without parameters: every other pixel, `before` channels of zeros before the input's."""

    stride: int
    before: int

    def forward(self, z: Tensor, outputs: int) -> Tensor:
        kept = z[:, :: self.stride, :, :: self.stride]
        padded = z.new_zeros(*kept.shape[:2], outputs, *kept.shape[3:])
        padded[:, :, self.before : self.before + z.shape[2]] = kept
        return padded

    def backward(self, g: Tensor, dz: Tensor) -> None:
        """Puts the gradient of the block's input into dz."""
        dz.zero_()[:, :: self.stride, :, :: self.stride] = g[:, :, self.before : self.before + dz.shape[2]]


@dataclass
class Block:
    """What a residual block is made of at one forward pass.

    Attributes:
        shortcut: a 1x1 convolution with BatchNorm, padding, or none.
    """

    first: Stage
    second: Stage
    shortcut: Stage | Padding | None
    threads: int

    @property
    def stages(self) -> list[Stage]:
        return [stage for stage in (self.first, self.second, self.shortcut) if isinstance(stage, Stage)]

    def __call__(self, z: Tensor, batch: int, before: Ending | None = None) -> tuple[Tensor, Ending | None]:
        """The block's output for a blocked activation of `batch` images, and its end where it has a gradient.

        Where no gradient is wanted, as in a frozen prefix, nothing is kept; and where statistics are known beforehand
        too, BatchNorm, residual and ReLU are part of the convolutions.

        Args:
            before: end of the block whose output z is, if it is a block's.
        """
        parameters = [parameter for stage in self.stages for parameter in stage.parameters]
        wanted = z.requires_grad or any(p is not None and p.requires_grad for p in parameters)
        if wanted and torch.is_grad_enabled():
            run = _Pass(self, batch, z, before)
            return _Residual.apply(run, z, *parameters), run.ending
        return self.infer(z, batch), None

    @torch.no_grad()
    def infer(self, z: Tensor, batch: int) -> Tensor:
        if any(uses_batch(stage.bn) for stage in self.stages):
            return _Pass(self, batch, z).run(z)[-1]
        first = Convolution(self.first.structure, batch, z.shape, self.threads)
        second = Convolution(self.second.structure, batch, first.output, self.threads)
        h = first.apply(plain(z), self.first.conv.weight, Affine(self.first.bn, first.shape, None, 0), relu=True)
        residual = z
        if isinstance(self.shortcut, Padding):
            residual = self.shortcut.forward(z, first.output[2])
        elif self.shortcut:
            conv = Convolution(self.shortcut.structure, batch, z.shape, self.threads)
            norm = Affine(self.shortcut.bn, conv.shape, None, 0)
            residual = conv.apply(plain(z), self.shortcut.conv.weight, norm, relu=False)
        norm = Affine(self.second.bn, second.shape, None, 0)
        return second.apply(plain(h), self.second.conv.weight, norm, relu=True, residual=residual)


class _Pass:
    """Forward and backward pass of one batch; tensors that both use go through autograd's hands."""

    ending: Ending

    def __init__(self, block: Block, batch: int, z: Tensor, before: Ending | None = None) -> None:
        self.block, self.batch, self.before = block, batch, before
        self.stages = block.stages
        self.convs = [Convolution(block.first.structure, batch, z.shape, block.threads)]
        self.convs.append(Convolution(block.second.structure, batch, self.convs[0].output, block.threads))
        if isinstance(block.shortcut, Stage):
            self.convs.append(Convolution(block.shortcut.structure, batch, z.shape, block.threads))
        for stage, conv in zip(self.stages, self.convs, strict=True):
            check_count(stage.bn, conv.count)

    def _stage(self, index: int, x: c.Source) -> tuple[Tensor, Affine]:
        stage, conv = self.stages[index], self.convs[index]
        y, sums = conv.forward(x, stage.conv.weight, sums=uses_batch(stage.bn))
        return y, Affine(stage.bn, conv.shape, sums, conv.count)

    def run(self, z: Tensor) -> list[Tensor]:
        """Outputs of the convolutions (first, second, shortcut's if it has one) and of the block."""
        y1, n1 = self._stage(0, plain(z))
        y2, n2 = self._stage(1, normalised(y1, n1))
        self.norms, kept = [n1, n2], [y1, y2]
        self.ending = Ending(self.batch, self.block.threads, y2, n2, z)
        if isinstance(self.block.shortcut, Padding):
            self.ending.residual = self.block.shortcut.forward(z, y1.shape[2])
        elif self.block.shortcut:
            y, norm = self._stage(2, plain(z))
            self.norms.append(norm)
            kept.append(y)
            self.ending.residual, self.ending.residual_norm = y, norm
        return [*kept, self.ending.forward()]

    def backward(
        self, dz: Tensor, z: Tensor, kept: list[Tensor], weights: list[Tensor], needed: list[bool]
    ) -> list[Tensor | None]:
        """Gradients of the input and of each stage's weight, BatchNorm weight and bias; those `needed` of them."""
        shortcut = self.block.shortcut
        n1, n2, *rest = self.norms
        y1, y2, *ys, out = kept
        g, sums = self.ending.backward(dz, out)
        where = [stage.positions if need else None for stage, need in zip(self.stages, needed[1::3], strict=True)]

        dy2, *norm2 = n2.backward(g, y2, Sums(sums, 1))
        g1 = borrow(*y1.shape)
        dw2, sums1 = self.convs[1].backward(normalised(y1, n1), dy2, weights[1], where[1], g1, through=(y1, n1))
        assert sums1 is not None
        dy1, *norm1 = n1.backward(g1, y1, Sums(sums1, 1))

        # The residual's share of the input gradient is there first; the first convolution adds its own.
        dx = (g if shortcut is None else borrow(*z.shape)) if needed[0] else None
        found = []
        if ys:
            dys, *norm = rest[0].backward(g, ys[0], Sums(sums, 2))
            dw, _ = self.convs[2].backward(plain(z), dys, weights[2], where[2], dx)
            found = [dw, *norm]
        elif isinstance(shortcut, Padding) and dx is not None:
            shortcut.backward(g, dx)
        end = (z, self.before) if self.before and dx is not None else None
        dw1, sums_before = self.convs[0].backward(plain(z), dy1, weights[0], where[0], dx, add=True, end=end)
        if self.before and dx is not None and sums_before is not None:
            self.before.note(dx, sums_before)
        return [dx, dw1, *norm1, dw2, *norm2, *found]


class _Residual(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, run: _Pass, z: Tensor, *parameters: Tensor | None) -> Tensor:
        ctx.run = run
        *kept, out = run.run(z)
        ctx.save_for_backward(z, *parameters, *kept, out)
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dz: Tensor) -> tuple[Any, ...]:
        z, *rest = ctx.saved_tensors
        count, needed = 3 * len(ctx.run.convs), ctx.needs_input_grad[1:]
        parameters, kept = rest[:count], rest[count:]
        gradients = ctx.run.backward(dz, z, kept, parameters[::3], list(needed))
        return None, *(g if need else None for g, need in zip(gradients, needed, strict=True))
