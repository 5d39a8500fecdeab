"""The parts of a network that run on sparse kernels as a whole, and how they are found in it."""

import copy
import math
import sys
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from spfde.kernels.alone import convolve, linear
from spfde.kernels.block import Block, Padding, Stage
from spfde.kernels.blocked import block
from spfde.kernels.conv_block import ConvBlock
from spfde.kernels.ending import Ending
from spfde.kernels.pool import halve
from spfde.kernels.structure import supports
from spfde.kernels.table import clock

GetStage = Callable[[str, Any], Stage]  # layer and its BatchNorm, if it has one
Ended = tuple[Tensor, Ending | None]


class Unit(ABC):
    """A part of a network, and the dense way to run it.

    Attributes:
        name: of its module in the model.
        kind: what it is, for people.
        convs: its convolutions (or its linear layer) by layer name; none in a part that runs dense alone.
    """

    kind = "dense"

    def __init__(self, name: str, modules: Iterable[nn.Module], convs: dict[str, Any]) -> None:
        self.name = name
        self.convs = convs
        self.modules = [inner for module in modules for inner in module.modules()]

    @property
    def layers(self) -> list[str]:
        """Names of its layers with weights."""
        return list(self.convs)

    def intact(self) -> bool:
        """Whether its modules are still those that were found."""
        return True

    @abstractmethod
    def dense(self, x: Tensor) -> Tensor:
        """Runs its modules as they are."""


class SparseUnit(Unit):
    """A unit that can run on kernels too.

    Attributes:
        blocked: it takes a blocked activation there.
    """

    blocked = True

    @abstractmethod
    def sparse(self, z: Tensor, batch: int, stage: GetStage, threads: int, before: Ending | None) -> Ended:
        """Runs on a blocked activation; `stage` gives each layer with the structure it has at the moment.

        Args:
            before: end of the sparse unit before, if there is one.

        Returns:
            The output, and the unit's own end.
        """


class KernelUnit(SparseUnit):
    """A unit with weights, which sparse kernels skip the zeros of.

    Attributes:
        handle: the `Handle` that it belongs to.
        input_shape: of one sample, as the last forward pass had it.
    """

    handle: Any = None
    input_shape: tuple[int, ...] = ()

    @abstractmethod
    def twin(self) -> "KernelUnit":
        """The unit on copies of its modules."""

    def measure(self, batch: int, repeats: int = 1, frozen: bool = False) -> tuple[float, float]:
        """Times forward and backward pass of the unit alone, on random data and copies of its modules.

        Args:
            batch: samples.
            repeats: of which the fastest counts; sparse and dense by turns.
            frozen: the forward pass alone, in evaluation mode.

        Returns:
            Seconds of a sparse and of a dense pass.

        Raises:
            RuntimeError: no forward pass has told the shape of the input yet.
        """
        if not self.input_shape:
            raise RuntimeError(f"the shape of the input of {self.name} is not known before a forward pass")
        twin, threads = self.twin(), self.handle.threads or torch.get_num_threads()
        for module in twin.modules:
            module.training = not frozen
        for parameter in (p for module in twin.modules for p in module.parameters(recurse=False)):
            parameter.requires_grad_(not frozen)
        x = torch.randn(batch, *self.input_shape)
        if x.dim() == 4:
            x = x.contiguous(memory_format=torch.channels_last)
        z = block(x, threads) if self.blocked else x
        ways = [
            (lambda z: twin.sparse(z, batch, self._stage_of(twin), threads, None)[0], z),
            (twin.dense, x),
        ]
        seconds = [math.inf, math.inf]
        with torch.set_grad_enabled(not frozen):
            for turn in range(repeats + 1):  # the first one warms up
                for i, (way, given) in enumerate(ways):
                    start = clock(threads)
                    out = way(given.detach().requires_grad_(not frozen))
                    if not frozen:
                        out.backward(torch.zeros_like(out))
                    if turn:
                        seconds[i] = min(seconds[i], clock(threads) - start)
        return seconds[0], seconds[1]

    def _stage_of(self, twin: "KernelUnit") -> GetStage:
        return lambda name, bn: replace(self.handle.stage(name, bn), conv=twin.convs[name])


class DenseUnit(Unit):
    """Modules that are run as they are."""

    def __init__(self, name: str, run: Callable[[Tensor], Tensor], modules: Iterable[nn.Module]) -> None:
        super().__init__(name, modules, {})
        self.run = run

    def dense(self, x: Tensor) -> Tensor:
        return self.run(x)


class ResidualUnit(KernelUnit):
    """A residual block of spfde or of torchvision; its shortcut is nothing, a 1x1 convolution, or padding.

    Args:
        depth: convolutions of the path: conv1, bn1, conv2, ...
        shortcut: name of the module that holds the shortcut's.
    """

    kind = "residual block"

    def __init__(self, name: str, module: Any, depth: int, shortcut: str) -> None:
        self.block, self.depth, self.shortcut = module, depth, shortcut
        self.found = self._parts()
        inner = {f"conv{i + 1}": self.found[2 * i] for i in range(depth)}
        if len(self.found) == 2 * depth + 2:
            inner[f"{shortcut}.0"] = self.found[-2]
        super().__init__(name, [module], {f"{name}.{key}" if name else key: conv for key, conv in inner.items()})

    def _parts(self) -> list[Any]:
        path = [getattr(self.block, f"{kind}{i + 1}") for i in range(self.depth) for kind in ("conv", "bn")]
        return [*path, *(getattr(self.block, self.shortcut) or ())]

    def intact(self) -> bool:
        now = self._parts()
        return len(now) == len(self.found) and all(one is other for one, other in zip(now, self.found, strict=True))

    def dense(self, x: Tensor) -> Tensor:
        return self.block(x)

    def twin(self) -> KernelUnit:
        return ResidualUnit(self.name, copy.deepcopy(self.block), self.depth, self.shortcut)

    def sparse(self, z: Tensor, batch: int, stage: GetStage, threads: int, before: Ending | None) -> Ended:
        stages = [stage(name, bn) for name, bn in zip(self.layers, self.found[1::2], strict=False)]
        shortcut: Stage | Padding | None = None
        if len(stages) > self.depth:
            shortcut = stages.pop()
        elif len(self.found) > 2 * self.depth:
            shortcut = Padding(self.found[-1].stride, self.found[-1].before)
        return Block(stages, shortcut, threads)(z, batch, before)


