"""One forward pass of a network, operation by operation: which weight each of them multiplies, and how much work it is.

torch's dispatcher shows every operation, whether a layer was called or it came from `torch.nn.functional`, a matrix
product or attention. Each product of two tensors is classified by where the two come from:

* One is a layer's weight itself, or a view or a copy of it: this is the layer's work.
* Neither is, but the product happens inside a layer's own call: this is the layer's work too, with a weight that is
  computed (weight norm, standardisation). No mask on the parameter makes such a weight sparse.
* Any other product is one of activations (attention), or with a parameter that belongs to no layer. It is dense.
"""

from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from math import prod
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.graph import Node, get_gradient_edge
from torch.nn.modules.module import register_module_forward_hook, register_module_forward_pre_hook
from torch.utils import checkpoint
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from spfde.sparsity.layers import layers as find_layers

COPIES = {"clone", "_to_copy", "contiguous"}  # a copy of a weight has the weight's zeros
Product = tuple[int, Sequence[Tensor], Sequence[Tensor]]  # multiply-accumulates; what is upstream of each factor


@dataclass
class Work:
    """The multiplications in one place: with a layer's weight, or a product without one.

    Attributes:
        macs: multiply-accumulates of the whole batch.
        outputs, inputs: elements of the results, and of what a weight is multiplied by.
        left, right: nodes of the autograd graph that gave the two factors; `right` is the weight's, in a layer.
        direct: whether a layer's weight reached all its operations as the parameter itself.
        called: whether all of it happened in calls of the layer as a module.
    """

    macs: int = 0
    outputs: int = 0
    inputs: int = 0
    left: set[Node] = field(default_factory=set)
    right: set[Node] = field(default_factory=set)
    direct: bool = True
    called: bool = True


