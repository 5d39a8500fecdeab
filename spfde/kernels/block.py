"""A residual block as one step of autograd: basic blocks (3x3, 3x3) and bottlenecks (1x1, 3x3, 1x1).

BatchNorm's sums are taken while a convolution stores its output; normalisation and ReLU are applied while the next one
reads it; ReLU's gradient, the sums for BatchNorm's gradients and the residual's addition ride on the input gradients,
and so does the gradient of the block before's last ReLU.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from spfde.kernels import library as c
from spfde.kernels.convolution import Convolution, Watcher, normalised, plain
from spfde.kernels.ending import Ending
from spfde.kernels.memory import borrow
from spfde.kernels.norm import Affine, Sums, check_count, uses_batch
from spfde.kernels.structure import Structure


@dataclass
class Stage:
    """A convolution and its BatchNorm, if it has one.

    Attributes:
        structure: nonzeros of the weight.
        positions: where the gradient of the weight is computed: the nonzeros, or more.
        watcher: sees the convolution's operands.
    """

    conv: Any
    bn: Any
    structure: Structure
    positions: Structure
    watcher: Watcher | None = None

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
        path: convolutions with BatchNorm, two or more; ReLU after all but the last.
        shortcut: a 1x1 convolution with BatchNorm, padding, or none.
    """

    path: list[Stage]
    shortcut: Stage | Padding | None
    threads: int

    @property
    def stages(self) -> list[Stage]:
        return [*self.path, *([self.shortcut] if isinstance(self.shortcut, Stage) else [])]

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
        residual = z
        if isinstance(self.shortcut, Padding):
            residual = self.shortcut.forward(z, self.path[-1].conv.out_channels)
        elif self.shortcut:
            residual = self._apply(self.shortcut, z, batch, relu=False)
        for stage in self.path[:-1]:
            z = self._apply(stage, z, batch, relu=True)
        return self._apply(self.path[-1], z, batch, relu=True, residual=residual)

    def _apply(self, stage: Stage, z: Tensor, batch: int, relu: bool, residual: Tensor | None = None) -> Tensor:
        conv = Convolution(stage.structure, batch, z.shape, self.threads)
        norm = Affine(stage.bn, conv.shape, None, 0)
        return conv.apply(plain(z), stage.conv.weight, norm, relu, residual)


class _Pass:
    """Forward and backward pass of one batch; tensors that both use go through autograd's hands."""

    ending: Ending

    def __init__(self, block: Block, batch: int, z: Tensor, before: Ending | None = None) -> None:
        self.block, self.batch, self.before = block, batch, before
        self.stages = block.stages
        self.convs: list[Convolution] = []
        shape: Sequence[int] = z.shape
        for stage in block.path:
            self.convs.append(Convolution(stage.structure, batch, shape, block.threads, stage.watcher))
            shape = self.convs[-1].output
        if isinstance(block.shortcut, Stage):
            stage = block.shortcut
            self.convs.append(Convolution(stage.structure, batch, z.shape, block.threads, stage.watcher))
        for stage, conv in zip(self.stages, self.convs, strict=True):
            check_count(stage.bn, conv.count)

    def _stage(self, index: int, x: c.Source) -> tuple[Tensor, Affine]:
        stage, conv = self.stages[index], self.convs[index]
        y, sums = conv.forward(x, stage.conv.weight, sums=uses_batch(stage.bn))
        return y, Affine(stage.bn, conv.shape, sums, conv.count)

    def run(self, z: Tensor) -> list[Tensor]:
        """Outputs of the convolutions (of the path, and of the shortcut if it has one) and of the block."""
        kept, self.norms, x = [], [], plain(z)
        for index in range(len(self.block.path)):
            y, norm = self._stage(index, x)
            kept.append(y)
            self.norms.append(norm)
            x = normalised(y, norm)
        self.ending = Ending(self.batch, self.block.threads, y, norm, z)
        if isinstance(self.block.shortcut, Padding):
            self.ending.residual = self.block.shortcut.forward(z, y.shape[2])
        elif self.block.shortcut:
            y, norm = self._stage(len(kept), plain(z))
            kept.append(y)
            self.norms.append(norm)
            self.ending.residual, self.ending.residual_norm = y, norm
        return [*kept, self.ending.forward()]

    def backward(
        self, dz: Tensor, z: Tensor, kept: list[Tensor], weights: list[Tensor], needed: list[bool]
    ) -> list[Tensor | None]:
        """Gradients of the input and of each stage's weight, BatchNorm weight and bias; those `needed` of them."""
        shortcut, depth, before = self.block.shortcut, len(self.block.path), self.before
        where = [stage.positions if need else None for stage, need in zip(self.stages, needed[1::3], strict=True)]
        found: list[list[Tensor | None]] = [[] for _ in self.stages]
        out = kept[-1]
        g, sums = self.ending.backward(dz, out)

        # Down the path: the gradient of each convolution's output, made while it is read, gives that of the one before.
        dy, *norm = self.norms[depth - 1].backward(g, kept[depth - 1], Sums(sums, 1))
        for i in range(depth - 1, 0, -1):
            y, n = kept[i - 1], self.norms[i - 1]
            g_before = borrow(*y.shape)
            dw, sums_before = self.convs[i].backward(
                normalised(y, n), dy, weights[i], where[i], g_before, through=(y, n)
            )
            assert sums_before is not None
            found[i] = [dw, *norm]
            dy, *norm = n.backward(g_before, y, Sums(sums_before, 1))

        # The residual's share of the input gradient is there first; the first convolution adds its own.
        dx = (g if shortcut is None else borrow(*z.shape)) if needed[0] else None
        if isinstance(shortcut, Stage):
            dys, *norms = self.norms[depth].backward(g, kept[depth], Sums(sums, 2))
            dw, _ = self.convs[depth].backward(plain(z), dys, weights[depth], where[depth], dx)
            found[depth] = [dw, *norms]
        elif isinstance(shortcut, Padding) and dx is not None:
            shortcut.backward(g, dx)
        end = (z, before) if before and dx is not None else None
        dw, sums_before = self.convs[0].backward(plain(z), dy, weights[0], where[0], dx, add=True, end=end)
        found[0] = [dw, *norm]
        if before and dx is not None and sums_before is not None:
            before.note(dx, sums_before)
        return [dx, *(gradient for stage in found for gradient in stage)]


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
