"""Putting sparse kernels under a model that knows nothing of them, and taking them away again."""

import functools
import warnings
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn.modules import module as torch_module

from spfde.errors import SpfdeError, nearest
from spfde.kernels import networks
from spfde.kernels.block import Stage
from spfde.kernels.blocked import block, unblock
from spfde.kernels.convolution import Watcher
from spfde.kernels.library import library
from spfde.kernels.pool import mean
from spfde.kernels.structure import Structure
from spfde.kernels.trial import copied
from spfde.kernels.units import KernelUnit, SparseUnit, Unit, normalises

Choice = Literal["sparse", "dense"]


def attach(model: nn.Module, masks: Mapping[str, Tensor], threads: int | None = None) -> "Handle":
    """Makes the parts of a model that there are kernels for skip the zeros, until `detach`.

    The class of those parts becomes a subclass of their own with another forward pass. Parameters, buffers, the keys of
    `state_dict`, `isinstance`, hooks of the model and optimizers are as before; copies and pickles are plain modules.
    What sparse kernels cannot do runs dense, with one warning a reason (`Handle.problems`).

    Args:
        model: on the CPU, in float32.
        masks: of layers by module name: tensors of the weights' shape that are not 0 where weights are active. They are
            read here and in `Handle.rebuild`. All weights of a layer that is not named are active.
        threads: to work with; as many as torch has unless given.

    Raises:
        SpfdeError: there are no kernels, or a mask is of no layer.
    """
    library()
    return Handle(model, masks, threads)


