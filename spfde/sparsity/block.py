"""Block sparsity: neighbouring filters share a mask."""

from collections.abc import Sequence

from torch import Tensor

from spfde.sparsity.schemes import Structured, register_scheme

FILTERS = 4  # as in MEST, Yuan et al. 2021, sparsity schemes: the width of a SIMD register


@register_scheme
class Block(Structured):
    """A unit is one input position of four neighbouring filters, ranked by the L2 norm of its four weights.

    Where four does not divide the filters, the last group is smaller. Its units compete among themselves and have a
    count of their own, so that a mask's number of weights does not depend on which units are active. In a convolution
    with groups a filter's input positions are those of its own group.
    """

    family = "block"

    def parts(self, values: Tensor) -> list[Tensor]:
        """The filters in full groups, and the rest."""
        full = len(values) // FILTERS * FILTERS
        return [part for part in (values[:full], values[full:]) if len(part)]

    def units(self, values: Tensor) -> Tensor:
        return values.unflatten(0, (-1, min(FILTERS, len(values)))).movedim(1, -1)

    def expand(self, units: Tensor, shape: Sequence[int]) -> Tensor:
        return units.repeat_interleave(min(FILTERS, shape[0]), dim=0)
