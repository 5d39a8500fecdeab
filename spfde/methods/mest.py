"""MEST: magnitude (and gradient) importance, random growth, memory bounds (Yuan et al., NeurIPS 2021)."""

import warnings
from abc import ABC, abstractmethod
from typing import Any, ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor

from spfde.errors import SpfdeWarning
from spfde.methods.base import DROP_FRACTION, DropAndGrow, DropAndGrowOptions, MethodPlan, Options, register
from spfde.methods.run import Run
from spfde.settings import RunSettings
from spfde.sparsity.masks import SparseLayer

DECAY = (9 / 16, 3 / 4)  # epochs 90 and 120 of 160: the second and the third bound start here


class MestOptions(DropAndGrowOptions):
    gradient_weight: float = Field(
        0.0, ge=0, description="lambda of the importance |w| + lambda |dL/dw|; the released scripts use 0"
    )
    first_mask: Literal["random", "magnitude"] = Field(
        "random",
        description="the mask that training starts with: random (the text of SpFDE), or the largest of the random "
        "initial weights (MEST's code)",
    )


class VanillaOptions(MestOptions):
    renamed: ClassVar[dict[str, str]] = {"share": "drop_fraction"}

    drop_fraction: float = Field(0.2, gt=0, lt=1, description=f"{DROP_FRACTION}; p of the paper")


@register
class Mest(DropAndGrow):
    """Vanilla MEST: every interval drops a constant share of each layer's active weights, grows as many at random."""

    name = "mest"
    title = "MEST (vanilla)"
    paper = "Yuan et al., NeurIPS"
    year = 2021
    uses_interval = True
    Options: ClassVar[type[Options]] = VanillaOptions

    def __init__(self, plan: MethodPlan, options: Any) -> None:
        super().__init__(plan, options)
        self.gradients: dict[str, Tensor] = {}  # the last masked gradients, kept where lambda asks for them

    def initial_mask(self, layer: SparseLayer, generator: torch.Generator) -> Tensor:
        if self.options.first_mask == "random":
            return super().initial_mask(layer, generator)
        magnitude = layer.weight.detach().abs()
        return layer.scheme.keep(torch.ones_like(layer.active), magnitude, self.densities(0)[layer.name])

    def drop_score(self, layer: SparseLayer) -> Tensor:
        """Importance as MEST defines it (Yuan et al. 2021, elastic mutation), with the last masked gradient."""
        score = super().drop_score(layer)
        if layer.name in self.gradients:
            score = score + self.options.gradient_weight * self.gradients[layer.name].abs()
        return score

    def after_step(self, run: Run, step: int) -> None:
        if self.options.gradient_weight:
            grads = {layer.name: layer.weight.grad for layer in run.masks.trained}
            self.gradients = {name: grad.clone() for name, grad in grads.items() if grad is not None}

    def step_is_alike(self, step: int) -> bool:
        return not self.options.gradient_weight

    def state_dict(self) -> dict[str, Tensor]:
        return self.gradients

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        self.gradients = state

    def bounds(self, layer: SparseLayer, epoch: int) -> tuple[float, float]:
        """Densities (lower, upper) of an update before `epoch`: it prunes to the lower and grows to the upper one."""
        return (1 - self.options.drop_fraction) * layer.density, layer.density

    def update(self, run: Run, epoch: int, layers: list[SparseLayer]) -> None:
        for layer in layers:
            lower, upper = self.bounds(layer, epoch)
            self.drop_and_grow(run, layer, lower, upper, epoch)


