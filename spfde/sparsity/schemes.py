"""Shapes of the sparsity: which masks of a weight tensor are allowed, and how they lose and gain weights.

A scheme cuts a weight tensor (out, in, *kernel) into units that are on or off together. Masks are boolean tensors of
the weight's shape; scores are real tensors of that shape, and a unit's score is the L2 norm of its weights' scores, as
in MEST's code: the highest are kept or grown first. Everything is a handful of tensor operations on the weight's
device.

A density is always a share of all weights of the layer, whatever the units. At any density above 0 a layer keeps at
least one unit: a layer that rounding leaves without weights would compute nothing. To add a scheme: derive from
`Scheme` and decorate the class with `@register_scheme`.
"""

import copy
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, TypeVar

import torch
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd

from spfde.errors import SpfdeError, lookup
from spfde.rounding import count_of
from spfde.settings import SparsitySettings


@dataclass(frozen=True)
class Layout:
    """How the weight of a layer lies in memory.

    Attributes:
        transposed: the weight is (in, out / groups, *kernel), as in a transposed convolution.
        groups: groups of the convolution.
    """

    transposed: bool = False
    groups: int = 1

    @classmethod
    def of(cls, module: nn.Module) -> "Layout":
        if isinstance(module, _ConvNd):
            return cls(module.transposed, module.groups)
        return cls()

    def turned(self, values: Tensor) -> Tensor:
        """The weight's layout to (out, in / groups, *kernel), which schemes work on, or from it back."""
        if not self.transposed:
            return values
        return values.unflatten(0, (self.groups, -1)).transpose(1, 2).flatten(0, 1)

    def shape(self, shape: Sequence[int]) -> tuple[int, ...]:
        """The shape (out, in / groups, *kernel) of a weight of the given shape."""
        return tuple(self.turned(torch.empty(tuple(shape), device="meta")).shape)


class Scheme:
    """Unstructured sparsity: every weight is a unit of its own. Other schemes override what differs.

    The public methods take weights as they lie in memory; what a scheme overrides sees them as (out, in / groups,
    *kernel).
    """

    family: ClassVar[str] = "unstructured"
    layout = Layout()

    @classmethod
    def parse(cls, name: str) -> "Scheme":
        """The scheme that a setting names.

        Raises:
            SpfdeError: the name has the form of this family, but its numbers are impossible.
        """
        return cls()

    def of(self, module: nn.Module) -> "Scheme":
        """This scheme for the weight of a given module, so that it knows the order of the weight's axes."""
        own = copy.copy(self)
        own.layout = Layout.of(module)
        return own

    def check(self, sparsity: SparsitySettings) -> None:
        """Refuses a target or a distribution that the scheme's masks cannot have.

        Raises:
            SpfdeError: the masks cannot have it; the remedy names the nearest value that they can have.
        """

    # what a unit is; weights come as (out, in / groups, *kernel)

    def parts(self, values: Tensor) -> list[Tensor]:
        """The parts of a weight-shaped tensor whose units compete among themselves; joined along the filters."""
        return [values]

    def units(self, values: Tensor) -> Tensor:
        """A part's values by unit, shape (*units, weights of a unit)."""
        return values.unsqueeze(-1)

    def unit_score(self, score: Tensor) -> Tensor:
        """What each unit of a part is worth, shape (*units)."""
        return score

    def expand(self, units: Tensor, shape: Sequence[int]) -> Tensor:
        """Spreads one boolean per unit over a part of the given shape."""
        return units

    # counts and masks; weights come as they lie in memory

    def unit_count(self, shape: Sequence[int], density: float) -> int:
        """Active units at a density (of all weights), rounded half up; at least one."""
        return sum(self._counts(self._meta(shape), density))

    def weight_count(self, shape: Sequence[int], density: float) -> int:
        """Active weights at a density: those of its active units. Exact, and the same for every mask."""
        values = self._meta(shape)
        sizes = [self.units(part).shape[-1] for part in self.parts(values)]
        return sum(size * count for size, count in zip(sizes, self._counts(values, density), strict=True))

    def keep(self, mask: Tensor, score: Tensor, density: float) -> Tensor:
        """The part of `mask` with the highest scores that has the given density of all weights."""
        turned = self.layout.turned
        return turned(self._keep(turned(mask), turned(score), density))

    def grow(self, mask: Tensor, score: Tensor, density: float, candidates: Tensor) -> Tensor:
        """`mask` and the highest-scored candidates outside it, up to the given density of all weights."""
        turned = self.layout.turned
        return turned(self._grow(turned(mask), turned(score), density, turned(candidates)))

    def random(self, shape: Sequence[int], density: float, generator: torch.Generator) -> Tensor:
        """A random mask with exactly the count of the density, drawn on the CPU."""
        everywhere = torch.ones(tuple(shape), dtype=torch.bool)
        return self.keep(everywhere, torch.rand(tuple(shape), generator=generator), density)

    def _meta(self, shape: Sequence[int]) -> Tensor:
        return self.layout.turned(torch.empty(tuple(shape), device="meta"))

    def _counts(self, values: Tensor, density: float) -> list[int]:
        """Active units of each part at a density."""
        counts = [count_of(density, self.units(part).shape[:-1].numel()) for part in self.parts(values)]
        return counts if any(counts) or density <= 0 else [1, *counts[1:]]

    def _keep(self, mask: Tensor, score: Tensor, density: float) -> Tensor:
        kept = []
        for old, values, count in zip(self.parts(mask), self.parts(score), self._counts(mask, density), strict=True):
            kept.append(self.expand(top(self.unit_score(values), self.units(old).any(-1), count), old.shape))
        return torch.cat(kept)

    def _grow(self, mask: Tensor, score: Tensor, density: float, candidates: Tensor) -> Tensor:
        parts = zip(*map(self.parts, (mask, score, candidates)), self._counts(mask, density), strict=True)
        grown = []
        for old, values, free, count in parts:
            active = self.units(old).any(-1)
            more = top(self.unit_score(values), self.units(free).any(-1) & ~active, count - int(active.sum()))
            grown.append(old | self.expand(more, old.shape))
        return torch.cat(grown)


class Structured(Scheme):
    """Base of schemes whose units have several weights."""

    def unit_score(self, score: Tensor) -> Tensor:
        return torch.linalg.vector_norm(self.units(score), dim=-1)


def top(score: Tensor, allowed: Tensor, count: int) -> Tensor:
    """The `count` highest scores among the allowed ones (all of these where they are fewer), as booleans."""
    flat = score.masked_fill(~allowed, -torch.inf).flatten()
    chosen = torch.zeros_like(flat, dtype=torch.bool)
    chosen.index_fill_(0, flat.topk(max(0, count)).indices, True)  # an assignment would wait for a GPU
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
