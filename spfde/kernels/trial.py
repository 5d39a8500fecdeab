"""Copies of modules to time kernels on, and an enclosure in which no random stream moves."""

import contextlib
import copy
import random
from collections import OrderedDict
from collections.abc import Iterator
from typing import Any, TypeVar

import numpy
import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

T = TypeVar("T", bound=nn.Module | tuple[Any, ...])

_HOOKS = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")


def copied(given: T) -> T:
    """A deep copy of a module, or of some at once, without hooks: they are a user's, who waits for real batches.

    An activation that a module keeps between forward passes is copied as a value: torch copies none with a history.

    Raises:
        RuntimeError: it cannot be copied.
    """
    memo: dict[int, Any] = {}
    for outer in given if isinstance(given, tuple) else (given,):
        for module in outer.modules():
            state = vars(module)
            memo |= {id(state[name]): OrderedDict() for name in _HOOKS}
            kept = (leaf for leaf in tree_leaves(state) if isinstance(leaf, Tensor) and not leaf.is_leaf)
            memo |= {id(tensor): tensor.detach().clone() for tensor in kept}
    try:
        return copy.deepcopy(given, memo)
    except Exception as error:  # whatever a user's attribute answers with
        raise RuntimeError(f"cannot be copied ({type(error).__name__}: {error})") from error


@contextlib.contextmanager
def unnoticed() -> Iterator[None]:
    """What is drawn inside from the global streams of torch (on the CPU), numpy and Python changes nothing outside."""
    ours, theirs = random.getstate(), numpy.random.get_state()  # noqa: NPY002 - the global one is what a model may use
    try:
        with torch.random.fork_rng(devices=[]):
            yield
    finally:
        random.setstate(ours)
        numpy.random.set_state(theirs)  # noqa: NPY002
