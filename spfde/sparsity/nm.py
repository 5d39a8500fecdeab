"""n:m sparsity: n active weights in every m consecutive input positions of a filter, as sparse tensor cores want it."""

import math
import re
from fractions import Fraction

import torch
import torch.nn.functional as F
from torch import Tensor

from spfde.errors import SpfdeError
from spfde.settings import SparsitySettings
from spfde.sparsity.distributions import active_count
from spfde.sparsity.schemes import Scheme, register_scheme, require_uniform, top


@register_scheme
class NofM(Scheme):
    """At most n of every m consecutive weights of a filter, exactly n at the target (Mishra et al. 2021: 2:4).

    A filter's input positions are ordered as its weights lie in memory: channel, kernel row, kernel column. Where m
    does not divide their number, the last group is smaller.

    During training other densities d occur: below the target after a drop, above it under a soft memory bound. A mask
    of density d has round(d x size) active weights, and every group of k holds between floor(d k) and ceil(d k) of
    them: n at d = n/m, at most n below it, at most n + 1 just above it. So every drop share works for every n:m.
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

    def keep(self, mask: Tensor, score: Tensor, density: float) -> Tensor:
        return self._fill(torch.zeros_like(mask), score, density, mask)

    def grow(self, mask: Tensor, score: Tensor, density: float, candidates: Tensor) -> Tensor:
        return self._fill(mask, score, density, candidates & ~mask)

    def _fill(self, mask: Tensor, score: Tensor, density: float, free: Tensor) -> Tensor:
        """Adds free weights, best first: every group to its lower bound, then the best of all, up to the upper ones."""
        have, scores, open_ = (self._groups(values) for values in (mask, score, free))
        sizes = self._groups(torch.ones_like(mask)).sum(dim=2, keepdim=True)
        share = (sizes * density * 1e6).round() / 1e6  # 0.1 of 10 is 1, and not a hair less
        order = scores.masked_fill(~open_, -torch.inf).argsort(dim=2, descending=True, stable=True)
        place = have.sum(dim=2, keepdim=True) + order.argsort(dim=2)  # active weights of the group before this one
        wanted = active_count(density, mask.numel()) - int(mask.sum())
        needed = top(scores, open_ & (place < share.floor()), wanted)
        rest = top(scores, open_ & ~needed & (place < share.ceil()), wanted - int(needed.sum()))
        added = (needed | rest).flatten(1)[:, : math.prod(mask.shape[1:])]
        return mask | added.reshape(mask.shape)

    def _groups(self, values: Tensor) -> Tensor:
        """(filters, groups, m); the last group is filled up with zeros."""
        flat = values.flatten(1)
        return F.pad(flat, (0, -flat.shape[1] % self.m)).unflatten(1, (-1, self.m))
