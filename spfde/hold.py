"""The hold that a training has on its model and optimizer until it ends: one at a time, and none that outlives it."""

import weakref
from collections.abc import Callable, Iterable
from typing import Any, Protocol

from torch import nn

from spfde.errors import SpfdeError
from spfde.execution import Execution
from spfde.freezing import FrozenBlock
from spfde.methods import Method


class Training(Protocol):
    """What is asked of a training here; `spfde.SparseTraining` has it."""

    model: nn.Module
    begun: int
    epochs: int

    @property
    def hold(self) -> "Hold": ...

    def detach(self) -> None: ...


class Removable(Protocol):
    def remove(self) -> None: ...


_at_work: "weakref.WeakSet[Training]" = weakref.WeakSet()


class Hold:
    """What a training has put on a model and an optimizer. It goes with `release`, or when the training is lost.

    Args:
        training: whose hold it is; it is not kept alive.
        hooks: on parameters and on the optimizer, and the rates that its groups have meanwhile; they must not keep the
            training alive either (`weakly`).
        execution: the kernels under the model.
        method: what may have changed the forward pass of layers.
        frozen: the blocks that are frozen when the hold goes.
    """

    def __init__(
        self,
        training: Training,
        hooks: Iterable[Removable],
        execution: Execution,
        method: Method,
        frozen: dict[int, FrozenBlock],
    ) -> None:
        self.release = weakref.finalize(training, _release, list(hooks), execution, method, frozen, training.model)
        self.release.atexit = False
        _at_work.add(training)

    @property
    def released(self) -> bool:
        return not self.release.alive


def _release(
    hooks: list[Removable], execution: Execution, method: Method, frozen: dict[int, FrozenBlock], model: nn.Module
) -> None:
    for hook in hooks:
        hook.remove()
    execution.detach()
    method.detach()
    for block in frozen.values():
        block.thaw(model.training)


def check_free(model: nn.Module) -> None:
    """Refuses a model that another training has a hold on; one that has not begun lets go of it.

    Raises:
        SpfdeError: the masks of the other training would stay in force.
    """
    parameters = set(model.parameters())
    for other in [training for training in _at_work if not training.hold.released]:
        if not parameters.isdisjoint(other.model.parameters()):
            if other.begun:
                cause = f"another SparseTraining is at work on this model, in epoch {other.begun} of {other.epochs}"
                remedy = "to start anew, build a fresh model and optimizer; to go on from these weights, call finish()"
                raise SpfdeError(cause, f"{remedy} on the other one first, or detach() if it was interrupted")
            other.detach()


def weakly(method: Callable[..., Any]) -> Callable[..., Any]:
    """A bound method as a function that does not keep its object alive; once that is gone, it does nothing."""
    reference = weakref.WeakMethod(method)

    def call(*args: Any) -> Any:
        own = reference()
        return own(*args) if own else None

    return call
