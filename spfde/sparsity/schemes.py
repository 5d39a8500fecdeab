"""Shapes of the sparsity: which masks of a weight tensor are allowed, and how they lose and gain weights.

A scheme cuts a weight tensor into units that are on or off together. Masks are boolean tensors of the weight's shape;
scores are real tensors of that shape, higher is kept or grown first. Everything is a handful of tensor operations on
the weight's device.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from spfde.errors import lookup
from spfde.sparsity.distributions import active_count


class Scheme:
    """Unstructured sparsity: every weight is a unit of its own. Other schemes override the three methods below."""

    name = "unstructured"

    def units(self, values: Tensor) -> Tensor:
        """Sums a weight-shaped tensor over each unit: any shape, one entry a unit."""
        return values

    def expand(self, units: Tensor, shape: Sequence[int]) -> Tensor:
        """Spreads one boolean a unit over a tensor of the weight's shape."""
        return units

    def unit_count(self, shape: Sequence[int], density: float) -> int:
        """Active units at a density (of all weights), rounded half up."""
        return active_count(density, self.units(torch.empty(tuple(shape), device="meta")).numel())

    def keep(self, mask: Tensor, score: Tensor, density: float) -> Tensor:
        """The part of `mask` with the highest scores that has the given density of all weights."""
        active = self.units(mask.to(score.dtype)) > 0
        return self.expand(self._top(self.units(score), active, self.unit_count(mask.shape, density)), mask.shape)

    def grow(self, mask: Tensor, score: Tensor, density: float, candidates: Tensor) -> Tensor:
        """`mask` and the highest-scored candidates outside it, up to the given density of all weights."""
        active = self.units(mask.to(score.dtype)) > 0
        free = (self.units(candidates.to(score.dtype)) > 0) & ~active
        wanted = self.unit_count(mask.shape, density) - int(active.sum())
        return mask | self.expand(self._top(self.units(score), free, wanted), mask.shape)

    def random(self, shape: Sequence[int], density: float, generator: torch.Generator) -> Tensor:
        """A random mask with exactly the count of the density, drawn on the CPU."""
        everywhere = torch.ones(tuple(shape), dtype=torch.bool)
        return self.keep(everywhere, torch.rand(tuple(shape), generator=generator), density)

    @staticmethod
    def _top(score: Tensor, allowed: Tensor, count: int) -> Tensor:
        """The `count` highest scores among the allowed ones (all of these where they are fewer)."""
        flat = score.masked_fill(~allowed, -torch.inf).flatten()
        chosen = torch.zeros_like(flat, dtype=torch.bool)
        chosen[flat.topk(max(0, count)).indices] = True
        return chosen.view_as(score) & allowed


SCHEMES: dict[str, Scheme] = {"unstructured": Scheme()}


def scheme(name: str) -> Scheme:
    return lookup("scheme", name, SCHEMES)
