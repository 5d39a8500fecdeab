"""The end of a block, z = relu(norm(y) + residual), and its gradient before the ReLU.

Most often the next block makes that gradient while it stores its own input gradient, which saves a pass over four
activations. It leaves a note here, with the sums for the BatchNorms; where something else came in between (another
reader of z, whose gradient autograd has added), the note does not fit and the pass is made after all.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from spfde.kernels import library as c
from spfde.kernels.blocked import activation, aligned
from spfde.kernels.library import LANES, library
from spfde.kernels.memory import borrow
from spfde.kernels.norm import Affine


@dataclass
class Ending:
    """What the end of a block is made of.

    Attributes:
        batch: images.
        y: output of the last convolution, and its normalisation.
        residual: what is added, if anything; its normalisation, if it has one of its own.
    """

    batch: int
    threads: int
    y: Tensor
    norm: Affine
    residual: Tensor | None = None
    residual_norm: Affine | None = None
    _note: tuple[Tensor, int, Tensor] | None = None

    def __post_init__(self) -> None:
        self.alone = self.residual is None  # nothing is added

    def forward(self) -> Tensor:
        """z."""
        z, norm = borrow(*self.y.shape), self.residual_norm
        own = (norm.a, norm.b) if norm else (None, None)
        residual = None if self.residual is None else self.residual.data_ptr()
        library().residual_end(
            activation(self.batch, z, self.threads), z.data_ptr(), self.y.data_ptr(), self.norm.a, self.norm.b,
            residual, *own,
        )  # fmt: skip
        if norm is None:
            self.residual = None  # its gradient needs no value of it
        return z

    def epilogue(self, sums: Tensor, z: Tensor) -> c.Epilogue:
        """For the convolution of the next block that makes the gradient before the ReLU of z."""
        second, norm = self._normalised_residual()
        return c.Epilogue(
            sums=sums.data_ptr(), other=self.y.data_ptr(), z=z.data_ptr(), second=second, mean=self.norm.mean,
            second_mean=norm,
        )  # fmt: skip

    def note(self, g: Tensor, sums: Tensor) -> None:
        """The next block has made g, the gradient before the ReLU, and its sums."""
        self._note = g, g._version, sums

    def backward(self, dz: Tensor, z: Tensor) -> tuple[Tensor, Tensor]:
        """The gradient before the ReLU, free to be written to, and its sums: (records, channels, 3, 16)."""
        note, self._note = self._note, None
        if note and dz.data_ptr() == note[0].data_ptr() and dz._version == note[1] and dz.shape == note[0].shape:
            return note[0], note[2]
        dz, g = aligned(dz), borrow(*z.shape)
        sums = torch.empty(self.threads, z.shape[2], 3, LANES)
        library().residual_end_backward(
            activation(self.batch, z, self.threads), g.data_ptr(), dz.data_ptr(), z.data_ptr(), self.y.data_ptr(),
            self.norm.mean, *self._normalised_residual(), sums.data_ptr(),
        )  # fmt: skip
        return g, sums

    def _normalised_residual(self) -> tuple[int | None, int | None]:
        """Address of a residual that has a normalisation of its own, and of its mean."""
        if self.residual is None or self.residual_norm is None:
            return None, None
        return self.residual.data_ptr(), self.residual_norm.mean
