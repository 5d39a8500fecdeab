"""Modules that kernels cover: their own forward pass is not called, so it must be the one that the kernels know."""

import operator
import sys
from collections.abc import Collection, Iterable
from itertools import chain
from typing import Any

from torch import nn

_FORWARD = ("forward", "_forward_impl", "_conv_forward")  # what a forward pass is made of, in the classes in question
_HOOKS = operator.itemgetter("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")
_SETTINGS = {
    nn.Conv2d: operator.itemgetter("stride", "padding", "dilation", "groups", "padding_mode"),
    nn.MaxPool2d: operator.itemgetter("kernel_size", "stride", "padding", "dilation", "ceil_mode", "return_indices"),
    nn.AdaptiveAvgPool2d: operator.itemgetter("output_size"),
}


def untouched(module: nn.Module) -> bool:
    """Whether a module's forward pass is the one that is written in its class's file, and not put in its place."""
    return not any(name in vars(module) for name in _FORWARD) and all(_written(type(module), name) for name in _FORWARD)


def _written(kind: type, name: str) -> bool:
    """Whether a class has the method that its file gives it, or none; decorators may copy a name, but no globals."""
    owner = next((one for one in kind.__mro__ if name in vars(one)), None)
    if owner is None:
        return True
    method, file = vars(owner)[name], sys.modules.get(owner.__module__)
    here = file is not None and getattr(method, "__globals__", None) is vars(file)
    return here and method.__qualname__ == f"{owner.__qualname__}.{name}"


class Covered:
    """The modules of a network that kernels cover, as they were found.

    It is asked before every forward pass, hence the few passes over flat lists in place of one look at each module.

    Args:
        root: the module whose forward pass the kernels take over; it is called itself, and its own hooks work.
        modules: inside it, which are not called.
        keys: of the root's children that are not called; all of them unless given.
    """

    def __init__(self, root: nn.Module, modules: Iterable[nn.Module], keys: Collection[str] | None = None) -> None:
        self.modules = [module for module in dict.fromkeys(modules) if module is not root]
        self._states = [vars(module) for module in self.modules]
        self._kinds = [type(module) for module in self.modules]
        self._methods = [
            (kind, name, getattr(kind, name))
            for kind in dict.fromkeys([type(root), *self._kinds])
            for name in _FORWARD
            if hasattr(kind, name)
        ]
        every = [root, *self.modules]
        own = [(vars(module), name) for module in every for name in _FORWARD if hasattr(type(module), name)]
        self._owners, self._names = [state for state, _ in own], [name for _, name in own]
        self._children = [(state, dict(state["_modules"])) for state in self._states if state["_modules"]]
        self._root = vars(root)
        self._kept = {key: root._modules.get(key) for key in (root._modules if keys is None else keys)}
        self._count = len(root._modules) if keys is None else None
        settings = [(_SETTINGS[type(module)], vars(module)) for module in every if type(module) in _SETTINGS]
        self._settings = [(get, state, get(state)) for get, state in settings]

    @property
    def hooked(self) -> bool:
        """Whether a module has a hook, which would not be called."""
        return any(chain.from_iterable(map(_HOOKS, self._states)))

    @property
    def intact(self) -> bool:
        """Whether all modules are in their places, and their classes, forward passes and settings those found."""
        inside: dict[str, Any] = self._root["_modules"]
        return (
            list(map(type, self.modules)) == self._kinds
            and not any(map(operator.contains, self._owners, self._names))
            and all(getattr(kind, name) is method for kind, name, method in self._methods)
            and all(state["_modules"] == children for state, children in self._children)
            and all(inside.get(key) is module for key, module in self._kept.items())
            and (self._count is None or self._count == len(inside))
            and all(get(state) == setting for get, state, setting in self._settings)
        )
