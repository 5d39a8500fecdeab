"""One sparse convolution on blocked activations: forward pass and gradients."""

from collections.abc import Sequence

import torch
from torch import Tensor

from spfde.kernels import library as c
from spfde.kernels.library import LANES, library
from spfde.kernels.memory import borrow
from spfde.kernels.norm import Affine, Sums
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


class Convolution:
    """A convolution of one batch.

    Args:
        structure: its nonzeros.
        batch: images.
        x: shape of the input, (blocks, inputs, height, width, 16).
        threads: to work with.
    """

    def __init__(self, structure: Structure, batch: int, x: Sequence[int], threads: int) -> None:
        self.structure = structure
        self.height, self.width = x[2], x[3]
        self.shape = structure.geometry(batch, self.height, self.width, threads)
        stride = structure.stride
        self.output = (x[0], structure.shape[0], (self.height - 1) // stride + 1, (self.width - 1) // stride + 1, LANES)

    @property
    def count(self) -> int:
        """Values a channel of the output, over the whole batch."""
        return self.shape.batch * self.output[2] * self.output[3]

    def forward(self, x: c.Source, weight: Tensor, sums: bool = False) -> tuple[Tensor, Tensor | None]:
        """The convolution, and the sums for its BatchNorm where they are wanted."""
        found = None
        if sums:
            found = torch.empty(library().conv_records(self.shape), self.output[1], 3, LANES)
        epilogue = c.Epilogue(found.data_ptr() if found is not None else None)
        return self._run(x, weight, epilogue, c.STATISTICS if sums else c.STORE), found

    def apply(self, x: c.Source, weight: Tensor, norm: Affine, relu: bool, residual: Tensor | None = None) -> Tensor:
        """The convolution with a BatchNorm of known statistics, plus a residual, through ReLU where asked for."""
        other = residual.data_ptr() if residual is not None else None
        return self._run(x, weight, c.Epilogue(None, other, norm.a, norm.b, None, relu), c.APPLY)

    def _run(self, x: c.Source, weight: Tensor, epilogue: c.Epilogue, finish: int) -> Tensor:
        y = borrow(*self.output)
        rows = self.structure.forward(self.height, self.width).gather(weight)
        library().conv_forward(c.Forward(self.shape, rows, x, y.data_ptr(), epilogue, finish))
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
    ) -> tuple[Tensor | None, Sums | None]:
        """Gradients of weights and input.

        Args:
            x: input as in the forward pass.
            dy: gradient of the output.
            weight: dense weight as in the forward pass.
            positions: where the gradient of the weights is wanted; nowhere unless given.
            dx: is overwritten with the gradient of the input where it is wanted.
            add: add to what is in dx.
            through: what the input was made of, relu(norm(y)), given as (y, norm): dx becomes the gradient of norm(y).

        Returns:
            The gradient of the weights, dense, zero but at the positions, and the sums that norm's gradients need.
        """
        dw, sums = None, None
        backward = c.Backward(shape=self.shape, x=x, dy=dy, finish=c.ADD if add else c.STORE)
        if positions is not None:
            dw = torch.zeros_like(weight)
            backward.dw = dw.data_ptr()
            backward.positions = positions.forward(self.height, self.width).rows
        if dx is not None:
            backward.dx = dx.data_ptr()
            backward.transposed = self.structure.transposed(self.height, self.width).gather(weight)
            if through:
                y, norm = through
                values = torch.empty(library().conv_records(self.shape), self.shape.inputs, 2, LANES)
                backward.epilogue = c.Epilogue(values.data_ptr(), y.data_ptr(), norm.a, norm.b, norm.mean)
                backward.finish = c.MASK
                sums = Sums(values, 1)
        library().conv_backward(backward)
        return dw, sums
