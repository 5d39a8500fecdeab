"""Which layers a model has, and which of them become sparse."""

import re
from collections.abc import Collection

from torch import nn
from torch.nn.modules.conv import _ConvNd

from spfde.errors import SpfdeError, nearest

SHORTCUT = re.compile(r"(^|\.)(shortcut|downsample)")


def layers(model: nn.Module) -> dict[str, _ConvNd | nn.Linear]:
    """Convolutions and linear layers by qualified name, in definition order."""
    return {name: module for name, module in model.named_modules() if isinstance(module, _ConvNd | nn.Linear)}


def dense_layers(model: nn.Module, rule: str, named: Collection[str] = ()) -> set[str]:
    """Names of the layers that stay dense under the setting `sparsity.dense_layers`.

    `first` is the first layer of the network, `classifier` its last linear layer, `shortcut` the convolutions on
    shortcut paths (modules named `shortcut` or `downsample`).

    Args:
        model: the network.
        rule: the setting.
        named: qualified names of layers, or of modules that hold layers, that stay dense as well.

    Raises:
        SpfdeError: one of these names is no layer and holds none.
    """
    found = layers(model)
    parts = rule.split("+")
    dense: set[str] = set()
    if "first" in parts:
        dense |= set(list(found)[:1])
    if "classifier" in parts:
        dense |= set([name for name, module in found.items() if isinstance(module, nn.Linear)][-1:])
    if "shortcut" in parts:
        dense |= {name for name in found if SHORTCUT.search(name)}
    for name in named:
        inside = {layer for layer in found if f"{layer}.".startswith(f"{name}.")}
        if not inside:
            raise SpfdeError(f'no layer is called "{name}" or is in a module of that name', nearest(name, found))
        dense |= inside
    return dense
