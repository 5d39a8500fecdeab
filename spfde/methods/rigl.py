"""RigL: grow where the dense gradient is largest."""

import math
from fractions import Fraction
from typing import ClassVar

import numpy as np
import torch
from pydantic import Field
from torch import Tensor

from spfde.methods.base import (
    DROP_FRACTION,
    INTERVAL,
    REGROWN,
    SCALE_INTERVAL,
    DropAndGrow,
    DropAndGrowOptions,
    Options,
    Regrown,
    register,
)
from spfde.methods.run import Run
from spfde.rounding import up
from spfde.sparsity.masks import SparseLayer

IMAGENET_STEPS = 25_000  # steps in which RigL's ImageNet runs update masks: 250 updates at an interval of 100


class RiglOptions(DropAndGrowOptions):
    renamed: ClassVar[dict[str, str]] = {"alpha": "drop_fraction", "interval": "interval_steps"}

    regrown: Regrown = Field("keep", description=REGROWN)
    drop_fraction: float = Field(0.3, gt=0, lt=1, description=f"{DROP_FRACTION}, at the first; alpha of the paper")
    interval_steps: int = Field(100, ge=1, description=f"{INTERVAL}; Delta T of the paper")
    scale_interval: bool = Field(True, description=SCALE_INTERVAL)
    end: float = Field(0.75, gt=0, le=1, description="share of training after which masks stay")


@register
class Rigl(DropAndGrow):
    """Drops by |w|, grows by |dense gradient|; the replaced share falls as alpha / 2 (1 + cos(pi t / T_end)).

    Evci et al. 2020, update schedule. An update takes the place of an optimizer step, so that dT + 1 steps cost
    3 f_S dT + 2 f_S + f_D.
    """

    name = "rigl"
    title = "RigL"
    paper = "Evci et al., ICML"
    year = 2020
    needs_dense_gradient = True
    Options: ClassVar[type[Options]] = RiglOptions

    @property
    def cycle(self) -> Fraction:
        """Steps from one update to the next: dT + 1, since the update takes a step of its own.

        On ImageNet the interval is such that there are 250 updates, as in RigL's own runs, at any batch size and
        length.
        """
        options, plan = self.options, self.plan
        if options.scale_interval and plan.settings.data.name == "imagenet":
            updates = Fraction(IMAGENET_STEPS, options.interval_steps)
            return max(Fraction(11), Fraction(options.end) * plan.whole_steps / updates)
        return Fraction(plan.step_interval(options.interval_steps, scaled=options.scale_interval) + 1)

    @property
    def end(self) -> float:
        """T_end: the step from which on masks stay."""
        return float(self.options.end * self.plan.steps)

    def drop_fraction(self, step: int) -> float:
        """Share of the active weights that an update at `step` replaces."""
        return float(self.options.drop_fraction / 2 * (1 + math.cos(math.pi * step / self.end)))

    def is_update(self, step: int) -> bool:
        """One step in dT + 1 is an update."""
        return step < self.end and (step + 1) // self.cycle > step // self.cycle

    def needs_dense_gradient_at(self, step: int) -> bool:
        return self.is_update(step)

    def step_is_alike(self, step: int) -> bool:
        return not self.is_update(step)

    def mask_updates(self, epoch: int, steps: range) -> int:
        return self._updates(steps)

    def weight_grad_density(self, density: np.ndarray, steps: range) -> np.ndarray:
        return density + (1 - density) * self._updates(steps) / max(1, len(steps))

    def _updates(self, steps: range) -> int:
        """How many of these steps are updates, in closed form."""
        every, stop = self.cycle, min(steps.stop, up(self.end))
        return max(0, stop // every - steps.start // every)

    def before_step(self, run: Run, step: int) -> bool:
        if not self.is_update(step):
            return True
        dropped = self.drop_fraction(step)
        for layer in run.masks.trained:
            self.drop_and_grow(run, layer, (1 - dropped) * layer.density, layer.density, step)
        return False

    def grow_score(self, layer: SparseLayer, generator: torch.Generator) -> Tensor:
        gradient = layer.weight.grad
        return torch.zeros_like(layer.weight) if gradient is None else gradient.abs()
