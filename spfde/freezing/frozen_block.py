"""What holds a frozen block still while its model goes on training."""

import functools
from collections.abc import Iterable, Sequence

from torch import nn

from spfde.models import Block


def blocks_of_parameters(model: nn.Module, blocks: Sequence[Block]) -> dict[nn.Parameter, int]:
    """The block of each parameter that is in one; a shared parameter freezes with its first block."""
    return {
        parameter: index
        for index, block in reversed(list(enumerate(blocks)))
        for name in block.modules
        for parameter in model.get_submodule(name).parameters()
    }


class FrozenBlock:
    """Modules whose parameters are out of autograd and which stay in evaluation mode, until `thaw`.

    `train` is overridden on the modules themselves: a loop's `model.train()` wakes no BatchNorm in here, nothing runs
    in the forward pass for it, and `torch.compile`, which guards `training` and `requires_grad`, compiles anew once.
    """

    def __init__(self, modules: Iterable[nn.Module]) -> None:
        self.modules = list(dict.fromkeys(inner for module in modules for inner in module.modules()))
        parameters = (parameter for module in self.modules for parameter in module.parameters(recurse=False))
        self.parameters = [parameter for parameter in dict.fromkeys(parameters) if parameter.requires_grad]
        for parameter in self.parameters:
            parameter.requires_grad_(False)
            parameter.grad = None
        for module in self.modules:
            module.training = False
            module.__dict__["train"] = functools.partial(_stay, module)

    def thaw(self, training: bool) -> None:
        """Parameters are trained again, and the modules are in the given mode."""
        for parameter in self.parameters:
            parameter.requires_grad_(True)
        for module in self.modules:
            del module.__dict__["train"]
            module.training = training


def _stay(module: nn.Module, mode: bool = True) -> nn.Module:
    """Takes the place of `module.train`; a function of the module's own so that copies of the model are frozen too."""
    return module