class BoundedMest(Mest, ABC):
    """MEST with a bound that moves in three steps towards the target: at 9/16 and at 3/4 of training."""

    @classmethod
    def warn(cls, settings: RunSettings) -> None:
        """Warns of an interval so long that, on its grid, the bound moves before the first epoch."""
        plan = MethodPlan(settings, {})
        moved = sum(plan.epoch_at(share) == 0 for share in DECAY)
        if moved and plan.epochs > 1:
            what = (
                "starts at half its distance from the target",
                "is at the target from the start, so its masks never change",
            )
            warnings.warn(
                f"sparsity.interval = {settings.sparsity.interval} of {plan.epochs} epochs: the bound of {cls.name} "
                f"{what[moved - 1]}; set sparsity.interval={int(DECAY[0] * plan.epochs)} or less",
                SpfdeWarning,
                stacklevel=2,
            )

    def mask_updates(self, epoch: int, steps: range) -> int:
        return super().mask_updates(epoch, steps) if self.factor(0) else 0

    @abstractmethod
    def offset(self) -> float:
        """Distance of the first bound from the target density, as a share of all weights."""

    def factor(self, epoch: int) -> float:
        """The present bound's distance from the target density, relative to the first bound's: 1, 1/2 or 0."""
        return (1.0, 0.5, 0.0)[sum(epoch >= self.plan.epoch_at(share) for share in DECAY)]

    def relative(self, epoch: int) -> float:
        """The bound's distance as a share of the target density, so that it fits every distribution of sparsity."""
        return self.factor(epoch) * self.offset() / (1 - self.plan.settings.sparsity.target)


@register
class MestEm(BoundedMest):
    """Elastic mutation: prunes below the target and grows back to it, so the memory never exceeds the budget."""

    name = "mest-em"
    title = "MEST+EM"
    Options: ClassVar[type[Options]] = MestOptions

    def offset(self) -> float:
        return 0.2 * (1 - self.plan.settings.sparsity.target)  # 0.02 at 90 % and 0.01 at 95 %, as in MEST's scripts

    def bounds(self, layer: SparseLayer, epoch: int) -> tuple[float, float]:
        return (1 - self.relative(epoch)) * layer.density, layer.density


Preset = Literal["flops", "readme", "scripts"]
PRESET = "upper bounds: those that give the FLOPs of MEST's rows, of MEST's README, or of its scripts"


class SoftBoundOptions(MestOptions):
    preset: Preset = Field("flops", description=PRESET)
    offset: float | None = Field(
        None,
        gt=0,
        lt=1,
        description="first upper bound above the target density, as a share of all weights; none: the preset's",
    )


class ScriptsOptions(SoftBoundOptions):
    preset: Preset = Field("scripts", description=PRESET)


# First offset by sparsity; a sparsity that is not listed takes the rule below. Published bounds disagree: the cards of
# MEST+EM&S and SpFDE in docs/methods say which source has which.
PRESETS = {
    "flops": {0.90: 0.02, 0.95: 0.03, 0.98: 0.0085},
    "readme": {0.90: 0.02},
    "scripts": {0.90: 0.05, 0.95: 0.05, 0.98: 0.02},
}


@register
class MestEms(BoundedMest):
    """Elastic mutation with a soft bound: prunes to the target and grows above it; ends exactly at the target."""

    name = "mest-ems"
    title = "MEST+EM&S"
    Options: ClassVar[type[Options]] = SoftBoundOptions

    def offset(self) -> float:
        target = self.plan.settings.sparsity.target
        rule = min(0.05, 1 - target) if self.options.preset == "scripts" else min(0.02, (1 - target) / 2)
        preset = PRESETS[self.options.preset].get(round(target, 6), rule)
        return preset if self.options.offset is None else self.options.offset

    def densities(self, epoch: int) -> dict[str, float]:
        above = 1 + self.relative(epoch)
        return {name: min(1.0, above * density) for name, density in self.plan.densities.items()}

    def bounds(self, layer: SparseLayer, epoch: int) -> tuple[float, float]:
        return layer.density, self.densities(epoch)[layer.name]


@register
class MestDataEfficient(MestEms):
    """EM&S on the whole training set for 70 of 160 epochs, then without the 24 % of it that was forgotten least.

    The removal is sieving with `schedule: once`, which this method turns on by default: 12,000 of 50,000
    samples, never learned ones last, as in MEST's script (main_sparse_train_w_data_efficient.py), whose bounds it has.
    """

    name = "mest-data-efficient"
    title = "MEST+EM&S, data-efficient"
    Options: ClassVar[type[Options]] = ScriptsOptions
    defaults: ClassVar[dict[str, Any]] = {"sieving": {"removed": 0.24, "schedule": "once"}}
