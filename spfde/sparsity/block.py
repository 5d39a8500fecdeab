"""Block sparsity: neighbouring filters share a mask."""

from collections.abc import Sequence

import torch
from torch import Tensor

from spfde.sparsity.schemes import Scheme, register_scheme

FILTERS = 4  # as in MEST, Yuan et al. 2021, Sec. 3.1: the width of a SIMD register


@register_scheme
class Block(Scheme):
    """A unit is one input position of four neighbouring filters.

    Where four does not divide the filters, the last group is smaller. Its units compete among themselves and have a
    count of their own, so that a mask's number of weights does not depend on which units are active.
    """

    family = "block"

    def units(self, values: Tensor) -> Tensor:
        return values.unflatten(0, (-1, min(FILTERS, len(values)))).sum(dim=1)

    def expand(self, units: Tensor, shape: Sequence[int]) -> Tensor:
        return units.repeat_interleave(min(FILTERS, shape[0]), dim=0)

    def unit_count(self, shape: Sequence[int], density: float) -> int:
        return sum(super(Block, self).unit_count(part, density) for part in self._shapes(shape))

    def weight_count(self, shape: Sequence[int], density: float) -> int:
        return sum(super(Block, self).weight_count(part, density) for part in self._shapes(shape))

    def keep(self, mask: Tensor, score: Tensor, density: float) -> Tensor:
        parts = zip(self._parts(mask), self._parts(score), strict=True)
        return torch.cat([super(Block, self).keep(*part, density) for part in parts])

    def grow(self, mask: Tensor, score: Tensor, density: float, candidates: Tensor) -> Tensor:
        parts = zip(*map(self._parts, (mask, score, candidates)), strict=True)
        return torch.cat([super(Block, self).grow(old, values, density, free) for old, values, free in parts])

    @staticmethod
    def _parts(values: Tensor) -> list[Tensor]:
        """The filters in full groups, and the rest."""
        full = len(values) // FILTERS * FILTERS
        return [part for part in (values[:full], values[full:]) if len(part)]

    @staticmethod
    def _shapes(shape: Sequence[int]) -> list[tuple[int, ...]]:
        return [tuple(part.shape) for part in Block._parts(torch.empty(tuple(shape), device="meta"))]
