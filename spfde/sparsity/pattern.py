"""Pattern sparsity: 3x3 kernels that keep one of eight four-entry patterns, and whole kernels off."""

from collections.abc import Sequence

import torch
from torch import Tensor

from spfde.errors import SpfdeError
from spfde.rounding import count_of
from spfde.settings import SparsitySettings
from spfde.sparsity.schemes import Scheme, register_scheme, require_uniform, top

# Four weights with the centre, as in PatDNN (Niu et al., ASPLOS 2020) and MEST: the four 2x2 squares, the four T's.
PATTERNS = (
    ((1, 1, 0), (1, 1, 0), (0, 0, 0)),
    ((0, 1, 1), (0, 1, 1), (0, 0, 0)),
    ((0, 0, 0), (1, 1, 0), (1, 1, 0)),
    ((0, 0, 0), (0, 1, 1), (0, 1, 1)),
    ((0, 1, 0), (1, 1, 1), (0, 0, 0)),
    ((0, 0, 0), (1, 1, 1), (0, 1, 0)),
    ((0, 1, 0), (1, 1, 0), (0, 1, 0)),
    ((0, 1, 0), (0, 1, 1), (0, 1, 0)),
)
WEIGHTS = 4
SMALLEST = 1 - WEIGHTS / 9  # sparsity that the patterns alone give


@register_scheme
class Pattern(Scheme):
    """A unit is a kernel: one filter at one input channel.

    An active 3x3 kernel has one of the eight patterns, an inactive one is zero; so many kernels are active that the
    layer has the density. Kernels of another size (1x1, linear layers) are whole or zero: connectivity sparsity. A
    kernel keeps its pattern as long as it is active; one that grows takes its best-scored pattern.
    """

    family = "pattern"

    def check(self, sparsity: SparsitySettings) -> None:
        if sparsity.target < SMALLEST - 1e-9:
            cause = f"scheme pattern has a sparsity of at least 5/9, not the target {sparsity.target:g}"
            raise SpfdeError(cause, "set sparsity.target=0.56 or more, or choose another scheme")
        require_uniform("pattern", sparsity, "a layer could need more than the four weights in nine that patterns keep")

    def units(self, values: Tensor) -> Tensor:
        return values.flatten(2).sum(dim=2) if values.dim() > 2 else values

    def expand(self, units: Tensor, shape: Sequence[int]) -> Tensor:
        return units.view(*units.shape, *[1] * (len(shape) - 2)).expand(tuple(shape))

    def unit_count(self, shape: Sequence[int], density: float) -> int:
        if not _is_3x3(shape):
            return super().unit_count(shape, density)
        kernels = shape[0] * shape[1]
        return min(kernels, count_of(density * 9 / WEIGHTS, kernels))

    def weight_count(self, shape: Sequence[int], density: float) -> int:
        if not _is_3x3(shape):
            return super().weight_count(shape, density)
        return WEIGHTS * self.unit_count(shape, density)

    def keep(self, mask: Tensor, score: Tensor, density: float) -> Tensor:
        if not _is_3x3(mask.shape):
            return super().keep(mask, score, density)
        return self._choose(score, mask, self.unit_count(mask.shape, density))

    def grow(self, mask: Tensor, score: Tensor, density: float, candidates: Tensor) -> Tensor:
        if not _is_3x3(mask.shape):
            return super().grow(mask, score, density, candidates)
        active = mask.flatten(2).any(dim=2)
        free = candidates & ~self.expand(active, mask.shape)
        return mask | self._choose(score, free, self.unit_count(mask.shape, density) - int(active.sum()))

    @staticmethod
    def _choose(score: Tensor, allowed: Tensor, count: int) -> Tensor:
        """The best pattern within `allowed` of each of the `count` best kernels: those whose pattern scores highest."""
        patterns = torch.tensor(PATTERNS, dtype=score.dtype, device=score.device).flatten(1)
        fits = allowed.flatten(2).to(score.dtype) @ patterns.T == WEIGHTS  # (out, in, 8)
        scores = (score.flatten(2) @ patterns.T).masked_fill(~fits, -torch.inf)
        best, which = scores.max(dim=2)
        kernels = top(best, fits.any(dim=2), count)
        return (patterns.bool()[which] & kernels.unsqueeze(2)).view(allowed.shape)


def _is_3x3(shape: Sequence[int]) -> bool:
    return tuple(shape[2:]) == (3, 3)
