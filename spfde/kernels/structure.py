"""Where the nonzeros of a convolution are, in the order in which the kernels walk along them."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from spfde.kernels import library as c
from spfde.kernels.covered import untouched
from spfde.kernels.library import library

_WALKS = 32  # kept of a structure: those of 16 image sizes


def supports(conv: nn.Module) -> bool:
    """Whether there are kernels for a convolution: 1x1 or 3x3, stride 1 or 2, padded to keep the size, no groups."""
    if type(conv) is not nn.Conv2d or not untouched(conv):
        return False
    size = conv.kernel_size[0]
    return (
        conv.kernel_size in ((1, 1), (3, 3))
        and conv.stride in ((1, 1), (2, 2))
        and conv.padding == (size // 2, size // 2)
        and conv.dilation == (1, 1)
        and conv.groups == 1
        and conv.padding_mode == "zeros"
        and readable(conv._parameters.get("weight"))
    )


def readable(weight: Tensor | None) -> bool:
    """Whether kernels can read a layer's parameter of this name; a parametrised weight is none."""
    return weight is not None and weight.dtype is torch.float32 and weight.is_cpu and is_dense(weight)


def is_dense(weight: Tensor) -> bool:
    """Whether its values lie side by side in memory, each once; then its gradient, `zeros_like`, has its strides."""
    return (
        weight.is_contiguous()
        or weight.is_contiguous(memory_format=torch.channels_last)
        or torch.empty_like(weight).stride() == weight.stride()
    )


def channel_blocks(channels: int, taps: float, window: int, density: float) -> int:
    """Into how many blocks the channels that a row sums over are cut.

    The part of a band that a tile reads, its window, fits the L1 cache for the channels of a block; but partial sums
    must be stored and read again for each block, which takes enough nonzeros: fewer where the whole is far beyond L1.

    Args:
        taps: weights of one input and output channel that a row uses.
        window: pixels of one channel that a tile reads.
        density: of the weights.
    """
    block = max(1, 600 // window)  # vectors: 38 of the 48 KB that L1 has, or of 32 KB most of them
    blocks = -(-channels // block)
    least = 11 if blocks <= 2 else 10 if blocks <= 4 else 5.5
    return blocks if density * taps * block >= least else 1


def as_convolution(weight: Tensor) -> Tensor:
    """A weight as (outputs, inputs, kernel, kernel): that of a linear layer is one of a 1x1 convolution."""
    return weight if weight.dim() == 4 else weight[:, :, None, None]


@dataclass
class Walk:
    """The rows of nonzeros for one image size.

    Whoever uses `rows` holds the walk meanwhile: they point to its tensors, and a structure lets go of old walks.
    """

    rows: c.Rows
    tensors: tuple[Tensor, ...]

    def gather(self, weight: Tensor) -> c.Rows:
        """Takes the values from the dense weight as it is now."""
        library().gather_values(self.rows, weight.data_ptr())
        return self.rows


class Structure:
    """The nonzeros of one convolution under one mask. It never changes: another mask is another structure.

    Args:
        weight: of the convolution, (outputs, inputs, kernel, kernel), or of a linear layer, (outputs, inputs); only its
            shape and strides are used.
        stride: of the convolution.
        mask: of the weight's shape, true (or not 0) where weights are active; all of them unless given.
    """

    def __init__(self, weight: Tensor, stride: int, mask: Tensor | None = None) -> None:
        self._size, self._strides = weight.shape, weight.stride()
        self._dense = is_dense(weight)
        weight = as_convolution(weight)
        self.shape = tuple(weight.shape)
        self.strides = weight.stride()
        self.stride = stride
        self.mask = torch.ones(self.shape, dtype=torch.bool) if mask is None else (mask != 0).reshape(self.shape)
        self.mask = self.mask.contiguous()
        self._flat = self.mask.view(-1).nonzero().view(-1).int()
        self.entries = len(self._flat)
        self._walks: dict[tuple[str, int, int], Walk] = {}

    @property
    def density(self) -> float:
        return self.entries / self.mask.numel()

    def fits(self, weight: Tensor) -> bool:
        """Whether the weight still has the shape and strides that the structure was made for."""
        return weight.shape == self._size and weight.stride() == self._strides

    def reads(self, weight: Tensor | None) -> bool:
        """Whether kernels can read this weight, in this memory format or after a rebuild for another one."""
        if weight is None or weight.dtype is not torch.float32 or not weight.is_cpu:
            return False
        return self._dense if self.fits(weight) else weight.shape == self._size and is_dense(weight)

    def geometry(self, batch: int, height: int, width: int, threads: int) -> c.Shape:
        outputs, inputs, kernel, _ = self.shape
        return c.Shape(batch, inputs, height, width, outputs, kernel, self.stride, threads)

    def forward(self, height: int, width: int) -> Walk:
        """Rows of output channels."""
        return self._walk("conv_rows", height, width, self.shape[0], self.shape[1], 1)

    def transposed(self, height: int, width: int) -> Walk:
        """Rows of input channels, for each parity of the pixels where the stride is 2."""
        return self._walk("conv_transposed", height, width, self.shape[1], self.shape[0], self.stride**2)

    def _walk(self, build: str, height: int, width: int, rows: int, channels: int, classes: int) -> Walk:
        found = self._walks.get((build, height, width))
        if found is None:
            area = self.shape[2] * self.shape[3]
            side = 3 * (self.stride if build == "conv_rows" and area > 1 else 1) + 1  # of the window, with its halo
            window = (side + (area > 1) * (1 + (classes == 1))) ** 2
            blocks = channel_blocks(channels, max(1, area / classes), window, self.density)
            start = torch.empty(classes * blocks * rows + 1, dtype=torch.int32)
            offset = torch.empty(self.entries, dtype=torch.int32)
            index = torch.empty_like(offset)
            value = torch.empty(self.entries)
            getattr(library(), build)(
                self.geometry(1, height, width, 1), self._flat.data_ptr(), self.entries,
                (c.c_int64 * 4)(*self.strides), blocks, start.data_ptr(), offset.data_ptr(), index.data_ptr(),
            )  # fmt: skip
            pointers = (tensor.data_ptr() for tensor in (start, offset, value, index))
            while len(self._walks) >= _WALKS:
                del self._walks[next(iter(self._walks))]
            rows_ = c.Rows(*pointers, rows, blocks, classes, self.entries)
            found = self._walks[build, height, width] = Walk(rows_, (start, offset, value, index))
        return found
