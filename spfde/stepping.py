"""Hooks around every step of an optimizer, with or without a closure, and what it keeps for each parameter."""

import copy
from collections import defaultdict
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer


def momentum_buffers(optimizer: Optimizer) -> int | None:
    """How many numbers an optimizer keeps for each weight: plain SGD none, SGD with momentum one, Adam two.

    To find out, a copy of the optimizer without its parameters and state takes a step on a small weight. The answer is
    None for an optimizer that cannot be copied like this (a wrapper of another one).
    """
    most = 0
    for group in optimizer.param_groups:
        weight = nn.Parameter(torch.ones(2, 3))
        weight.grad = torch.ones(2, 3)
        try:
            with torch.enable_grad():
                twin = copy.copy(optimizer)  # the base class copies defaults, groups and state, but no hooks
                twin.param_groups, twin.state = [{**group, "params": [weight]}], defaultdict(dict)
                twin.step()
        except Exception:
            return None
        kept = twin.state[weight].values()
        most = max(most, sum(isinstance(value, Tensor) and value.shape == weight.shape for value in kept))
    return most


class AroundSteps:
    """Calls `before` when the gradients of a step are there, and `after` when it is done, until `remove`.

    Args:
        optimizer: the optimizer whose steps are meant.
        begins: called as a step begins, before a closure computes its gradients; it may refuse the step.
        before: called with the gradients in place that the step uses.
        after: called after the step.
    """

    def __init__(
        self, optimizer: Optimizer, begins: Callable[[], None], before: Callable[[], None], after: Callable[[], None]
    ) -> None:
        self.begins, self.before, self.after = begins, before, after
        self._hooks = (
            optimizer.register_step_pre_hook(self._before),
            optimizer.register_step_post_hook(lambda *_: self.after()),
        )

    def remove(self) -> None:
        for hook in self._hooks:
            hook.remove()

    def _before(
        self, _: Optimizer, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> tuple[tuple[Any, ...], dict[str, Any]]:
        self.begins()
        me, closure, *rest = (*args, kwargs.get("closure")) if len(args) == 1 else args
        if closure is None:
            self.before()
            return args, kwargs

        def prepared() -> Any:
            loss = closure()
            self.before()
            return loss

        return (me, prepared, *rest), {name: value for name, value in kwargs.items() if name != "closure"}