class Handle:
    """Sparse kernels under a model.

    Attributes:
        units: the parts that can run sparse, in forward order.
        choices: how each unit runs, by name.
        dense: all of them run dense, for a step that needs dense gradients.
        threads: to work with; none: as many as torch has.
        executed: layers that ran sparse in the last forward pass.
    """

    def __init__(self, model: nn.Module, masks: Mapping[str, Tensor], threads: int | None) -> None:
        self.model = model
        self.masks = masks
        self.threads = threads
        self.dense = False
        self.executed: set[str] = set()
        known = dict(model.named_modules())
        for name in masks:
            if name not in known:
                raise SpfdeError(f'the model has no layer "{name}" for a mask', nearest(name, known))
        found = networks.find(model, masks)
        self._networks = list(found.values())
        self.units = [unit for network in self._networks for unit in network.sparse]
        self.choices: dict[str, Choice] = {unit.name: "sparse" for unit in self.units}
        self._convs = {name: conv for unit in self.units for name, conv in unit.convs.items()}
        self._structures: dict[str, Structure] = {}
        self._samples: dict[str, Structure] = {}
        self._watchers: Mapping[str, Watcher] = {}
        self._warned: set[str] = set()
        for unit in self.units:
            unit.handle = self
        self.rebuild()
        self._swapped = [(known[name], type(known[name])) for name in found]
        for name, network in found.items():
            _swap(known[name], self, network)

    def detach(self) -> None:
        """Gives the plain modules back."""
        for module, plain in self._swapped:
            module.__class__ = plain
        self._swapped = []

    def choose(self, choices: Mapping[str, Choice]) -> None:
        """Sets how units run, by name.

        Raises:
            SpfdeError: no such unit or choice.
        """
        for name, choice in choices.items():
            if name not in self.choices:
                raise SpfdeError(f'there is no unit "{name}"', nearest(name, self.choices))
            if choice not in ("sparse", "dense"):
                raise SpfdeError(f'a unit cannot run "{choice}"', nearest(choice, ("sparse", "dense")))
        self.choices.update(choices)

    def rebuild(self, layers: Iterable[str] | None = None) -> None:
        """Takes over masks that have changed: of the layers named, or all. Layers without kernels are passed by."""
        for name in self._convs if layers is None else layers:
            if name in self._convs:
                self._structures[name] = self._structure(name, self.masks.get(name))
        for unit in self.units:
            unit.taken = None

    def _structure(self, name: str, mask: Tensor | None) -> Structure:
        conv = self._convs[name]
        return Structure(conv.weight, conv.stride[0] if isinstance(conv, nn.Conv2d) else 1, mask)

    @contextmanager
    def dense_step(self) -> Iterator[None]:
        """Forward passes inside run dense, so that their gradients are dense."""
        before, self.dense = self.dense, True
        try:
            yield
        finally:
            self.dense = before

    @contextmanager
    def sample(self, extra: Mapping[str, Tensor]) -> Iterator[None]:
        """Forward passes inside have weight gradients at further positions, which are exact; others stay 0.

        Args:
            extra: by layer name, booleans of the weight's shape, or flat positions (int64). Layers without kernels are
                passed by: they run dense, and have all gradients anyway.
        """
        before, self._samples = self._samples, dict(self._samples)
        for name, positions in extra.items():
            if name in self._convs:
                mask = self._structures[name].mask.clone()
                if positions.dtype == torch.bool:
                    mask |= positions.view(mask.shape)
                else:
                    mask.view(-1)[positions] = True
                self._samples[name] = self._structure(name, mask)
        try:
            yield
        finally:
            self._samples = before

    @contextmanager
    def watch(self, watchers: Mapping[str, Watcher]) -> Iterator[None]:
        """Inside, watchers see the operands of their layers, by name, in units whose modules are not called themselves.

        Hooks on the modules, which see those of the other layers, are no reason to run dense meanwhile.
        """
        self._watchers = watchers
        try:
            yield
        finally:
            self._watchers = {}

    def problems(self, x: Tensor | None = None) -> list[str]:
        """Why the next forward pass (of the input x) would run dense; nothing where it would not."""
        return self._problems(self._networks, x)

    def _problems(self, asked: list[networks.Network], x: Any) -> list[str]:
        found: list[str] = []
        if torch.compiler.is_compiling():
            return ["the model is compiled"]  # nothing of what follows is to be part of the graph
        if torch.jit.is_tracing() or torch._C._len_torch_dispatch_stack():
            found.append("the model is traced")
        if torch._C._are_functorch_transforms_active():
            found.append("a transform of torch.func is active")
        if torch.is_autocast_enabled("cpu"):
            found.append("autocast is on")
        elif isinstance(x, Tensor) and not _plain(x):
            found.append(f"the input is of {x.dtype} on {x.device}")
        if any(network.covered.modules for network in asked) and _hooks_of_all_modules():
            found.append("there is a hook of all modules")
        if not self._watchers and any(network.covered.hooked for network in asked):
            found.append("a layer inside has a hook")
        if not all(network.covered.intact for network in asked):
            found.append("a layer was replaced or changed")
        if not found and not (
            all(self.reads(unit) for network in asked for unit in network.sparse)
            and all(normalises(bn) for network in asked for bn in network.norms)
        ):
            found.append("a weight or a BatchNorm is no dense tensor of torch.float32 on the CPU any more")
        return found

    def reads(self, unit: KernelUnit) -> bool:
        """Whether kernels can read the weights of a unit as they are now."""
        for name, conv in unit.convs.items():
            parameters = vars(conv)["_parameters"]
            if not self._structures[name].reads(parameters.get("weight")):
                return False
            if unit.bare and parameters.get("bias") is not None:
                return False
        return True

    def intact(self) -> bool:
        """Whether the modules that the kernels cover are those that were found."""
        return all(network.covered.intact for network in self._networks)

    def runs_dense(self, network: networks.Network, x: Any) -> bool:
        """Whether this forward pass of a network must run dense; says why, once a reason.

        Args:
            x: the input; none where there is another number of them, or a keyword.
        """
        self.executed -= network.layers
        if self.dense or all(self.choices[unit.name] == "dense" for unit in network.sparse):
            return True
        found = self._problems([network], x)
        if not isinstance(x, Tensor):
            found.append("the input is not one tensor, given without a keyword")
        if found:
            for problem in set(found) - self._warned:
                self._warned.add(problem)
                warnings.warn(f"sparse kernels are not used: {problem}; dense kernels are", stacklevel=4)
            return True
        return not x.numel() or (x.dim() != 4 and network.sparse[0].blocked)

    def trace_shapes(self, x: Tensor) -> None:
        """Learns the shapes of the units' inputs from a forward pass of a copy of the model.

        Raises:
            RuntimeError: the model cannot be copied.
        """
        model = copied(self.model).eval()
        twin = Handle(model, dict(self.masks), self.threads)
        with torch.no_grad():
            model(x)
        shapes = {unit.name: unit.input_shape for unit in twin.units}  # a copy may have more: its weights are no views
        for unit in self.units:
            unit.input_shape = shapes.get(unit.name, ())

    def stage(self, name: str, bn: Any) -> Stage:
        """A layer with the structure it has at the moment."""
        conv, structure = self._convs[name], self._structures[name]
        if not structure.fits(conv.weight):  # another memory format, for example
            self.rebuild([name])
            structure = self._structures[name]
        self.executed.add(name)
        return Stage(conv, bn, structure, self._samples.get(name, structure), self._watchers.get(name))

    def run(self, units: list[Unit], x: Tensor, pooled: bool) -> Tensor:
        """Runs units one after the other; the layout changes only where a dense and a sparse unit meet."""
        batch, threads = len(x), self.threads or torch.get_num_threads()
        blocked, end = False, None
        for unit in units:
            if isinstance(unit, SparseUnit) and self._runs_sparse(unit, x, blocked):
                if unit.blocked and not blocked:
                    batch, x, blocked = len(x), block(x, threads), True
                x, end = unit.sparse(x, batch, self.stage, threads, end)
            else:
                x = unit.dense(unblock(x, batch, threads) if blocked else x)
                blocked, end = False, None
        if pooled:
            return mean(x, batch, threads) if blocked else x.mean((2, 3))
        return unblock(x, batch, threads) if blocked else x

    def _runs_sparse(self, unit: SparseUnit, x: Tensor, blocked: bool) -> bool:
        shape = (x.shape[2], x.shape[1], x.shape[3]) if blocked else tuple(x.shape[1:])
        if isinstance(unit, KernelUnit):
            unit.input_shape = shape
            chosen = self.choices[unit.name] == "sparse"
        else:  # one without weights goes on in the layout that it finds
            chosen = blocked
        return chosen and (blocked or _plain(x)) and unit.takes(shape)


