"""Which modules there are kernels for: those of the very classes whose forward pass they compute, unchanged."""

import sys
from typing import Any

from torch import nn

from spfde.kernels.covered import untouched
from spfde.kernels.structure import supports
from spfde.kernels.units import ResidualUnit, normalises


def is_plain(module: Any, kind: type[nn.Module]) -> bool:
    """Whether a module is of this very class of torch, with its forward pass."""
    return type(module) is kind and untouched(module)


def has_class(module: Any, where: str, name: str) -> bool:
    """As `is_plain`, of a class by name.

    Only who has imported the class's file can have one, and torchvision takes a second to import.
    """
    found = getattr(sys.modules.get(where), name, None)
    return found is not None and is_plain(module, found)


def halves(module: Any) -> bool:
    """Whether a module is `nn.MaxPool2d(2)`."""
    return is_plain(module, nn.MaxPool2d) and (
        module.kernel_size in (2, (2, 2))
        and module.stride in (2, (2, 2))
        and module.padding in (0, (0, 0))
        and module.dilation in (1, (1, 1))
        and not (module.ceil_mode or module.return_indices)
    )


def can_run(conv: Any, bn: Any) -> bool:
    return supports(conv) and conv.bias is None and is_plain(bn, nn.BatchNorm2d) and normalises(bn)


def residual_block(name: str, module: Any) -> ResidualUnit | None:
    """The unit of a residual block, where it is one that there are kernels for."""
    if has_class(module, "spfde.models.resnet", "BasicBlock"):
        depth, shortcut = 2, "shortcut"
    elif has_class(module, "torchvision.models.resnet", "BasicBlock") and is_plain(module.relu, nn.ReLU):
        depth, shortcut = 2, "downsample"
    elif has_class(module, "torchvision.models.resnet", "Bottleneck") and is_plain(module.relu, nn.ReLU):
        depth, shortcut = 3, "downsample"
    else:
        return None
    beside = getattr(module, shortcut)
    if beside is not None and not is_plain(beside, nn.Sequential):
        return None
    unit = ResidualUnit(name, module, depth, shortcut)
    path, beside = unit.found[: 2 * depth], unit.found[2 * depth :]
    padded = len(beside) == 1 and has_class(beside[0], "spfde.models.resnet", "PaddedShortcut")
    pairs = path if padded else [*path, *beside]
    fine = (padded or len(beside) in (0, 2)) and all(can_run(*pairs[i : i + 2]) for i in range(0, len(pairs), 2))
    return unit if fine else None
