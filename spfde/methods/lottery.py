"""Lottery tickets: train, prune, rewind, again."""

import math
import warnings
from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np
import torch
from pydantic import Field
from torch import Tensor

from spfde.cost.profile import LayerProfile
from spfde.errors import SpfdeWarning
from spfde.methods.base import MethodPlan, Options, register
from spfde.methods.ranked import Ranked, best, warn_of_empty
from spfde.methods.run import Run
from spfde.sparsity.masks import SparseLayer


class LotteryOptions(Options):
    renamed: ClassVar[dict[str, str]] = {"share": "drop_fraction"}

    drop_fraction: float = Field(
        0.2, gt=0, lt=1, description="share of the remaining weights that a round drops; p of the paper"
    )


@register
class Lottery(Ranked):
    """Iterative magnitude pruning over all layers, rewound to initialisation: Frankle and Carbin 2019, Sec. 2.

    The first training is dense. After each the smallest 20 % of what remains go, the last time only so many that the
    target is met exactly; the network, BatchNorm and classifier included, goes back to how it started, and training
    begins anew. 90 / 95 / 98 % take 11 / 14 / 18 prunings, hence 12 / 15 / 19 trainings that cost
    5 (1 - 0.8^n) + (1 - s) = 4.67 / 4.83 / 4.93 dense ones. The record is of the last training; the earlier ones are
    extra work in its trace.
    """

    name = "lottery"
    title = "Lottery ticket"
    paper = "Frankle and Carbin, ICLR"
    year = 2019
    kind = "iterative"
    Options: ClassVar[type[Options]] = LotteryOptions

    def __init__(self, plan: MethodPlan, options: Any) -> None:
        super().__init__(plan, options)
        self.initial: dict[str, Tensor] = {}  # the initial network
        self.past = np.zeros((0, len(plan.densities)))  # density of each sparse layer in the rounds that are over
        self.ran = np.zeros((0, plan.epochs, len(plan.densities)))  # and the share of their dense passes that was run

    @property
    def prunings(self) -> int:
        """How many times a share of the remaining weights is pruned until the target is met."""
        return math.ceil(math.log(self.density) / math.log(1 - self.options.drop_fraction) - 1e-9)

    @property
    def rounds(self) -> int:
        return self.prunings + 1

    def density_after(self, prunings: int) -> float:
        """Density over all sparse layers after so many prunings."""
        return max(self.density, (1 - self.options.drop_fraction) ** prunings)

    def earlier_density(self, layers: Sequence[LayerProfile]) -> np.ndarray:
        """The real densities of the rounds that are over; for later rounds, those of equal pruning in all layers."""
        to_come = sum(self.density_after(done) for done in range(len(self.past), self.prunings))
        total = dict(zip(self.plan.densities, self.past.sum(axis=0) + to_come, strict=True))
        return np.array([total.get(layer.name, self.prunings) for layer in layers], dtype=float)

    def earlier_executed(self, layers: Sequence[LayerProfile]) -> np.ndarray:
        """What ran in the rounds that are over; dense kernels in those to come, and in what nobody counted."""
        total = super().earlier_executed(layers)
        columns = [index for index, layer in enumerate(layers) if layer.name in self.plan.densities]
        total[:, columns] += (self.ran - 1).sum(axis=0)
        return total

    def peak_density(self, density: np.ndarray) -> np.ndarray:
        """The first round is dense."""
        return np.ones_like(density) if self.prunings else density

    def initial_mask(self, layer: SparseLayer, generator: torch.Generator) -> Tensor:
        return torch.ones_like(layer.weight, dtype=torch.bool)

    def start(self, run: Run) -> None:
        self.initial = {name: value.detach().clone() for name, value in run.model.state_dict().items()}
        super().start(run)

    def next_round(self, run: Run) -> None:
        self.past = np.vstack([self.past, run.masks.counts.cpu().numpy() / run.masks.sizes])
        self.ran = np.concatenate([self.ran, np.nan_to_num(run.history.executed(), nan=1.0)[None]])
        scores = [self.drop_score(layer).masked_fill(~layer.active, -1.0) for layer in run.masks]  # pruned for good
        masks = best(scores, self.density_after(len(self.past)))
        run.model.load_state_dict(self.initial)
        run.optimizer.state.clear()
        for layer, mask in zip(run.masks, masks, strict=True):
            layer.set_mask(mask, None)
            layer.first = mask  # the mask that this round starts with; `explored` counts over all rounds
        warn_of_empty(self.name, run.masks)

    def state_dict(self) -> dict[str, Tensor]:
        initial = {f"initial.{name}": value for name, value in self.initial.items()}
        return {"past": torch.from_numpy(self.past.copy()), "ran": torch.from_numpy(self.ran.copy()), **initial}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Restores what `state_dict` returned.

        Warns of a state that an earlier version made between two rounds or later: it did not keep what ran in the
        rounds that were over, so they count as if they had run on dense kernels.
        """
        self.past = state["past"].cpu().numpy().copy()
        if "ran" in state:
            self.ran = state["ran"].cpu().numpy().copy()
        elif len(self.past):
            told = (
                "the checkpoint is of an earlier version, which did not keep what ran in the rounds of lottery that "
                "are over: `executed` counts them as dense; train the run anew for what ran"
            )
            warnings.warn(told, SpfdeWarning, stacklevel=2)
        self.initial = {
            key.removeprefix("initial."): value for key, value in state.items() if key.startswith("initial.")
        }
