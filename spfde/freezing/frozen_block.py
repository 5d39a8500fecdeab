"""Keeps a frozen block unchanged while the rest of its model goes on training."""

import functools
from collections.abc import Iterable, Sequence

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from spfde.models import Block


def blocks_of_parameters(model: nn.Module, blocks: Sequence[Block]) -> dict[nn.Parameter, int]:
    """The block of each parameter that is in one; a shared parameter freezes with its first block."""
    return {
        parameter: index
        for index, block in reversed(list(enumerate(blocks)))
        for name in block.modules
        for parameter in model.get_submodule(name).parameters()
    }


def freezing_together(model: nn.Module, blocks: Sequence[Block]) -> list[tuple[list[nn.Parameter], list[nn.Module]]]:
    """The parameters and the modules that freeze with each block.

    A module that several blocks share freezes with the last of them, because until then some of them still train with
    it. A module that is also used outside of all blocks (one ReLU for the whole network) never freezes.
    """
    last: dict[nn.Module, int] = {}
    for path, module in model.named_modules(remove_duplicate=False):
        inside = (i for i, block in enumerate(blocks) if any(f"{path}.".startswith(f"{m}.") for m in block.modules))
        last[module] = max(next(inside, len(blocks)), last.get(module, -1))
    together: list[tuple[list[nn.Parameter], list[nn.Module]]] = [([], []) for _ in range(len(blocks) + 1)]
    for parameter, block in blocks_of_parameters(model, blocks).items():
        together[block][0].append(parameter)
    for module, block in last.items():
        together[block][1].append(module)
    return together[:-1]


class FrozenBlock:
    """Parameters out of autograd and modules that stay in evaluation mode, until `thaw`.

    The papers do not say what BatchNorm does in a frozen block. In evaluation mode it keeps its statistics as they are;
    in training mode it goes on normalising by the statistics of each batch and following them, though nothing else
    moves.

    `train` is overridden on the modules themselves, so that a loop's `model.train()` does not put a frozen BatchNorm
    back into training mode. This costs nothing in the forward pass. `torch.compile` guards `training` and
    `requires_grad`, so it compiles once more when a block freezes.

    Args:
        parameters: the block's parameters.
        modules: the modules that turn to evaluation mode with this block.
        batch_norm: the mode of BatchNorm in it, "evaluation" or "training".
    """

    def __init__(
        self, parameters: Iterable[nn.Parameter], modules: Iterable[nn.Module], batch_norm: str = "evaluation"
    ) -> None:
        moving = _BatchNorm if batch_norm == "training" else ()
        self.modules = [module for module in modules if not isinstance(module, moving)]
        self.parameters = [parameter for parameter in parameters if parameter.requires_grad]
        for parameter in self.parameters:
            parameter.requires_grad_(False)
            parameter.grad = None
        for module in self.modules:
            module.training = False
            module.__dict__["train"] = functools.partial(_stay, module)

    def thaw(self, training: bool) -> None:
        """Lets the parameters train again, and puts the modules into the given mode."""
        for parameter in self.parameters:
            parameter.requires_grad_(True)
        for module in self.modules:
            del module.__dict__["train"]
            module.training = training


def _stay(module: nn.Module, mode: bool = True) -> nn.Module:
    """Takes the place of `module.train`; it is bound to the module, so that copies of the model stay frozen too.

    The modules inside are still told of the mode: some BatchNorm may have to follow it, others stay as they are.
    """
    for inner in module.children():
        inner.train(mode)
    return module
