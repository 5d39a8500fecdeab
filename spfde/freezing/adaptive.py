"""The adaptive control for *when* blocks freeze: gradient norms choose, at the FLOPs of single-shot.

The candidates are single-shot's schedule and those random schedules (of the random control) whose FLOPs are within 1 %
of its. At each boundary of the update interval it is decided whether the next block has settled: it has when its
gradient norm, relative to that in the first interval, is below the mean over the active blocks. A settled block should
freeze at this boundary, another one should not; candidates that do otherwise are dropped, unless that would drop all of
them. What has happened is therefore always the beginning of a schedule at equal FLOPs. Where the grid is so coarse that
there is no other candidate, that schedule is single-shot's.

The plan is the remaining candidate that is nearest to single-shot. Learning rates follow it from the boundary on, so a
block's cosine changes its length when its freeze epoch changes. Rounds after the first freeze as the first one did.
"""

from collections import defaultdict

import numpy as np
import torch
from torch import Tensor, nn

from spfde.freezing.schedule import ALLOWED, Ledger, Schedule, grid_of
from spfde.freezing.schemes import random
from spfde.settings import FreezingSettings


def candidates(settings: FreezingSettings, ledger: Ledger, seed: int, shot: Schedule) -> list[Schedule]:
    """Schedules within 1 % of single-shot's FLOPs: its own first, then random ones, those that differ least first."""

    def distance(schedule: Schedule) -> int:
        return int(np.abs(np.subtract(schedule.counts, shot.counts)).sum())

    drawn = dict.fromkeys(random(grid_of(settings, ledger, seed), shot.counts))
    found = [Schedule(counts, ledger.saved(Schedule(counts))) for counts in drawn]
    near = [other for other in found if abs(other.achieved - shot.achieved) <= ALLOWED * (1 - shot.achieved)]
    return [shot, *sorted(near, key=distance)]


class GradientCriterion:
    """Follows a run's gradients and its schedule; with a scheme that is not adaptive the schedule is the planned one.

    Args:
        pool: the schedules to choose from, the planned one first; only that one where freezing is not adaptive.
        interval: update interval in epochs.
        blocks: number of freezing blocks of the model.
        block_of: freezing block of each parameter that is in one.

    Attributes:
        left: the candidates that agree with what has happened; the first one is the plan.
    """

    def __init__(self, pool: list[Schedule], interval: int, blocks: int, block_of: dict[nn.Parameter, int]) -> None:
        self.pool, self.interval = pool, interval
        self.left = list(self.pool)
        self._parameters: dict[int, list[nn.Parameter]] = defaultdict(list)
        for parameter, block in block_of.items():
            self._parameters[block].append(parameter)
        device = next(iter(block_of)).device if block_of else None
        self._sums = torch.zeros(blocks, device=device)  # squared gradient norms of the present interval
        self._first = torch.zeros_like(self._sums)  # the same of the first interval

    @property
    def schedule(self) -> Schedule:
        """The schedule that has been followed so far, and how it is expected to go on."""
        return self.left[0]

    def observe(self) -> None:
        """Adds a step's gradients; never waits for the device."""
        if len(self.left) == 1:
            return
        for block, parameters in self._parameters.items():
            gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
            if gradients:
                self._sums[block] += torch.stack(torch._foreach_norm(gradients)).square().sum()

    def decide(self, epoch: int) -> None:
        """At the boundary before an epoch: which blocks freeze; waits for the device while more than one can."""
        if len(self.left) == 1 or epoch == 0 or epoch % self.interval:
            return
        if epoch == self.interval:
            self._first.copy_(self._sums)
        change = (self._sums / self._first).nan_to_num(nan=0.0).sqrt().cpu()  # without gradients: settled
        self._sums.zero_()
        for frozen in range(self.schedule.counts[epoch - 1], len(change)):
            settled = bool(change[frozen] < change[frozen:].mean())
            self.left = [other for other in self.left if (other.counts[epoch] > frozen) == settled] or self.left
            if self.schedule.counts[epoch] == frozen:
                return

    # resuming

    def state_dict(self) -> dict[str, Tensor]:
        if len(self.pool) == 1:
            return {}
        left = set(self.left)
        return {
            "left": torch.tensor([schedule in left for schedule in self.pool]),
            "sums": self._sums.clone(),
            "first": self._first.clone(),
        }

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        if state:
            self.left = [self.pool[place] for place in state["left"].nonzero().flatten().tolist()]
            self._sums.copy_(state["sums"])
            self._first.copy_(state["first"])
