"""Shapes of the sparsity: which masks of a weight tensor are allowed, and how they lose and gain weights.

A scheme cuts a weight tensor (out, in, *kernel) into units that are on or off together. Masks are boolean tensors of
the weight's shape; scores are real tensors of that shape, and a unit's score is the sum over its weights: the highest
are kept or grown first. Everything is a handful of tensor operations on the weight's device.

A density is always a share of all weights of the layer, whatever the units. To add a scheme: derive from `Scheme` and
decorate the class with `@register_scheme`.
"""

import re
from collections.abc import Sequence
from typing import ClassVar, TypeVar

import torch
from torch import Tensor

from spfde.errors import SpfdeError, lookup
from spfde.rounding import count_of
from spfde.settings import SparsitySettings


class Scheme:
    """Unstructured sparsity: every weight is a unit of its own. Other schemes override what differs."""

    family: ClassVar[str] = "unstructured"

    @classmethod
    def parse(cls, name: str) -> "Scheme":
        """The scheme that a setting names.

        Raises:
            SpfdeError: the name has the family's form, but no sense.
        """
        return cls()

    def check(self, sparsity: SparsitySettings) -> None:
        """Refuses a target or a distribution that the scheme's masks cannot have.

        Raises:
            SpfdeError: naming the nearest that they can.
        """

    def units(self, values: Tensor) -> Tensor:
        """Sums a weight-shaped tensor over each unit: any shape, one entry a unit."""
        return values

    def expand(self, units: Tensor, shape: Sequence[int]) -> Tensor:
        """Spreads one boolean a unit over a tensor of the weight's shape."""
        return units

    def unit_count(self, shape: Sequence[int], density: float) -> int:
        """Active units at a density (of all weights), rounded half up."""
        return count_of(density, self.units(torch.empty(tuple(shape), device="meta")).numel())

    def weight_count(self, shape: Sequence[int], density: float) -> int:
        """Active weights at a density: those of its active units. Exact, and the same for every mask."""
        size = torch.Size(shape).numel()
        return size // self.unit_count(shape, 1.0) * self.unit_count(shape, density)

    def keep(self, mask: Tensor, score: Tensor, density: float) -> Tensor:
        """The part of `mask` with the highest scores that has the given density of all weights."""
        active = self.units(mask.to(score.dtype)) > 0
        return self.expand(top(self.units(score), active, self.unit_count(mask.shape, density)), mask.shape)

    def grow(self, mask: Tensor, score: Tensor, density: float, candidates: Tensor) -> Tensor:
        """`mask` and the highest-scored candidates outside it, up to the given density of all weights."""
        active = self.units(mask.to(score.dtype)) > 0
        free = (self.units(candidates.to(score.dtype)) > 0) & ~active
        wanted = self.unit_count(mask.shape, density) - int(active.sum())
        return mask | self.expand(top(self.units(score), free, wanted), mask.shape)

    def random(self, shape: Sequence[int], density: float, generator: torch.Generator) -> Tensor:
        """A random mask with exactly the count of the density, drawn on the CPU."""
        everywhere = torch.ones(tuple(shape), dtype=torch.bool)
        return self.keep(everywhere, torch.rand(tuple(shape), generator=generator), density)


def top(score: Tensor, allowed: Tensor, count: int) -> Tensor:
    """The `count` highest scores among the allowed ones (all of these where they are fewer), as booleans."""
    flat = score.masked_fill(~allowed, -torch.inf).flatten()
    chosen = torch.zeros_like(flat, dtype=torch.bool)
    chosen[flat.topk(max(0, count)).indices] = True
    return chosen.view_as(score) & allowed


SCHEMES: dict[str, type[Scheme]] = {Scheme.family: Scheme}
S = TypeVar("S", bound=type[Scheme])


def register_scheme(scheme: S) -> S:
    """Class decorator: makes a scheme known by its family's name."""
    SCHEMES[scheme.family] = scheme
    return scheme


def scheme(name: str) -> Scheme:
    """The scheme that the setting `sparsity.scheme` names: a family of SCHEMES, or numbers such as 2:4 for n:m.

    Raises:
        SpfdeError: an unknown or malformed name.
    """
    if re.fullmatch(r"[\d\s.+-]*:.*|.*:[\d\s.+-]*", name):
        return SCHEMES["n:m"].parse(name)
    return lookup("scheme", name, SCHEMES).parse(name)


def require_uniform(name: str, sparsity: SparsitySettings, why: str) -> None:
    """Refuses a distribution that gives layers densities of their own.

    Raises:
        SpfdeError: the distribution is not uniform.
    """
    if sparsity.distribution != "uniform":
        cause = f"scheme {name} cannot have the distribution {sparsity.distribution}: {why}"
        raise SpfdeError(cause, "set sparsity.distribution=uniform, or choose another scheme")
