"""Channel sparsity: whole input channels of a layer."""

from collections.abc import Sequence

from torch import Tensor

from spfde.sparsity.schemes import Structured, register_scheme


@register_scheme
class Channel(Structured):
    """A unit is one input channel of the layer, over all filters that read it (our definition: MEST releases none).

    In a convolution with groups these are the filters of one group; so a depthwise layer loses whole filters.
    """

    family = "channel"

    def units(self, values: Tensor) -> Tensor:
        return values.unflatten(0, (self.layout.groups, -1)).transpose(1, 2).flatten(2)

    def expand(self, units: Tensor, shape: Sequence[int]) -> Tensor:
        groups, channels = units.shape
        spread = units.view(groups, 1, channels, *[1] * (len(shape) - 2))
        return spread.expand(groups, shape[0] // groups, *shape[1:]).reshape(tuple(shape))
