"""What happens around every step of an optimizer, closure or not."""

from collections.abc import Callable
from typing import Any

from torch.optim import Optimizer


class AroundSteps:
    """Calls `before` when the gradients of a step are there, and `after` when it is done, until `remove`.

    Args:
        optimizer: whose steps.
        begins: called as a step begins, before a closure computes its gradients; may refuse it.
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
