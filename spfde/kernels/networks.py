"""Networks whose forward pass the kernels know: their units in order, and what comes before and after them."""

import functools
from collections.abc import Callable, Collection
from typing import Any

import torch
from torch import Tensor, nn

from spfde.kernels.structure import supports
from spfde.kernels.units import (
    ConvUnit,
    DenseUnit,
    KernelUnit,
    LinearUnit,
    LoneUnit,
    PoolUnit,
    Unit,
    can_run,
    halves,
    has_class,
    residual_block,
)

Chain = Callable[[Tensor, bool], Tensor]  # runs the units; gives the mean over the pixels if that is asked for


class Network:
    """A module whose forward pass is a chain of units between two plain parts.

    Attributes:
        units: in forward order; `sparse` are those that can run sparse, `layers` the names of their layers.
        inner: modules whose own forward pass is not called.
        forward: the module's forward pass, given the module, the chain and the input.
    """

    def __init__(self, units: list[Unit], forward: Callable[[Any, Chain, Tensor], Tensor]) -> None:
        self.units = units
        self.forward = forward
        self.sparse = [unit for unit in units if isinstance(unit, KernelUnit)]
        self.layers = {layer for unit in self.sparse for layer in unit.layers}
        self.inner = list(dict.fromkeys(module for unit in units for module in unit.modules))

    @property
    def useful(self) -> bool:
        return any(unit.convs for unit in self.units)


def find(model: nn.Module, masked: Collection[str]) -> dict[str, Network]:
    """The networks in a model by module name, outermost first; what is in one is in no other.

    Args:
        masked: names of layers with masks; those that are in no network become networks of their own.
    """
    found: dict[str, Network] = {}
    for name, module in model.named_modules():
        if any(name.startswith(f"{outer}." if outer else "") for outer in found):
            continue
        for recognise in (_cifar_resnet, _torchvision_resnet, _vgg, _sequence, _lone_block):
            network = recognise(name, module)
            if network is not None and network.useful:
                found[name] = network
                break
    inside = {layer for network in found.values() for unit in network.units for layer in unit.layers}
    for name in sorted(set(masked) - inside):
        module = model.get_submodule(name)
        if supports(module):
            found[name] = Network([LoneUnit(name, module)], _plainly)
        elif type(module) is nn.Linear and "weight" in module._parameters:
            found[name] = Network([LinearUnit(name, module)], _plainly)
    return found


def _plainly(module: Any, chain: Chain, x: Tensor) -> Tensor:
    return chain(x, False)


def _joined(*names: str) -> str:
    return ".".join(name for name in names if name)


def _block_or_dense(name: str, module: nn.Module) -> Unit:
    return residual_block(name, module) or DenseUnit(name, module, [module])


def _cifar_resnet(name: str, model: Any) -> Network | None:
    if not has_class(model, "spfde.models.resnet", "CifarResNet"):
        return None
    units: list[Unit] = []
    if can_run(model.conv1, model.bn1):
        units.append(ConvUnit((_joined(name, "conv1"), _joined(name, "bn1")), lambda: (model.conv1, model.bn1)))
    else:
        stem = [model.conv1, model.bn1]
        units.append(DenseUnit(_joined(name, "conv1"), lambda x: torch.relu(model.bn1(model.conv1(x))), stem))
    for stage in ("layer1", "layer2", "layer3"):
        for key, module in getattr(model, stage).named_children():
            units.append(_block_or_dense(_joined(name, stage, key), module))
    return Network(units, lambda model, chain, x: model.classifier(chain(x, True)))


def _torchvision_resnet(name: str, model: Any) -> Network | None:
    if not has_class(model, "torchvision.models.resnet", "ResNet"):
        return None
    units = [
        _block_or_dense(_joined(name, stage, key), module)
        for stage in ("layer1", "layer2", "layer3", "layer4")
        for key, module in getattr(model, stage).named_children()
    ]
    pooled = type(model.avgpool) is nn.AdaptiveAvgPool2d and model.avgpool.output_size in (1, (1, 1))

    def forward(model: Any, chain: Chain, x: Tensor) -> Tensor:
        x = model.maxpool(model.relu(model.bn1(model.conv1(x))))
        features = chain(x, True) if pooled else model.avgpool(chain(x, False)).flatten(1)
        return model.fc(features)

    return Network(units, forward)


def _sequence(name: str, module: nn.Module) -> Network | None:
    if type(module) is not nn.Sequential or "forward" in module.__dict__:
        return None
    return Network(_units(name, module), _plainly)


def _vgg(name: str, model: Any) -> Network | None:
    if not any(has_class(model, "spfde.models.vgg", kind) for kind in ("Vgg", "Vgg16Small")):
        return None
    if type(model.features) is not nn.Sequential:
        return None
    units = _units(_joined(name, "features"), model.features)
    return Network(units, lambda model, chain, x: model.classifier(chain(x, True)))


def _members(sequence: nn.Sequential, keys: list[str]) -> tuple[Any, ...]:
    return tuple(sequence._modules.get(key) for key in keys)


def _units(name: str, sequence: nn.Sequential) -> list[Unit]:
    """Of a sequence: convolution, BatchNorm and ReLU together, poolings, residual blocks; all else runs dense."""
    keys, modules = list(sequence._modules), list(sequence)
    units: list[Unit] = []
    at = 0
    while at < len(modules):
        here = _joined(name, keys[at])
        three = modules[at : at + 3]
        if len(three) == 3 and can_run(three[0], three[1]) and type(three[2]) is nn.ReLU:
            get = functools.partial(_members, sequence, keys[at : at + 3])
            units.append(ConvUnit((here, _joined(name, keys[at + 1])), get))
            at += 3
            continue
        module = modules[at]
        units.append(PoolUnit(here, module) if halves(module) else _block_or_dense(here, module))
        at += 1
    return units


def _lone_block(name: str, module: nn.Module) -> Network | None:
    unit = residual_block(name, module)
    return None if unit is None else Network([unit], _plainly)
