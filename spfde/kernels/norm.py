"""BatchNorm on blocked activations: an affine map, whose coefficients come from sums that convolutions leave behind."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from spfde.kernels import library as c
from spfde.kernels.library import library


@dataclass
class Sums:
    """Sums of g and g (y - mean), by record and lane.

    Attributes:
        values: (records, channels, 3, 16), sums of g first.
        which: 1 or 2, where those of g (y - mean) are.
    """

    values: Tensor
    which: int


class Affine:
    """The normalisation of one batch as a map a y + b, with what its gradients need.

    Args:
        bn: the module; its running statistics are updated as in torch.
        shape: of the convolution before it.
        sums: of that convolution's output (`Convolution.forward`); none where statistics of the batch are not used.
        count: values a channel.
    """

    def __init__(self, bn: nn.BatchNorm2d, shape: c.Shape, sums: Tensor | None, count: int) -> None:
        batch_statistics = uses_batch(bn)
        momentum = _momentum(bn)
        kept = not batch_statistics or (bn.training and bn.track_running_stats)
        self.buffer = torch.empty(4, bn.num_features)  # mean, inverse, a, b
        self.count = count if batch_statistics else 0
        self._alive = [tensor.detach() for tensor in (bn.weight, bn.bias) if tensor is not None]  # read in `backward`
        first, step = self.buffer.data_ptr(), 4 * bn.num_features
        self._norm = c.Norm(
            bn.num_features, batch_statistics, bn.eps, momentum, _address(bn.weight), _address(bn.bias),
            _address(bn.running_mean) if kept else None, _address(bn.running_var) if kept else None,
            first, first + step, first + 2 * step, first + 3 * step,
        )  # fmt: skip
        library().batch_norm(self._norm, shape, _address(sums))
        self.mean, self.a, self.b = self._norm.mean, self._norm.a, self._norm.b

    @property
    def coefficients(self) -> Tensor:
        """a and b, (2, channels)."""
        return self.buffer[2:]

    def backward(self, g: Tensor, y: Tensor, sums: Sums) -> tuple[c.Source, Tensor, Tensor]:
        """Gradient of the input as a source to be made while it is read, and those of weight and bias.

        Args:
            g: gradient of the output a y + b.
            y: input.
            sums: of g.
        """
        channels = self.buffer.shape[1]
        out = torch.empty(5, channels)
        library().batch_norm_backward(
            self._norm, sums.values.data_ptr(), len(sums.values), sums.which, self.count, out.data_ptr()
        )
        first, step = out.data_ptr(), 4 * channels
        mode = c.GRADIENT if self.count else c.SCALED
        source = c.Source(mode, g.data_ptr(), y.data_ptr(), first, first + step, first + 2 * step)
        source.keep = out, g, y
        return source, out[3], out[4]


def uses_batch(bn: nn.BatchNorm2d) -> bool:
    """Whether the statistics are those of the batch: in training, and where none are kept."""
    return bn.training or (bn.running_mean is None and bn.running_var is None)


def check_count(bn: nn.BatchNorm2d, count: int) -> None:
    """As in torch: a single value has no variance.

    Raises:
        ValueError: one value a channel, in training.
    """
    if count <= 1 and uses_batch(bn):
        raise ValueError(f"Expected more than 1 value per channel when training, got {count}")


def _momentum(bn: nn.BatchNorm2d) -> float:
    """Share of the new statistics; counts the batch where the module counts them."""
    if not (bn.training and bn.track_running_stats):
        return 0.0
    if bn.num_batches_tracked is not None:
        bn.num_batches_tracked.add_(1)
        if bn.momentum is None:
            return 1.0 / float(bn.num_batches_tracked)
    return 0.0 if bn.momentum is None else bn.momentum


def _address(tensor: Tensor | None) -> int | None:
    return None if tensor is None else tensor.data_ptr()
