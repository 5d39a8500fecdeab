"""Which layers a model has, and which of them become sparse."""

import re

from torch import nn
from torch.nn.modules.conv import _ConvNd

SHORTCUT = re.compile(r"(^|\.)(shortcut|downsample)")


def layers(model: nn.Module) -> dict[str, _ConvNd | nn.Linear]:
    """Convolutions and linear layers by qualified name, in definition order."""
    return {name: module for name, module in model.named_modules() if isinstance(module, _ConvNd | nn.Linear)}


def dense_layers(model: nn.Module, rule: str) -> set[str]:
    """Names of the layers that stay dense under the setting `sparsity.dense_layers`.

    `first` is the first layer of the network, `classifier` its last linear layer, `shortcut` the convolutions on
    shortcut paths (modules named `shortcut` or `downsample`).
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
    return dense