class Operations(TorchDispatchMode):
    """Watches the forward passes of a model, as a context.

    Attributes:
        layers: work of each layer, by qualified name; in definition order.
        products: each product without a layer, with the name of the parameter in it or of the module that did it.
        used: layers whose weight took part in anything.
        called: modules that were called, by qualified name.
        own: layer of each node of the autograd graph that came up while the layer was called.
    """

    def __init__(self, model: nn.Module, x: Tensor) -> None:
        super().__init__()
        found = find_layers(model)
        self.layers = {name: Work() for name in found}
        self.products: list[tuple[str, Work]] = []
        self.used: set[str] = set()
        self.called: set[str] = set()
        self.own: dict[Node, str] = {}
        trained = [p for p in model.parameters() if p.requires_grad and torch.is_grad_enabled()]
        self._leaves = {id(p): get_gradient_edge(p).node for p in trained}
        self._names = {module: name for name, module in model.named_modules()}
        self._stack: list[str] = []
        self._ends: set[Node] = set()
        # What each tensor is, by its storage. Storages are kept alive, so that a new one cannot be mistaken for an old
        # one.
        self._kept: list[Tensor] = [x]
        self._data = {_storage(x)}
        self._weight_of: dict[int, list[str]] = defaultdict(list)
        self._parameter_of = {_storage(parameter): name for name, parameter in model.named_parameters()}
        self._derived: dict[int, set[str]] = {}
        for name, layer in found.items():
            if (weight := layer._parameters.get("weight")) is not None:
                self._weight_of[_storage(weight)].append(name)

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Watches the operations of this thread's passes, and which module they happen in.

        It uses torch's global hooks, because hooks on the modules themselves would turn fused code paths off.
        """
        hooks = (
            register_module_forward_pre_hook(lambda module, _: self._enter(module)),
            register_module_forward_hook(lambda module, _, output: self._leave(module, output), always_call=True),
        )
        try:
            with self:
                yield
        finally:
            for hook in hooks:
                hook.remove()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        output = func(*args, **(kwargs or {}))
        inputs = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
        outputs = [leaf for leaf in tree_leaves(output) if isinstance(leaf, Tensor)]
        name = func._schema.name.removeprefix("aten::")
        if name in PRODUCTS and inputs:
            for product in PRODUCTS[name](args, outputs[0]):
                self._count(product, outputs[0])
        self._follow(name, func._schema.is_mutable, inputs, outputs)
        return output

    def _nodes(self, tensors: Sequence[Tensor]) -> set[Node]:
        """The graph nodes that made these tensors; below autograd a parameter cannot be asked for its own node."""
        found = {tensor.grad_fn or self._leaves.get(id(tensor)) for tensor in tensors if tensor.requires_grad}
        return {node for node in found if node is not None}

    def layers_of(self, tensor: Tensor) -> list[str]:
        """The layers whose weight this tensor is."""
        return self._weight_of.get(_storage(tensor), [])

    def _follow(self, name: str, mutable: bool, inputs: list[Tensor], outputs: list[Tensor]) -> None:
        """Notes what the outputs are: data, a copy of a weight, or computed from weights only."""
        self._kept += outputs
        sources = {_storage(tensor) for tensor in inputs}
        fresh = {_storage(tensor) for tensor in outputs} - sources
        weights = {layer for source in sources for layer in self._weight_of.get(source, ())}
        if fresh or mutable:
            self.used |= weights
        if sources & self._data:
            self._data |= fresh | (set() if not mutable else {_storage(tensor) for tensor in outputs})
        elif name in COPIES and weights:
            for storage in fresh:
                self._weight_of[storage] = sorted(weights)
        elif made_of := (weights if name not in PRODUCTS else set()).union(
            *(self._derived.get(source, set()) for source in sources)
        ):
            for storage in fresh:
                self._derived[storage] = made_of

    def _count(self, product: Product, output: Tensor) -> None:
        macs, left, right = product
        inside = self._stack[-1] if self._stack else ""
        sides = [[layer for tensor in side for layer in self.layers_of(tensor)] for side in (left, right)]
        for tensor in (*left, *right):
            for layer in self._derived.get(_storage(tensor), ()):
                self.layers[layer].direct = False
        if bool(sides[0]) != bool(sides[1]):
            if sides[0]:
                left, right, sides = right, left, sides[::-1]
            owner = inside if inside in sides[1] else sides[1][0]
            work = self.layers[owner]
            work.called &= owner == inside
        elif inside in self.layers:
            work = self.layers[inside]
            work.direct = False
        else:
            names = [self._parameter_of[_storage(t)] for t in (*left, *right) if _storage(t) in self._parameter_of]
            work = Work()
            self.products.append((names[0] if names else f"{inside}.products".removeprefix("."), work))
        work.macs += macs
        work.outputs += output.numel()
        work.inputs += sum(tensor.numel() for tensor in left)
        work.left |= self._nodes(left)
        work.right |= self._nodes(right)
        self._ends |= self._nodes(left)

    def _enter(self, module: nn.Module) -> None:
        if module in self._names:
            self._stack.append(self._names[module])
            self.called.add(self._names[module])

    def _leave(self, module: nn.Module, output: Any) -> None:
        if module not in self._names:
            return
        name = self._stack.pop()
        if name not in self.layers:
            return
        # A layer's own operations are the nodes between its output and its input: the walk goes back from the output
        # and stops at the nodes that made an input, at what another layer has claimed, and at parameters.
        stack = list(self._nodes([leaf for leaf in tree_leaves(output) if isinstance(leaf, Tensor)]))
        while stack:
            node = stack.pop()
            if node not in self._ends and node not in self.own and not hasattr(node, "variable"):
                self.own[node] = name
                stack += [before for before, _ in node.next_functions if before is not None]


def _matrices(args: Any, output: Tensor) -> list[Product]:
    a, b = args[-2:]
    return [(output.numel() * a.shape[-1], [a], [b])]


def _convolution(args: Any, output: Tensor) -> list[Product]:
    from fvcore.nn.jit_handles import conv_flop_count  # importing fvcore takes a second and warns

    x, weight, transposed = args[0], args[1], args[6]
    return [(int(conv_flop_count(list(x.shape), list(weight.shape), list(output.shape), transposed)), [x], [weight])]


def _attention(args: Any, output: Tensor) -> list[Product]:
    """Attention: queries times keys, and the result times values; q (..., L, E), k (..., S, E), v (..., S, Ev)."""
    q, k, v = args[:3]
    pairs = prod(q.shape[:-1]) * k.shape[-2]
    return [(pairs * q.shape[-1], [q], [k]), (pairs * v.shape[-1], [q, k], [v])]


PRODUCTS: dict[str, Callable[[Any, Tensor], list[Product]]] = {
    "mm": _matrices,
    "addmm": lambda args, output: _matrices(args[:3], output),
    "bmm": _matrices,
    "baddbmm": lambda args, output: _matrices(args[:3], output),
    "convolution": _convolution,
    "_scaled_dot_product_flash_attention_for_cpu": _attention,
    "_scaled_dot_product_flash_attention": _attention,
    "_scaled_dot_product_efficient_attention": _attention,
}


@contextmanager
def without_checkpointing() -> Iterator[set[str]]:
    """A context in which activation checkpointing does nothing, so that a pass shows the whole graph.

    Yields:
        The kinds of checkpointing that were asked for meanwhile: "reentrant", "other".
    """
    asked: set[str] = set()

    class Plain:
        @staticmethod
        def apply(function: Callable[..., Any], _: bool, *args: Any) -> Any:
            asked.add("reentrant")
            return function(*args)

    def plain(*_: Any, **__: Any) -> Iterator[None]:
        asked.add("other")
        yield

    generators = [name for name in vars(checkpoint) if name.startswith("_checkpoint_without_reentrant_generator")]
    replaced = {"CheckpointFunction": Plain, **dict.fromkeys(generators, plain)}
    before = {name: getattr(checkpoint, name) for name in replaced}
    try:
        for name, value in replaced.items():
            setattr(checkpoint, name, value)
        yield asked
    finally:
        for name, value in before.items():
            setattr(checkpoint, name, value)


def _storage(tensor: Tensor) -> int:
    return int(tensor.untyped_storage()._cdata)
