"""SET: sparse evolutionary training."""

import math
from typing import ClassVar, Literal

import torch
from pydantic import Field

from spfde.methods.base import DROP_FRACTION, DropAndGrow, DropAndGrowOptions, Options, register
from spfde.methods.run import Run
from spfde.sparsity.masks import SparseLayer


class SetOptions(DropAndGrowOptions):
    renamed: ClassVar[dict[str, str]] = {"zeta": "drop_fraction"}

    drop_fraction: float = Field(0.3, gt=0, lt=1, description=f"{DROP_FRACTION}; zeta of the paper")
    decay: Literal["none", "cosine"] = Field("none", description="how the drop fraction falls until updates end")
    end: float = Field(0.75, gt=0, le=1, description="share of training after which masks stay, as in RigL")
    drop: Literal["magnitude", "signed"] = Field(
        "magnitude", description="drop the smallest |w|, or the smallest positives and negatives separately"
    )


@register
class Set(DropAndGrow):
    """Drops a share zeta of each layer's active weights, smallest |w| first, and grows as many at random.

    Mocanu et al. 2018, Algorithm 1. As in the authors' code the first update comes after the first interval. The
    original drops the smallest positive and the largest negative weights separately: `drop: signed`.
    """

    name = "set"
    title = "SET"
    paper = "Mocanu et al., Nature Communications"
    year = 2018
    uses_interval = True
    Options: ClassVar[type[Options]] = SetOptions

    def drop_fraction(self, epoch: int) -> float:
        """Share of the active weights that an update before `epoch` replaces; none before training has begun."""
        if epoch == 0 or epoch >= self.options.end * self.plan.epochs:
            return 0.0
        return self.options.drop_fraction * cosine_share(epoch, self.options.end * self.plan.epochs, self.options.decay)

    def mask_updates(self, epoch: int, steps: range) -> int:
        return super().mask_updates(epoch, steps) if self.drop_fraction(epoch) else 0

    def update(self, run: Run, epoch: int, layers: list[SparseLayer]) -> None:
        dropped = self.drop_fraction(epoch)
        for layer in layers if dropped else ():
            self.drop_and_grow(run, layer, (1 - dropped) * layer.density, layer.density, epoch)

    def drop_score(self, layer: SparseLayer) -> torch.Tensor:
        magnitude = super().drop_score(layer)
        if self.options.drop == "magnitude":
            return magnitude
        # Ranks within each sign, as shares: dropping the lowest shares takes the same share of either sign.
        score = torch.zeros_like(magnitude)
        for sign in (layer.active & (layer.weight > 0), layer.active & (layer.weight <= 0)):
            values = magnitude[sign]
            ranks = torch.empty_like(values)
            ranks[values.argsort()] = torch.arange(1, len(values) + 1, device=values.device, dtype=values.dtype)
            score[sign] = ranks / max(1, len(values))
        return score


def cosine_share(now: float, end: float, decay: str) -> float:
    """1 for `none`; (1 + cos(pi now / end)) / 2 for `cosine`."""
    return (1 + math.cos(math.pi * now / end)) / 2 if decay == "cosine" else 1.0
