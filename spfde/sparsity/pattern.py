"""Pattern sparsity: 3x3 kernels that keep one of eight four-entry patterns, and whole kernels off."""

from collections.abc import Sequence

import torch
from torch import Tensor

from spfde.errors import SpfdeError
from spfde.rounding import count_of
from spfde.settings import SparsitySettings
from spfde.sparsity.schemes import Structured, register_scheme, require_uniform

# The eight of MEST's code (Yuan et al., NeurIPS 2021): the four 2x2 squares with the centre, three T shapes, and one
# without the centre in the place of the fourth.
PATTERNS = (
    ((1, 1, 0), (1, 1, 0), (0, 0, 0)),
    ((0, 1, 1), (0, 1, 1), (0, 0, 0)),
    ((0, 0, 0), (1, 1, 0), (1, 1, 0)),
    ((0, 0, 0), (0, 1, 1), (0, 1, 1)),
    ((0, 0, 0), (1, 1, 1), (0, 1, 0)),
    ((0, 1, 0), (1, 1, 0), (0, 1, 0)),
    ((0, 1, 0), (0, 1, 1), (0, 1, 0)),
    ((0, 0, 0), (0, 0, 1), (1, 1, 1)),
)
WEIGHTS = 4
SMALLEST = 1 - WEIGHTS / 9  # the sparsity when every kernel is active


@register_scheme
class Pattern(Structured):
    """A unit is a kernel: one filter at one input channel. Every filter has the same number of active kernels.

    An active 3x3 kernel has one of the eight patterns, an inactive one is zero. In each filter as many kernels are
    active as its density allows: those whose pattern keeps the largest L2 norm. Kernels of another size (1x1, linear
    layers) are either whole or zero; MEST calls this connectivity sparsity. A kernel keeps its pattern as long as it is
    active, and a kernel that grows takes the pattern with the best score. Each filter keeps at least one kernel.
    """

    family = "pattern"

    def check(self, sparsity: SparsitySettings) -> None:
        if sparsity.target < SMALLEST - 1e-9:
            cause = f"scheme pattern has a sparsity of at least 5/9, not the target {sparsity.target:g}"
            raise SpfdeError(cause, "set sparsity.target=0.56 or more, or choose another scheme")
        require_uniform("pattern", sparsity, "a layer could need more than the four weights in nine that patterns keep")

    def units(self, values: Tensor) -> Tensor:
        return values.flatten(2) if values.dim() > 2 else values.unsqueeze(-1)

    def expand(self, units: Tensor, shape: Sequence[int]) -> Tensor:
        return units.view(*units.shape, *[1] * (len(shape) - 2)).expand(tuple(shape))

    def weight_count(self, shape: Sequence[int], density: float) -> int:
        values = self._meta(shape)
        weights = WEIGHTS if _is_3x3(values) else self.units(values).shape[-1]
        return weights * self.unit_count(shape, density)

    def _counts(self, values: Tensor, density: float) -> list[int]:
        return [len(values) * self._kernels(values, density)]

    @staticmethod
    def _kernels(values: Tensor, density: float) -> int:
        """Active kernels of each filter at a density."""
        share = density * 9 / WEIGHTS if _is_3x3(values) else density
        return min(values.shape[1], max(int(density > 0), count_of(share, values.shape[1])))

    def _keep(self, mask: Tensor, score: Tensor, density: float) -> Tensor:
        return self._choose(score, mask, self._kernels(mask, density))

    def _grow(self, mask: Tensor, score: Tensor, density: float, candidates: Tensor) -> Tensor:
        active = self.units(mask).any(-1)
        free = candidates & ~self.expand(active, mask.shape)
        return mask | self._choose(score, free, self._kernels(mask, density) - active.sum(1, keepdim=True))

    def _choose(self, score: Tensor, allowed: Tensor, count: int | Tensor) -> Tensor:
        """The `count` best kernels of each filter within `allowed`, each with its best pattern that is allowed."""
        squares = self.units(score).square()
        if not _is_3x3(score):
            whole = self.units(allowed).all(-1)
            return self.expand(_best_of_rows(squares.sum(-1), whole, count), score.shape)
        patterns = torch.tensor(PATTERNS, dtype=score.dtype, device=score.device).flatten(1)
        fits = self.units(allowed).to(score.dtype) @ patterns.T == WEIGHTS  # (out, in, 8)
        best, which = (squares @ patterns.T).masked_fill(~fits, -torch.inf).max(dim=2)
        kernels = _best_of_rows(best, fits.any(dim=2), count)
        return (patterns.bool()[which] & kernels.unsqueeze(2)).view(allowed.shape)


def _best_of_rows(score: Tensor, allowed: Tensor, count: int | Tensor) -> Tensor:
    """The `count` highest allowed scores of every row, shape (rows, columns); `count` may be one per row, (rows, 1)."""
    order = score.masked_fill(~allowed, -torch.inf).argsort(dim=1, descending=True, stable=True)
    return (order.argsort(dim=1) < count) & allowed


def _is_3x3(values: Tensor) -> bool:
    return tuple(values.shape[2:]) == (3, 3)
