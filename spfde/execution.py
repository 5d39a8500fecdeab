"""Which kernels the steps of a training run on: dense ones under masks, or sparse ones that skip the zeros.

Sparse kernels exist for CPUs. Whatever can run on them (a residual block, a convolution, a linear layer) is a unit of
`spfde.kernels`. "sparse" and "dense" choose one kind of kernel for all units; "auto" chooses for each unit the faster
kind, by times that are measured once per machine and density. The parameters of the model are not changed.
"""

import contextlib
import functools
import json
import math
import os
import warnings
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Literal, get_args

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from spfde import kernels
from spfde.errors import SpfdeError, nearest
from spfde.kernels.convolution import Watcher
from spfde.kernels.table import Table, clock, compare, processor
from spfde.kernels.trial import copied, unnoticed
from spfde.methods import Method
from spfde.sparsity.masks import Masks

Wanted = Literal["auto", "dense", "sparse"]
WORTH = 1.03  # sparse kernels are chosen where dense ones take at least this many times as long
_said: set[str] = set()


class Execution:
    """The kernels of one training.

    Args:
        model: the network.
        masks: the masks of its sparse layers.
        method: says which steps need the gradients outside the masks, and whether it can have sparse kernels at all.
        wanted: "auto", "dense" or "sparse"; the environment variable SPFDE_KERNELS takes the place of "auto".
        batch: samples per step, for timing.
        input_shape: shape of one input, for timing.
        table: where measured times are kept; by default in the user's cache folder.

    Attributes:
        wanted: what was asked for.
        choices: "sparse" or "dense" for each unit; empty where all steps are dense.

    Raises:
        SpfdeError: `wanted` is none of the three, or "sparse" where sparse kernels were not built.
    """

    def __init__(
        self,
        model: nn.Module,
        masks: Masks,
        method: Method,
        wanted: str,
        batch: int,
        input_shape: tuple[int, ...],
        table: Table | None = None,
    ) -> None:
        wanted = os.environ.get("SPFDE_KERNELS", wanted) if wanted == "auto" else wanted
        if wanted not in get_args(Wanted):
            raise SpfdeError(f'unknown kernels "{wanted}"', nearest(wanted, get_args(Wanted)))
        if wanted == "sparse" and not kernels.available():
            cause = f"sparse kernels are wanted, and there are none here: {kernels.status().reason}"
            raise SpfdeError(cause, 'take kernels="auto", which is dense then')
        self.model, self.masks, self.method, self.wanted = model, masks, method, wanted
        self.batch, self.input_shape = batch, tuple(input_shape)
        self._table = table
        self._handle: Any = None
        self._modules: list[nn.Module] = []  # that the units are named after, as they were when the kernels came
        self._seen: dict[str, int] = {}  # mask changes of each layer that the kernels know of
        self._frozen: tuple[bool, ...] = ()  # of each unit, in this epoch
        self._stale = True  # the choice is of other frozen units
        self._decided: dict[str, str] = {}  # by what was timed
        self._loaded: list[str] = []  # choices of the checkpoint, until the next mask update
        self.choices: dict[str, str] = {}
        self._layers: dict[frozenset[str], Tensor] = {}

    def begin(self, step: int) -> None:
        """Prepares an epoch: masks, frozen blocks and modules may have changed since the last one."""
        if self._handle and not self._intact():
            self.detach()
        if not self._handle:
            self._attach()
        if self._handle:
            frozen = tuple(_frozen(unit.modules) for unit in self._handle.units)
            self._stale, self._frozen = self._stale or frozen != self._frozen, frozen
        self.prepare(step)

    def prepare(self, step: int) -> None:
        """Prepares the forward passes of a step: masks may have changed since the last one."""
        if not self._handle:
            return
        moved = [layer.name for layer in self.masks if self._seen[layer.name] != layer.changes]
        if moved:
            self._handle.rebuild(moved)
            self._seen = {layer.name: layer.changes for layer in self.masks}
        if self.wanted == "auto" and len(self._loaded) == len(self._modules):
            self._choose(self._loaded)
        elif self.wanted == "auto" and (moved or self._stale):
            self._choose(self._faster())
        self._stale, self._loaded = False, []
        self._handle.dense = self.method.needs_dense_gradient_at(step)

    @property
    def executed(self) -> Tensor | None:
        """Which of the masked layers skipped their zeros in the last forward pass, (layers,) booleans, if any did."""
        if not self._handle:
            return None
        names = frozenset(self._handle.executed)
        if names not in self._layers:
            self._layers[names] = torch.tensor([layer.name in names for layer in self.masks])
        return self._layers[names]

    @property
    def executed_layers(self) -> set[str]:
        """Names of the layers that skipped their zeros in the last forward pass."""
        return set(self._handle.executed) if self._handle else set()

    @property
    def skips_zeros(self) -> bool:
        """Whether the next forward pass is going to skip zeros anywhere."""
        handle = self._handle
        return bool(handle) and not handle.dense and "sparse" in self.choices.values() and not handle.problems()

    @contextlib.contextmanager
    def sample(self, extra: Mapping[str, Tensor]) -> Iterator[None]:
        """A context in which passes that skip zeros also compute the gradients at these places, by layer name.

        Units on dense kernels have all gradients anyway.
        """
        with self._handle.sample(extra) if self._handle else contextlib.nullcontext():
            yield

    @contextlib.contextmanager
    def watch(self, watchers: Mapping[str, Watcher]) -> Iterator[None]:
        """A context in which watchers see the inputs of their layers, by name, and the gradients of their outputs."""
        hooks = [self.model.get_submodule(name).register_forward_hook(one.hook) for name, one in watchers.items()]
        try:
            with self._handle.watch(watchers) if self._handle else contextlib.nullcontext():
                yield
        finally:
            for hook in hooks:
                hook.remove()

    def detach(self) -> None:
        """Makes the modules plain ones again."""
        if self._handle:
            self._handle.detach()
        self._handle = None

    @property
    def identity(self) -> dict[str, Any]:
        """What can change the last bits of a result."""
        status = kernels.status()
        return (
            {"wanted": self.wanted, "isa": status.isa, "digest": status.digest} if self._able else {"wanted": "dense"}
        )

    def describe(self) -> dict[str, Any]:
        """What a record says of the kernels: `identity`, and how many units were sparse and dense at the end."""
        chosen = list(self.choices.values())
        return {**self.identity, "sparse": chosen.count("sparse"), "dense": chosen.count("dense")}

    def _attach(self) -> None:
        if not self._able:
            return
        if refused := self._refused():
            say(refused)
            return
        self._handle = kernels.attach(self.model, {layer.name: layer.mask for layer in self.masks})
        self._modules = [self.model.get_submodule(unit.name) for unit in self._handle.units]
        self._seen = {layer.name: layer.changes - 1 for layer in self.masks}
        self._frozen = ()
        self._choose(["sparse"] * len(self._modules))
        if self.wanted == "auto":
            try:
                with unnoticed():
                    self._handle.trace_shapes(self._input(2))
            except Exception as why:  # whatever a user's model answers with
                say(f"the model cannot be timed: {why}")
                self.detach()
                self.choices = {}

    def _intact(self) -> bool:
        """Whether the model still has the modules to which the kernels were attached."""
        known = dict(self.model.named_modules())
        same = all(known.get(unit.name) is old for unit, old in zip(self._handle.units, self._modules, strict=True))
        return same and self._handle.intact()

    @property
    def _able(self) -> bool:
        return self.wanted != "dense" and len(self.masks) > 0 and kernels.available()

    def _refused(self) -> str:
        """The reason why this training cannot have sparse kernels, or None."""
        device = next(self.model.parameters()).device
        if device.type != "cpu":
            return f"sparse kernels are for CPUs, and the model is on {device.type}"
        if other := {str(p.dtype) for p in self.model.parameters()} - {"torch.float32"}:
            return f"sparse kernels are for torch.float32, and the model has weights of {', '.join(sorted(other))}"
        return self.method.dense_kernels and f"{self.method.name} needs dense ones: {self.method.dense_kernels}"

    # what is faster

    def _choose(self, choices: list[str]) -> None:
        units = self._handle.units
        self.choices = {unit.name: choice for unit, choice in zip(units, choices, strict=True)}
        self._handle.choose(self.choices)

    def _faster(self) -> list[str]:
        """The faster kernels of each unit; dense ones for all units if the mixture is not faster than that."""
        units = list(zip(self._handle.units, self._frozen, strict=True))
        works = [self._work(unit, still) for unit, still in units]
        for work, (unit, still) in zip(works, units, strict=True):
            if work not in self._decided:
                self._decide(work, functools.partial(unit.measure, self.batch, repeats=1, frozen=still))
        choices = [self._decided.get(work, "dense") for work in works]
        if "sparse" not in choices:
            return choices
        whole = json.dumps([*works, choices])
        if whole not in self._decided:
            images = self._input(self.batch)
            try:
                with unnoticed(), _trial(self.model, self._handle, choices, self.masks) as run:
                    self._decide(whole, lambda: (_seconds(run, "sparse", images), _seconds(run, "dense", images)))
            except Exception as why:  # whatever a user's model answers with
                say(f"the model cannot be timed: {why}")
        return choices if self._decided.get(whole) == "sparse" else ["dense"] * len(choices)

    def _decide(self, work: str, pair: Any) -> None:
        """Looks up the times of this work, or measures them; if they never settle, dense is chosen, and not kept."""
        table = self._table = self._table or Table(machine(), None)
        times = table.find(work)
        if times is None:
            try:
                with unnoticed():
                    times = compare(pair)
            except RuntimeError:  # what cannot be timed is not run either
                return
            if times is None:
                return
            table.keep(work, times)
        self._decided[work] = "sparse" if times.dense > WORTH * times.sparse else "dense"

    def _work(self, unit: Any, frozen: bool) -> str:
        """The key of a unit's work: all that its time depends on, with densities rounded to half powers of two."""
        layers = []
        for name in unit.layers:
            layer, masked = self.model.get_submodule(name), self.masks.layers.get(name)
            density = float(masked.count) / masked.mask.numel() if masked else 1.0
            halves = round(2 * math.log2(density)) / 2 if density else -math.inf
            layers.append(f"{layer.extra_repr()} at 2^{halves:g}")
        size = "x".join(map(str, unit.input_shape))
        return f"{unit.kind} ({'; '.join(layers)}) on {self.batch}x{size}{', frozen' * frozen}"

    def _input(self, samples: int) -> Tensor:
        return torch.randn((samples, *self.input_shape), generator=torch.Generator().manual_seed(0))

    # resuming

    def state_dict(self) -> dict[str, Tensor]:
        told = {"choices": list(self.choices.values()), "decided": self._decided}
        return {"json": torch.frombuffer(bytearray(json.dumps(told).encode()), dtype=torch.uint8)}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Restores the checkpoint's choices, which hold from `begin` on; not if all kernels are to be of one kind."""
        told = json.loads(bytes(state["json"].tolist()))
        self._decided, self._loaded = told["decided"], told["choices"]


