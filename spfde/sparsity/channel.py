"""Channel sparsity: whole input channels of a layer."""

from collections.abc import Sequence

from torch import Tensor

from spfde.sparsity.schemes import Scheme, register_scheme


@register_scheme
class Channel(Scheme):
    """A unit is one input channel of the layer, over all filters (our definition: MEST releases none).

    At least one channel stays at any density above 0: a layer that reads nothing computes nothing.
    """

    family = "channel"

    def units(self, values: Tensor) -> Tensor:
        return values.transpose(0, 1).flatten(1).sum(dim=1)

    def expand(self, units: Tensor, shape: Sequence[int]) -> Tensor:
        return units.view(1, -1, *[1] * (len(shape) - 2)).expand(tuple(shape))

    def unit_count(self, shape: Sequence[int], density: float) -> int:
        return max(int(density > 0), super().unit_count(shape, density))
