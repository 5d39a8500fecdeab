"""Networks whose forward pass the kernels know: their units in order, and what comes before and after them."""

from collections.abc import Callable, Collection, Iterable
from typing import Any

import torch
from torch import Tensor, nn

from spfde.kernels.covered import Covered
from spfde.kernels.recognise import can_run, halves, has_class, is_plain, residual_block
from spfde.kernels.structure import readable, supports
from spfde.kernels.units import ConvUnit, DenseUnit, KernelUnit, LinearUnit, LoneUnit, PoolUnit, Unit

Chain = Callable[[Tensor, bool], Tensor]  # runs the units; gives the mean over the pixels if that is asked for


class Network:
    """A module whose forward pass is a chain of units between two plain parts.

    Args:
        root: the module.
        units: in forward order.
        forward: the module's forward pass, given the module, the chain and the input.
        keys: of the root's children that the units are, or are in; all of them unless given.
        around: modules around the units that are not called either.

    Attributes:
        sparse: the units that can run sparse, and `layers` the names of their layers.
        covered: the modules that are not called.
        norms: the BatchNorms among them.
    """

    def __init__(
        self,
        root: nn.Module,
        units: list[Unit],
        forward: Callable[[Any, Chain, Tensor], Tensor],
        keys: Collection[str] | None = None,
        around: Iterable[nn.Module] = (),
    ) -> None:
        self.units = units
        self.forward = forward
        self.sparse = [unit for unit in units if isinstance(unit, KernelUnit)]
        self.layers = {layer for unit in self.sparse for layer in unit.layers}
        self.covered = Covered(root, [*around, *(module for unit in units for module in unit.modules)], keys)
        self.norms = [module for module in self.covered.modules if type(module) is nn.BatchNorm2d]

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
            found[name] = Network(module, [LoneUnit(name, module)], _plainly)
        elif is_plain(module, nn.Linear) and readable(module._parameters.get("weight")):
            found[name] = Network(module, [LinearUnit(name, module)], _plainly)
    return found


def _plainly(module: Any, chain: Chain, x: Tensor) -> Tensor:
    return chain(x, False)


def _joined(*names: str) -> str:
    return ".".join(name for name in names if name)


def _block_or_dense(name: str, module: nn.Module) -> Unit:
    return residual_block(name, module) or DenseUnit(name, module)


def _blocks(name: str, stages: dict[str, Any]) -> list[Unit]:
    """The units of stages one after the other; a block may be in a stage twice."""
    return [
        _block_or_dense(_joined(name, stage, key), module)
        for stage, blocks in stages.items()
        for key, module in blocks._modules.items()
    ]


def _cifar_resnet(name: str, model: Any) -> Network | None:
    if not has_class(model, "spfde.models.resnet", "CifarResNet"):
        return None
    stages = {key: getattr(model, key) for key in ("layer1", "layer2", "layer3")}
    if not all(is_plain(stage, nn.Sequential) for stage in stages.values()):
        return None
    stem, keys = _joined(name, "conv1"), [*stages]
    first: Unit = DenseUnit(stem, lambda x: torch.relu(model.bn1(model.conv1(x))))
    if can_run(model.conv1, model.bn1):
        first, keys = ConvUnit(stem, (model.conv1, model.bn1)), ["conv1", "bn1", *stages]
    units = [first, *_blocks(name, stages)]
    return Network(model, units, lambda model, chain, x: model.classifier(chain(x, True)), keys, stages.values())


def _torchvision_resnet(name: str, model: Any) -> Network | None:
    if not has_class(model, "torchvision.models.resnet", "ResNet"):
        return None
    stages = {key: getattr(model, key) for key in ("layer1", "layer2", "layer3", "layer4")}
    if not all(is_plain(stage, nn.Sequential) for stage in stages.values()):
        return None
    pooled = is_plain(model.avgpool, nn.AdaptiveAvgPool2d) and model.avgpool.output_size in (1, (1, 1))
    covered = {**stages, "avgpool": model.avgpool} if pooled else stages

    def forward(model: Any, chain: Chain, x: Tensor) -> Tensor:
        x = model.maxpool(model.relu(model.bn1(model.conv1(x))))
        features = chain(x, True) if pooled else model.avgpool(chain(x, False)).flatten(1)
        return model.fc(features)

    return Network(model, _blocks(name, stages), forward, list(covered), covered.values())


def _sequence(name: str, module: nn.Module) -> Network | None:
    return Network(module, _units(name, module), _plainly) if is_plain(module, nn.Sequential) else None


def _vgg(name: str, model: Any) -> Network | None:
    if not any(has_class(model, "spfde.models.vgg", kind) for kind in ("Vgg", "Vgg16Small")):
        return None
    if not is_plain(model.features, nn.Sequential):
        return None
    units = _units(_joined(name, "features"), model.features)
    return Network(
        model, units, lambda model, chain, x: model.classifier(chain(x, True)), ["features"], [model.features]
    )


def _units(name: str, sequence: nn.Module) -> list[Unit]:
    """Of a sequence: convolution, BatchNorm and ReLU together, poolings, residual blocks; all else runs dense."""
    keys, modules = list(sequence._modules), list(sequence._modules.values())
    units: list[Unit] = []
    at = 0
    while at < len(modules):
        here = _joined(name, keys[at])
        three = modules[at : at + 3]
        if len(three) == 3 and can_run(three[0], three[1]) and is_plain(three[2], nn.ReLU):
            units.append(ConvUnit(here, tuple(three)))
            at += 3
            continue
        module: Any = modules[at]
        units.append(PoolUnit(here, module) if halves(module) else _block_or_dense(here, module))
        at += 1
    return units


def _lone_block(name: str, module: nn.Module) -> Network | None:
    unit = residual_block(name, module)
    return None if unit is None else Network(module, [unit], _plainly)