class ConvUnit(KernelUnit):
    """Convolution, BatchNorm and ReLU.

    Args:
        names: of the convolution and the BatchNorm.
        get: the two, and the ReLU where it is a module, as they are in the model now.
    """

    kind = "convolution"

    def __init__(self, names: tuple[str, str], get: Callable[[], tuple[Any, ...]]) -> None:
        self.names, self.get = names, get
        self.found = get()
        self.conv, self.bn = self.found[:2]
        super().__init__(names[0], self.found, {names[0]: self.conv})

    def intact(self) -> bool:
        return all(one is other for one, other in zip(self.get(), self.found, strict=True))

    def dense(self, x: Tensor) -> Tensor:
        return functional.relu(self.bn(self.conv(x)))

    def twin(self) -> KernelUnit:
        found = copy.deepcopy(self.found)
        return ConvUnit(self.names, lambda: found)

    def sparse(self, z: Tensor, batch: int, stage: GetStage, threads: int, before: Ending | None) -> Ended:
        return ConvBlock(stage(self.layers[0], self.bn), threads)(z, batch, before)


class LoneUnit(KernelUnit):
    """A masked convolution in surroundings that there are no kernels for: layouts are converted before and after it."""

    kind = "lone convolution"

    def __init__(self, name: str, module: Any) -> None:
        super().__init__(name, [], {name: module})  # hooks of the layer itself work, so it is not among the modules
        self.module = module

    def dense(self, x: Tensor) -> Tensor:
        return nn.Conv2d.forward(self.module, x)

    def sparse(self, z: Tensor, batch: int, stage: GetStage, threads: int, before: Ending | None) -> Ended:
        s = stage(self.name, None)
        return convolve(z, s.conv.weight, s.conv.bias, s.structure, s.positions, batch, threads), None

    def twin(self) -> KernelUnit:
        made = type(self)(self.name, copy.deepcopy(self.module))
        made.modules = [made.module]
        return made


class LinearUnit(LoneUnit):
    """A masked linear layer."""

    kind = "linear"
    blocked = False

    def dense(self, x: Tensor) -> Tensor:
        return nn.Linear.forward(self.module, x)

    def sparse(self, z: Tensor, batch: int, stage: GetStage, threads: int, before: Ending | None) -> Ended:
        s = stage(self.name, None)
        return linear(z, s.conv.weight, s.conv.bias, s.structure, s.positions, threads), None


class PoolUnit(SparseUnit):
    """Maximum over squares of 2x2 pixels; it runs in the layout of the unit before it."""

    kind = "pooling"

    def __init__(self, name: str, module: nn.Module) -> None:
        super().__init__(name, [module], {})
        self.module = module

    def dense(self, x: Tensor) -> Tensor:
        return self.module(x)

    def sparse(self, z: Tensor, batch: int, stage: GetStage, threads: int, before: Ending | None) -> Ended:
        return halve(z, batch, threads), None


def halves(module: Any) -> bool:
    """Whether a module is `nn.MaxPool2d(2)`."""
    return type(module) is nn.MaxPool2d and (
        module.kernel_size in (2, (2, 2))
        and module.stride in (2, (2, 2))
        and module.padding in (0, (0, 0))
        and module.dilation in (1, (1, 1))
        and not (module.ceil_mode or module.return_indices)
    )


def has_class(module: nn.Module, where: str, name: str) -> bool:
    """Whether a module is of this very class, with the forward pass that this class gives it.

    By name, because only who has imported the module's file can have one: torchvision takes a second to import.
    """
    found = getattr(sys.modules.get(where), name, None)
    return found is not None and type(module) is found and "forward" not in module.__dict__


def normalises(bn: nn.Module) -> bool:
    """Whether a module is a BatchNorm that the kernels can take along."""
    tensors = [*bn._parameters.values(), *bn._buffers.values()]
    return type(bn) is nn.BatchNorm2d and all(
        t is None or (t.device.type == "cpu" and (t.dim() == 0 or (t.is_contiguous() and t.dtype == torch.float32)))
        for t in tensors
    )


def can_run(conv: Any, bn: Any) -> bool:
    return supports(conv) and conv.bias is None and normalises(bn)


def residual_block(name: str, module: nn.Module) -> ResidualUnit | None:
    """The unit of a residual block, where it is one that there are kernels for."""
    if has_class(module, "spfde.models.resnet", "BasicBlock"):
        unit = ResidualUnit(name, module, 2, "shortcut")
    elif has_class(module, "torchvision.models.resnet", "BasicBlock"):
        unit = ResidualUnit(name, module, 2, "downsample")
    elif has_class(module, "torchvision.models.resnet", "Bottleneck"):
        unit = ResidualUnit(name, module, 3, "downsample")
    else:
        return None
    pairs = [part for part in unit.found if not has_class(part, "spfde.models.resnet", "PaddedShortcut")]
    fine = len(pairs) % 2 == 0 and all(can_run(*pairs[i : i + 2]) for i in range(0, len(pairs), 2))
    return unit if fine else None