def _plain(x: Tensor) -> bool:
    return x.dtype is torch.float32 and x.is_cpu and type(x) is Tensor


def _hooks_of_all_modules() -> bool:
    return bool(
        torch_module._global_forward_hooks
        or torch_module._global_forward_pre_hooks
        or torch_module._global_backward_hooks
        or torch_module._global_backward_pre_hooks
    )


def _new(plain: Any) -> Any:
    """As `copyreg.__newobj__`, which pickle allows for an object's own class alone."""
    return plain.__new__(plain)


def _swap(module: nn.Module, handle: Handle, network: networks.Network) -> None:
    """Gives a module a class of its own; copies and pickles name the plain class."""
    plain = type(module)

    @functools.wraps(plain.forward)
    def forward(self: nn.Module, *args: Any, **kwargs: Any) -> Tensor:
        x: Any = args[0] if len(args) == 1 and not kwargs else None
        if self is not module or handle.runs_dense(network, x):
            return plain.forward(self, *args, **kwargs)
        return network.forward(self, lambda x, pooled: handle.run(network.units, x, pooled), x)

    def reduce(self: nn.Module, protocol: Any) -> Any:
        made: Any = plain.__reduce_ex__(self, protocol)  # (function, arguments, state ...), the class an argument
        function = _new if made[0].__name__ == "__newobj__" else made[0]
        return function, tuple(plain if argument is type(self) else argument for argument in made[1]), *made[2:]

    members = {"forward": forward, "__reduce_ex__": reduce, "__module__": plain.__module__, "__doc__": plain.__doc__}
    module.__class__ = type(plain.__name__, (plain,), members)
