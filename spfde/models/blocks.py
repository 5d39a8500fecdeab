"""Freezing blocks of a network, read from its module tree."""

from collections.abc import Iterator
from dataclasses import dataclass

from torch import nn
from torch.nn.modules.conv import _ConvNd


@dataclass(frozen=True)
class Block:
    """A unit of freezing: several consecutive layers and what stands between them.

    SpFDE, progressive layer freezing.

    Attributes:
        name: the module that gives the block its name.
        modules: qualified names, as in `named_modules`, of the modules that freeze together.
    """

    name: str
    modules: tuple[str, ...]


@dataclass(frozen=True)
class _Item:
    name: str
    module: nn.Module
    layers: int


def blocks(model: nn.Module) -> list[Block]:
    """The freezing blocks of a network in forward order; what is in none of them is never frozen.

    A model can define its own blocks by a method `freezing_blocks() -> list[Block]`. Otherwise they are read from the
    module tree, assuming that modules are defined in the order in which the forward pass uses them:

    * a module with two or more layers (convolution or linear) is a block, unless it is a plain Sequential or
      ModuleList, or holds a sequence of such modules (a stage, a backbone), or is the only one (a wrapper):
      in these cases its children are looked at instead;
    * what stands before the first block (the stem), or between two, goes with the block after it;
    * a network without such modules (VGG, a plain Sequential) has one block for each layer, with what follows that
      layer;
    * the head (the last layer of the network and all that follows the last block) is in none.
    """
    known = getattr(model, "freezing_blocks", None)
    if callable(known):
        return list(known())
    items = _without_wrapper(list(_items(model, "")))
    last = max((index for index, item in enumerate(items) if item.layers), default=0)
    items = _without_wrapper(items[:last])
    layers = [index for index, item in enumerate(items) if item.layers]
    mains = [index for index in layers if items[index].layers > 1]
    ends = [index + 1 for index in mains] or [*layers[1:], len(items)]
    groups = [items[begin:end] for begin, end in zip([0, *ends], ends, strict=False)]
    names = [items[index].name for index in mains or layers]
    return [Block(name, tuple(item.name for item in group)) for name, group in zip(names, groups, strict=False)]


def _items(module: nn.Module, prefix: str) -> Iterator[_Item]:
    """The children in definition order, stages and backbones opened."""
    for name, child in module.named_children():
        layers = _layers(child)
        if layers > 1 and (type(child) in (nn.Sequential, nn.ModuleList) or _holds_blocks(child)):
            yield from _items(child, f"{prefix}{name}.")
        else:
            yield _Item(prefix + name, child, layers)


def _without_wrapper(items: list[_Item]) -> list[_Item]:
    """Opens what holds two or more layers, as long as only one item does."""
    while sum(item.layers > 1 for item in items) == 1:
        index = next(index for index, item in enumerate(items) if item.layers > 1)
        items[index : index + 1] = _items(items[index].module, f"{items[index].name}.")
    return items


def _layers(module: nn.Module) -> int:
    return sum(isinstance(inner, _ConvNd | nn.Linear) for inner in module.modules())


def _holds_blocks(module: nn.Module) -> bool:
    sequences = (inner for inner in module.modules() if isinstance(inner, nn.Sequential | nn.ModuleList))
    return any(sum(_layers(child) > 1 for child in sequence.children()) > 1 for sequence in sequences)
