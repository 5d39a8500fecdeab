"""RigL-ITOP: RigL with updates so far apart that grown weights can train before they may be dropped."""

from typing import Any, ClassVar

import numpy as np
import torch
from pydantic import Field
from torch import Tensor

from spfde.methods.base import MethodPlan, Options, register
from spfde.methods.run import Run
from spfde.methods.set_itop import ItopOptions, SetItop
from spfde.sparsity.masks import SparseLayer


class RiglItopOptions(ItopOptions):
    interval_steps: int = Field(4000, ge=1, description=ItopOptions.model_fields["interval_steps"].description)


@register
class RiglItop(SetItop):
    """Drops by |w| and grows by |dense gradient|, from an ERK start, all training long: Liu et al. 2021.

    Unlike in RigL no step is lost: the optimizer takes its step, and the update follows, with the dense gradient of
    that step. dT steps cost 3 f_S (dT - 1) + 2 f_S + f_D. An interval is the same share of all steps as in ITOP's own
    runs.
    """

    name = "rigl-itop"
    title = "RigL-ITOP"
    needs_dense_gradient = True
    Options: ClassVar[type[Options]] = RiglItopOptions

    def __init__(self, plan: MethodPlan, options: Any) -> None:
        super().__init__(plan, options)
        self.gradients: dict[str, Tensor] = {}  # dense gradients, kept from before a step until its mask update is done

    def weight_grad_density(self, density: np.ndarray, steps: range) -> np.ndarray:
        return density + (1 - density) * self.mask_updates(0, steps) / max(1, len(steps))

    def needs_dense_gradient_at(self, step: int) -> bool:
        return self.is_update(step)

    step_is_alike = SetItop.step_is_alike  # said again, because the hooks are newer

    def before_step(self, run: Run, step: int) -> bool:
        if self.is_update(step):
            grads = {layer.name: layer.weight.grad for layer in run.masks.trained}
            self.gradients = {name: grad.detach().clone() for name, grad in grads.items() if grad is not None}
        return True

    def after_step(self, run: Run, step: int) -> None:
        super().after_step(run, step)
        self.gradients = {}

    def grow_score(self, layer: SparseLayer, generator: torch.Generator) -> Tensor:
        gradient = self.gradients.get(layer.name)
        return torch.zeros_like(layer.weight) if gradient is None else gradient.abs()
