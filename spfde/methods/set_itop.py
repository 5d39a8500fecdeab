"""SET-ITOP: SET with updates so far apart that grown weights can train before they may be dropped."""

import math
from typing import Any, ClassVar

from pydantic import Field

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

ITOP_STEPS = 250 * 391  # steps of ITOP's CIFAR runs (250 epochs, batch 128), where its intervals are stated


class ItopOptions(DropAndGrowOptions):
    renamed: ClassVar[dict[str, str]] = {
        "first": "drop_fraction",
        "last": "final_drop_fraction",
        "interval": "interval_steps",
    }

    regrown: Regrown = Field("keep", description=REGROWN)
    drop_fraction: float = Field(
        0.5, gt=0, lt=1, description=f"{DROP_FRACTION}, at the start of training; ITOP's pruning rate"
    )
    final_drop_fraction: float = Field(
        0.005, ge=0, lt=1, description="the same at the end of training; a cosine between the two"
    )
    interval_steps: int = Field(1500, ge=1, description=f"{INTERVAL}; Delta T of the paper")
    scale_interval: bool = Field(True, description=SCALE_INTERVAL)


@register
class SetItop(DropAndGrow):
    """Drops by |w| and grows at random, from an ERK start that leaves no layer dense: Liu et al. 2021.

    An interval is the same share of all steps as in ITOP's own runs, so that masks change as often in any training.
    """

    name = "set-itop"
    title = "SET-ITOP"
    paper = "Liu et al., ICML"
    year = 2021
    Options: ClassVar[type[Options]] = ItopOptions
    defaults: ClassVar[dict[str, Any]] = {"sparsity": {"distribution": "erk", "dense_layers": "none"}}

    @property
    def interval(self) -> int:
        """Optimizer steps between two updates."""
        return self.plan.step_interval(self.options.interval_steps, ITOP_STEPS, self.options.scale_interval)

    def is_update(self, step: int) -> bool:
        """Whether masks change after a step."""
        return (step + 1) % self.interval == 0 and step + 1 < self.plan.steps

    def step_is_alike(self, step: int) -> bool:
        return not self.is_update(step)

    def mask_updates(self, epoch: int, steps: range) -> int:
        """The number of steps for which `is_update` is true, in closed form."""
        return max(0, min(steps.stop, self.plan.steps - 1) // self.interval - steps.start // self.interval)

    def after_step(self, run: Run, step: int) -> None:
        if self.is_update(step):
            dropped = self.drop_fraction(step + 1)
            for layer in run.masks.trained:
                self.drop_and_grow(run, layer, (1 - dropped) * layer.density, layer.density, step)

    def drop_fraction(self, steps: int) -> float:
        """Share of the active weights that an update replaces after so many steps: a cosine over all steps."""
        first, last = self.options.drop_fraction, self.options.final_drop_fraction
        return float(last + (first - last) / 2 * (1 + math.cos(math.pi * steps / self.plan.steps)))
