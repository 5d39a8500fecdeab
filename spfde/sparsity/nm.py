"""n:m sparsity: n active weights in every m consecutive input positions of a filter, as sparse tensor cores need it."""

import re
from fractions import Fraction

import torch
from torch import Tensor

from spfde.errors import SpfdeError
from spfde.rounding import down, up
from spfde.settings import SparsitySettings
from spfde.sparsity.schemes import Scheme, register_scheme, require_uniform, top


@register_scheme
class NofM(Scheme):
    """At most n of every m consecutive weights of a filter, exactly n at the target (Mishra et al. 2021: 2:4).

    A filter's input positions are ordered as its weights lie in memory: channel, kernel row, kernel column. Where m
    does not divide their number, the last groups of the filters are smaller and have a count of their own.

    During training other densities d occur: below the target after a drop, above it under a soft memory bound. A mask
    of density d has round(d x size) active weights, and every group of k holds between floor(d k) and ceil(d k) of
    them: n at d = n/m, at most n below it, at most n + 1 just above it. So any drop fraction works with any n:m.
    """

    family = "n:m"

    def __init__(self, n: int, m: int) -> None:
        self.n, self.m = n, m

    @classmethod
    def parse(cls, name: str) -> "NofM":
        numbers = re.fullmatch(r"(\d+):(\d+)", name)
        if not numbers or not 0 < int(numbers[1]) < int(numbers[2]):
            raise SpfdeError(f'scheme "{name}" is not n:m', "write two whole numbers with 0 < n < m, e.g. 2:4 or 1:8")
        return cls(int(numbers[1]), int(numbers[2]))

    def check(self, sparsity: SparsitySettings) -> None:
        name, target = f"{self.n}:{self.m}", sparsity.target
        if abs(target - (1 - self.n / self.m)) > 1e-6:
            kept = Fraction(1 - target).limit_denominator(100)
            other = f", or sparsity.scheme={kept.numerator}:{kept.denominator}" if 0 < kept < 1 else ""
            cause = f"scheme {name} has the sparsity {1 - self.n / self.m:.6g}, not the target {target:g}"
            raise SpfdeError(cause, f"set sparsity.target={1 - self.n / self.m:.6g}{other}")
        require_uniform(name, sparsity, "it fixes the sparsity of every layer")

    def parts(self, values: Tensor) -> list[Tensor]:
        """The full groups, (filters, groups, m), and the rest of each filter, (filters, 1, rest)."""
        flat = values.flatten(1)
        full = flat.shape[1] // self.m * self.m
        parts = ((flat[:, :full], self.m), (flat[:, full:], flat.shape[1] - full))
        return [part.unflatten(1, (-1, size)) for part, size in parts if part.shape[1]]

    def _keep(self, mask: Tensor, score: Tensor, density: float) -> Tensor:
        return self._fill(torch.zeros_like(mask), score, density, mask)

    def _grow(self, mask: Tensor, score: Tensor, density: float, candidates: Tensor) -> Tensor:
        return self._fill(mask, score, density, candidates & ~mask)

    def _fill(self, mask: Tensor, score: Tensor, density: float, free: Tensor) -> Tensor:
        parts = zip(*map(self.parts, (mask, score, free)), self._counts(mask, density), strict=True)
        filled = [fill(old, scores, open_, density, count).flatten(1) for old, scores, open_, count in parts]
        return torch.cat(filled, dim=1).view(mask.shape)


def fill(mask: Tensor, score: Tensor, free: Tensor, density: float, count: int) -> Tensor:
    """Adds free weights, best first: to every group its lower bound, then the best of all, up to the upper bounds.

    Args:
        mask: active weights, booleans of shape (filters, groups, weights of a group).
        score: of the same shape; higher is better.
        free: of the same shape; the weights that may be added.
        density: share of active weights wanted, which gives each group its bounds.
        count: active weights wanted in all.
    """
    share = density * mask.shape[2]
    order = score.masked_fill(~free, -torch.inf).argsort(dim=2, descending=True, stable=True)
    place = mask.sum(dim=2, keepdim=True) + order.argsort(dim=2)  # active weights of its group when its turn comes
    wanted = count - int(mask.sum())
    needed = top(score, free & (place < down(share)), wanted)
    rest = top(score, free & ~needed & (place < up(share)), wanted - int(needed.sum()))
    return mask | needed | rest
