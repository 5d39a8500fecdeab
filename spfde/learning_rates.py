"""A learning rate for every freezing block: the optimizer's groups are split by block once, then only `lr` changes.

When training ends, the optimizer gets the learning rates and weight decays back that it came with; groups stay split.
"""

import math
from collections.abc import Mapping, Set
from typing import Any

from torch import nn
from torch.optim import Optimizer

from spfde.errors import SpfdeError
from spfde.freezing import Schedule
from spfde.settings import TrainingSettings

LISTS = {"params", "param_names"}  # what a group has one of for each parameter


class BlockRates:
    """Each block follows a cosine or steps of its own, from the rate that its optimizer group had.

    SpFDE, progressive layer freezing.

    Args:
        optimizer: its groups are split here; sparse weights without weight decay, where the method has none, become
            groups of their own.
        training: the settings' schedule, its end, and the epochs of warm-up.
        block_of: freezing block of each parameter that is in one.
        blocks: number of freezing blocks; what is in none of them counts as one block more.
        undecayed: parameters that get no weight decay.
    """

    def __init__(
        self,
        optimizer: Optimizer,
        training: TrainingSettings,
        block_of: Mapping[nn.Parameter, int],
        blocks: int,
        undecayed: Set[nn.Parameter],
    ) -> None:
        self.optimizer, self.training, self.blocks = optimizer, training, blocks
        groups: list[dict[str, Any]] = []
        self._first: list[tuple[int, float]] = []  # block and initial learning rate of each group
        self._given: dict[nn.Parameter, dict[str, Any]] = {}  # what changes here, as it was
        for group in optimizer.param_groups:
            parts: dict[tuple[int, bool], list[int]] = {}
            for place, parameter in enumerate(group["params"]):
                part = block_of.get(parameter, blocks), parameter in undecayed
                parts.setdefault(part, []).append(place)
                changes = {"lr", "weight_decay"} if parameter in undecayed else {"lr"}
                self._given[parameter] = {name: group[name] for name in changes & group.keys()}
            for (block, without), places in sorted(parts.items()):
                lists = {name: [group[name][place] for place in places] for name in LISTS & group.keys()}
                groups.append({**group, **lists, **({"weight_decay": 0.0} if without else {})})
                self._first.append((block, float(group["lr"])))
        optimizer.param_groups[:] = groups
        self._last = [rate for _, rate in self._first]

    def check(self) -> None:
        """Says where somebody else has set the rates or the groups since they were set here.

        Raises:
            SpfdeError: so it is.
        """
        check_schedulers(self.optimizer)
        groups = self.optimizer.param_groups
        if len(groups) != len(self._last):
            cause = f"the optimizer has {len(groups)} parameter groups where SparseTraining made {len(self._last)}"
            raise SpfdeError(
                cause, 'give it all its groups before SparseTraining is made, or pass learning_rates="own"'
            )
        for group, last in zip(groups, self._last, strict=True):
            if not math.isclose(float(group["lr"]), last, rel_tol=1e-9, abs_tol=1e-30):
                cause = f"a learning rate is {float(group['lr']):g} where SparseTraining had set {last:g}"
                remedy = 'pass learning_rates="own" to SparseTraining, or let nothing else set the rates'
                raise SpfdeError(cause, remedy)

    def remove(self) -> None:
        """Gives the optimizer its own rates and weight decays back, so that another training starts from them."""
        for group in self.optimizer.param_groups:  # other ones than at first, where a state was loaded
            for parameter in group["params"][:1]:
                group.update(self._given.get(parameter, {}))

    def set(self, schedule: Schedule, epoch: int) -> None:
        """Gives each group the rate of its block in an epoch of a schedule."""
        training, warmup = self.training, self.training.warmup_epochs
        steps = [milestone / training.epochs for milestone in training.milestones]
        warm = min(1.0, (epoch + 1) / warmup) if warmup else 1.0
        for group, (block, first) in zip(self.optimizer.param_groups, self._first, strict=True):
            least = min(first, training.lr_min)
            rates = schedule.learning_rates(self.blocks, first, least, steps, training.gamma)
            group["lr"] = warm * float(rates[epoch, block])
        self._last = [group["lr"] for group in self.optimizer.param_groups]


def check_schedulers(optimizer: Optimizer) -> None:
    """Refuses an optimizer whose learning rates are set by somebody else.

    Raises:
        SpfdeError: a scheduler of `torch.optim.lr_scheduler` is attached.
    """
    if any("initial_lr" in group for group in optimizer.param_groups):  # which every scheduler leaves there
        cause = "the optimizer's learning rates are set by a scheduler, and by SparseTraining too"
        raise SpfdeError(cause, 'pass learning_rates="own" to SparseTraining, or leave the scheduler out')
