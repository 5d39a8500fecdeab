"""RigL: grow where the dense gradient is largest."""

import math
from typing import ClassVar

import numpy as np
import torch
from pydantic import Field
from torch import Tensor

from spfde.methods.base import REGROWN, DropAndGrow, DropAndGrowOptions, Options, Regrown, Run, register
from spfde.rounding import up
from spfde.sparsity.masks import SparseLayer


class RiglOptions(DropAndGrowOptions):
    regrown: Regrown = Field("keep", description=REGROWN)
    alpha: float = Field(
        0.3, gt=0, lt=1, description="share of a layer's active weights that the first update replaces"
    )
    interval: int = Field(100, ge=1, description="steps between updates at the paper's length of training")
    end: float = Field(0.75, gt=0, le=1, description="share of training after which masks stay")


@register
class Rigl(DropAndGrow):
    """Drops by |w|, grows by |dense gradient|; the replaced share falls as alpha / 2 (1 + cos(pi t / T_end)).

    Evci et al. 2020, Sec. 3. An update takes the place of an optimizer step, so that dT + 1 steps cost
    3 f_S dT + 2 f_S + f_D.
    """

    name = "rigl"
    title = "RigL"
    paper = "Evci et al., ICML"
    year = 2020
    needs_dense_gradient = True
    Options: ClassVar[type[Options]] = RiglOptions

    @property
    def interval(self) -> int:
        """dT: optimizer steps between two updates."""
        return self.plan.step_interval(self.options.interval)

    @property
    def end(self) -> float:
        """T_end: the step from which on masks stay."""
        return float(self.options.end * self.plan.steps)

    def share(self, step: int) -> float:
        """Share of the active weights that an update at `step` replaces."""
        return float(self.options.alpha / 2 * (1 + math.cos(math.pi * step / self.end)))

    def is_update(self, step: int) -> bool:
        """One step in dT + 1 is an update."""
        return (step + 1) % (self.interval + 1) == 0 and step < self.end

    def mask_updates(self, epoch: int, steps: range) -> int:
        return self._updates(steps)

    def weight_grad_density(self, density: np.ndarray, steps: range) -> np.ndarray:
        return density + (1 - density) * self._updates(steps) / max(1, len(steps))

    def _updates(self, steps: range) -> int:
        """How many of the steps are updates, in closed form."""
        every, stop = self.interval + 1, min(steps.stop, up(self.end))
        return max(0, stop // every - steps.start // every)

    def before_step(self, run: Run, step: int) -> bool:
        if not self.is_update(step):
            return True
        share = self.share(step)
        for layer in run.masks.trained:
            self.drop_and_grow(run, layer, (1 - share) * layer.density, layer.density, step)
        return False

    def grow_score(self, layer: SparseLayer, generator: torch.Generator) -> Tensor:
        gradient = layer.weight.grad
        return torch.zeros_like(layer.weight) if gradient is None else gradient.abs()
