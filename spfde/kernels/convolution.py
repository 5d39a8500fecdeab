"""One sparse convolution on blocked activations: forward pass and gradients."""

from collections.abc import Sequence
from typing import Protocol

import torch
from torch import Tensor, nn

from spfde.kernels import library as c
from spfde.kernels.blocked import unblock
from spfde.kernels.ending import Ending
from spfde.kernels.library import LANES, library
from spfde.kernels.memory import borrow
from spfde.kernels.norm import Affine
from spfde.kernels.structure import Structure


def plain(x: Tensor) -> c.Source:
    """An activation as it is stored."""
    source = c.Source(c.PLAIN, x.data_ptr())
    source.keep = x
    return source


def normalised(y: Tensor, norm: Affine) -> c.Source:
    """relu(BatchNorm(y)) of a stored convolution, made while it is read."""
    source = c.Source(c.AFFINE_RELU, y.data_ptr(), None, norm.a, norm.b)
    source.keep = y, norm
    return source


def images(source: c.Source, batch: int, threads: int) -> Tensor:
    """An operand as (batch, channels, height, width): what the kernels make of it while they read it."""
    if source.mode == c.PLAIN:
        value = source.keep
    elif source.mode == c.AFFINE_RELU:
        y, norm = source.keep
        a, b = norm.coefficients[:, :, None, None]
        value = torch.relu(a * y + b)
    else:
        coefficients, g, y = source.keep
        a, b, d = coefficients[:3, :, None, None]
        value = a * g + b * y + d if source.mode == c.GRADIENT else a * g
    return unblock(value, batch, threads)


class Watcher(Protocol):
    """Sees what a layer reads, and the gradient of its outputs. Both are (batch, channels, height, width)."""

    def forward(self, inputs: Tensor, outputs: Sequence[int]) -> None:
        """Takes the inputs, and the shape of the outputs, in the forward pass."""

    def backward(self, gradient: Tensor) -> None:
        """Takes the gradient of the outputs in the backward pass."""

    def hook(self, module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        """Does both, as a forward hook of the layer's module where that is called."""


class Convolution:
    """A convolution of one batch.

    Args:
        structure: its nonzeros.
        batch: images.
        x: shape of the input, (blocks, height, inputs, width, 16).
        threads: to work with.
        watcher: sees its operands.
    """

    def __init__(
        self, structure: Structure, batch: int, x: Sequence[int], threads: int, watcher: Watcher | None = None
    ) -> None:
        self.structure, self.watcher = structure, watcher
        self.height, self.width = x[1], x[3]
        self.shape = structure.geometry(batch, self.height, self.width, threads)
        stride = structure.stride
        self.output = (x[0], (self.height - 1) // stride + 1, structure.shape[0], (self.width - 1) // stride + 1, LANES)

    @property
    def count(self) -> int:
        """Values a channel of the output, over the whole batch."""
        return self.shape.batch * self.output[1] * self.output[3]

    def forward(self, x: c.Source, weight: Tensor, sums: bool = False) -> tuple[Tensor, Tensor | None]:
        """The convolution, and the sums for its BatchNorm where they are wanted."""
        if self.watcher:
            batch, (_, height, channels, width, _) = self.shape.batch, self.output
            self.watcher.forward(images(x, batch, self.shape.threads), (batch, channels, height, width))
        found = None
        if sums:
            found = torch.empty(library().conv_records(self.shape), self.output[2], 3, LANES)
        epilogue = c.Epilogue(found.data_ptr() if found is not None else None)
        return self._run(x, weight, epilogue, c.STATISTICS if sums else c.STORE), found

    def apply(self, x: c.Source, weight: Tensor, norm: Affine, relu: bool, residual: Tensor | None = None) -> Tensor:
        """The convolution with a BatchNorm of known statistics, plus a residual, through ReLU where asked for."""
        other = residual.data_ptr() if residual is not None else None
        return self._run(x, weight, c.Epilogue(other=other, a=norm.a, b=norm.b, relu=relu), c.APPLY)

    def _run(self, x: c.Source, weight: Tensor, epilogue: c.Epilogue, finish: int) -> Tensor:
        y = borrow(*self.output)
        walk = self.structure.forward(self.height, self.width)
        library().conv_forward(c.Forward(self.shape, walk.gather(weight), x, y.data_ptr(), epilogue, finish))
        return y

    def backward(
        self,
        x: c.Source,
        dy: c.Source,
        weight: Tensor,
        positions: Structure | None,
        dx: Tensor | None,
        add: bool = False,
        through: tuple[Tensor, Affine] | None = None,
        end: tuple[Tensor, Ending] | None = None,
    ) -> tuple[Tensor | None, Tensor | None]:
        """Gradients of weights and input.

        Args:
            x: input as in the forward pass.
            dy: gradient of the output.
            weight: dense weight as in the forward pass.
            positions: where the gradient of the weights is wanted; nowhere unless given.
            dx: is overwritten with the gradient of the input where it is wanted.
            add: add to what is in dx.
            through: what the input was made of, relu(norm(y)), given as (y, norm): dx becomes the gradient of norm(y).
            end: the input, and the end of the block whose output it is: what dx holds then is added to the gradient,
                and dx becomes the gradient before that block's last ReLU.

        Returns:
            The gradient of the weights, dense, zero but at the positions, and for `through` and `end` the sums that
            the gradients of the BatchNorms before need: (records, inputs, 3, 16).
        """
        if self.watcher:
            self.watcher.backward(images(dy, self.shape.batch, self.shape.threads))
        dw, sums = None, None
        backward = c.Backward(shape=self.shape, x=x, dy=dy, finish=c.ADD if add else c.STORE)
        if positions is not None:
            dw = torch.zeros_like(weight)
            if positions.entries:
                backward.dw = dw.data_ptr()
                walk = positions.forward(self.height, self.width)
                backward.positions = walk.rows
        if dx is not None:
            backward.dx = dx.data_ptr()
            back = self.structure.transposed(self.height, self.width)
            backward.transposed = back.gather(weight)
            if through or end:
                sums = torch.empty(library().conv_records(self.shape), self.shape.inputs, 3, LANES)
            if through and sums is not None:
                y, norm = through
                backward.epilogue = c.Epilogue(
                    sums=sums.data_ptr(), other=y.data_ptr(), a=norm.a, b=norm.b, mean=norm.mean
                )
                backward.finish = c.MASK
            elif end and sums is not None:
                backward.epilogue = end[1].epilogue(sums, end[0])
                backward.finish = c.END
        if backward.dx or backward.dw:
            library().conv_backward(backward)
        return dw, sums
