"""The parts of a network that run on sparse kernels as a whole, and how they are found in it."""

import math
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
from spfde.kernels.table import clock
from spfde.kernels.trial import copied

GetStage = Callable[[str, Any], Stage]  # layer and its BatchNorm, if it has one
Ended = tuple[Tensor, Ending | None]
Shape = tuple[int, ...]  # of one sample


class Unit(ABC):
    """A part of a network, and the dense way to run it.

    Attributes:
        name: of its module in the model.
        kind: what it is, for people.
        modules: those whose place the kernels take; none in a part that runs dense alone.
        convs: its convolutions (or its linear layer) by layer name; likewise.
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
    def takes(self, shape: Shape) -> bool:
        """Whether kernels can run on samples of this shape; where they cannot, torch raises an error or broadcasts."""

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
        bare: its convolutions have no bias.
    """

    bare = True
    handle: Any = None
    input_shape: Shape = ()
    taken: Shape | None = None  # a shape that fits the weights as they are

    def takes(self, shape: Shape) -> bool:
        if shape != self.taken:
            if not self.fits(shape):
                return False
            self.taken = shape
        return True

    @abstractmethod
    def fits(self, shape: Shape) -> bool:
        """As `takes`, by the shapes of all weights."""

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
            RuntimeError: no forward pass has told the shape of the input yet; the modules cannot be copied, or have
                changed so that there are no kernels for them.
        """
        if not self.input_shape:
            raise RuntimeError(f"the shape of the input of {self.name} is not known before a forward pass")
        if not (self.handle.reads(self) and self.takes(self.input_shape)):
            raise RuntimeError(f"there are no kernels for {self.name} as it is now")
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
    """Modules that are run as they are, by their own calls."""

    def __init__(self, name: str, run: Callable[[Tensor], Tensor]) -> None:
        super().__init__(name, [], {})
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
        self.plain = type(module)
        path = [getattr(module, f"{kind}{i + 1}") for i in range(depth) for kind in ("conv", "bn")]
        self.found = [*path, *(getattr(module, shortcut) or ())]
        inner = {f"conv{i + 1}": self.found[2 * i] for i in range(depth)}
        if len(self.found) == 2 * depth + 2:
            inner[f"{shortcut}.0"] = self.found[-2]
        super().__init__(name, [module], {f"{name}.{key}" if name else key: conv for key, conv in inner.items()})

    def fits(self, shape: Shape) -> bool:
        path, beside = self.found[: 2 * self.depth], self.found[2 * self.depth :]
        end: Shape | None = shape
        for conv, bn in zip(path[::2], path[1::2], strict=True):
            end = end and _after(conv, bn, end)
        if end is None or not beside:
            return end == shape
        if len(beside) == 2:
            return end == _after(beside[0], beside[1], shape)
        (padding,) = beside
        around = padding.before, padding.after
        return min(around) >= 0 and end == (shape[0] + sum(around), *_strided(shape[1:], padding.stride))

    def dense(self, x: Tensor) -> Tensor:
        return self.plain.forward(self.block, x)  # the block's own class may be one whose forward pass brought us here

    def twin(self) -> KernelUnit:
        return ResidualUnit(self.name, copied(self.block), self.depth, self.shortcut)

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
        name: of the convolution.
        found: the two, and the ReLU where it is a module.
    """

    kind = "convolution"

    def __init__(self, name: str, found: tuple[Any, ...]) -> None:
        self.found = found
        self.conv, self.bn = found[:2]
        super().__init__(name, found, {name: self.conv})

    def fits(self, shape: Shape) -> bool:
        return _after(self.conv, self.bn, shape) is not None

    def dense(self, x: Tensor) -> Tensor:
        return functional.relu(self.bn(self.conv(x)))

    def twin(self) -> KernelUnit:
        return ConvUnit(self.name, copied(self.found))

    def sparse(self, z: Tensor, batch: int, stage: GetStage, threads: int, before: Ending | None) -> Ended:
        return ConvBlock(stage(self.layers[0], self.bn), threads)(z, batch, before)


class LoneUnit(KernelUnit):
    """A masked convolution in surroundings that there are no kernels for: layouts are converted before and after it."""

    kind = "lone convolution"
    bare = False

    def __init__(self, name: str, module: Any) -> None:
        super().__init__(name, [module], {name: module})
        self.module = module

    def fits(self, shape: Shape) -> bool:
        return _after(self.module, None, shape) is not None

    def dense(self, x: Tensor) -> Tensor:
        return nn.Conv2d.forward(self.module, x)

    def sparse(self, z: Tensor, batch: int, stage: GetStage, threads: int, before: Ending | None) -> Ended:
        s = stage(self.name, None)
        return convolve(z, s.conv.weight, s.conv.bias, s.structure, s.positions, batch, threads), None

    def twin(self) -> KernelUnit:
        return type(self)(self.name, copied(self.module))


class LinearUnit(LoneUnit):
    """A masked linear layer."""

    kind = "linear"
    blocked = False

    def fits(self, shape: Shape) -> bool:
        return shape[-1:] == self.module.weight.shape[1:]

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

    def takes(self, shape: Shape) -> bool:
        return len(shape) == 3 and min(shape[1:]) >= 2

    def dense(self, x: Tensor) -> Tensor:
        return self.module(x)

    def sparse(self, z: Tensor, batch: int, stage: GetStage, threads: int, before: Ending | None) -> Ended:
        return halve(z, batch, threads), None


def _strided(size: Shape, stride: int) -> Shape:
    return tuple((side - 1) // stride + 1 for side in size)


def _after(conv: Any, bn: Any, shape: Shape) -> Shape | None:
    """The shape of a sample behind a convolution and its BatchNorm; none where it does not fit them."""
    outputs, inputs, *_ = conv.weight.shape
    if len(shape) != 3 or shape[0] != inputs or conv.out_channels != outputs:
        return None
    if bn is not None and bn.num_features != outputs:
        return None
    return (outputs, *_strided(shape[1:], conv.stride[0]))


def normalises(bn: nn.Module) -> bool:
    """Whether the tensors of a BatchNorm are such as the kernels read."""
    state = vars(bn)
    parameters, buffers, channels = state["_parameters"], state["_buffers"], state["num_features"]
    return all(
        t is None or (t.dtype is torch.float32 and t.is_cpu and t.is_contiguous() and t.numel() == channels)
        for t in (
            parameters.get("weight"),
            parameters.get("bias"),
            buffers.get("running_mean"),
            buffers.get("running_var"),
        )
    )