def say(why: str) -> None:
    """Says, once per process, why training runs on dense kernels though it might have run on sparse ones."""
    if why not in _said:
        _said.add(why)
        warnings.warn(f"training runs on dense kernels: {why}", stacklevel=3)


def machine() -> dict[str, object]:
    """What measured times depend on beside the work."""
    status = kernels.status()
    return {
        "processor": processor(),
        "instruction set": status.isa,
        "kernels": status.digest,
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
    }


def _frozen(modules: Iterable[nn.Module]) -> bool:
    return not any(p.requires_grad for module in modules for p in module.parameters(recurse=False))


@contextlib.contextmanager
def _trial(model: nn.Module, handle: Any, choices: list[str], masks: Masks) -> Iterator[Any]:
    """A copy of the network whose whole steps can be timed, on the chosen kernels or on dense ones only."""
    network = copied(model)
    trial = kernels.attach(network, {layer.name: layer.mask for layer in masks})
    chosen = dict(zip([unit.name for unit in handle.units], choices, strict=True))
    mixed = {name: chosen.get(name, "dense") for name in trial.choices}

    def run(kind: str, images: Tensor) -> None:
        trial.choose(mixed if kind == "sparse" else dict.fromkeys(mixed, "dense"))
        outputs = [leaf for leaf in tree_leaves(network(images)) if isinstance(leaf, Tensor) and leaf.requires_grad]
        torch.autograd.backward([output.float().square().mean() for output in outputs])
        network.zero_grad()

    with torch.enable_grad():
        yield run
    trial.detach()


def _seconds(run: Any, kind: str, images: Tensor) -> float:
    threads = torch.get_num_threads()
    start = clock(threads)
    run(kind, images)
    return clock(threads) - start
