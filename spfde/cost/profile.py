"""What a network costs: multiply-accumulates, elements and saved activations of its layers, counted without training.

fvcore counts the multiply-accumulates (one each) and the output elements of convolutions and linear layers, and of
nothing else: attention's products of activations have no weights that could be sparse, and stay uncounted. Autograd's
own graph of one forward pass tells which parameters are upstream of which layer and what is saved for the backward
pass. From this follows what is left of the backward pass and its memory when leading blocks are frozen.
"""

import copy
import warnings
from collections import Counter, defaultdict
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.autograd.graph import Node, get_gradient_edge
from torch.utils._pytree import tree_leaves

from spfde.errors import SpfdeError
from spfde.models.blocks import Block
from spfde.models.blocks import blocks as find_blocks
from spfde.sparsity.layers import layers as find_layers

COUNTED = ("conv", "linear", "addmm")  # what fvcore calls the operations of the layers
BATCH = 2  # BatchNorm in training mode refuses a single value per channel


@dataclass(frozen=True)
class LayerProfile:
    """One convolution or linear layer; counts are for one sample.

    Attributes:
        name: qualified name of the module.
        kind: "conv" or "linear".
        macs: multiply-accumulates of the dense forward pass.
        weights: elements of the weight tensor.
        output_elements: elements of its output.
        input_elements: elements of its input.
        block: index of its freezing block; the number of blocks where it is in none.
        input_block: the last freezing block with parameters upstream of its input; -1 where it reads the network's
            input alone, the number of blocks where parameters outside all blocks are upstream.
    """

    name: str
    kind: str
    macs: int
    weights: int
    output_elements: int
    input_elements: int
    block: int
    input_block: int


@dataclass(frozen=True)
class Profile:
    """A network's layers in definition order, and what it keeps in memory.

    With k leading blocks frozen, a layer is frozen if its block < k, and its input gradient is computed if its
    input_block >= k.

    Attributes:
        layers: all convolution and linear layers; one that is never called as a module (the projections inside
            torch's attention) costs nothing here.
        blocks: number of freezing blocks.
        parameters: all parameters of the network.
        trainable: parameters that still train, by number of frozen leading blocks, 0 to `blocks`.
        saved_bytes: activations (fp32) that autograd saves for backward on the CPU, in bytes per sample, by number of
            frozen leading blocks; a saved input batch is in it, the loss function's own tensors are not. An upper bound
            where trained parameters (a class token) are upstream of frozen blocks.
        kept_inputs: who keeps what layers read. Each entry has the layers that save the same tensor (positions in
            `layers`), the number of frozen leading blocks from which on they alone do (elsewhere ReLU or BatchNorm
            saves it too), and its bytes per sample.
    """

    layers: tuple[LayerProfile, ...]
    blocks: int
    parameters: int
    trainable: tuple[int, ...]
    saved_bytes: tuple[int, ...]
    kept_inputs: tuple[tuple[tuple[int, ...], int, int], ...] = ()


def profile(model: nn.Module, input_shape: tuple[int, ...], blocks: list[Block] | None = None) -> Profile:
    """Profiles a network in training mode, on a copy: whatever is frozen or hooked in the model does not matter.

    Args:
        model: any module that takes one tensor of shape (batch, *input_shape).
        input_shape: shape of one sample, e.g. (3, 32, 32).
        blocks: freezing blocks in forward order; by default those found in the module tree.

    Raises:
        SpfdeError: the model does not run on such an input, or has no layers.
    """
    blocks = find_blocks(model) if blocks is None else blocks
    if not find_layers(model):
        raise SpfdeError("the model has no convolution or linear layer", "give a network that has some")
    with torch.enable_grad(), torch.random.fork_rng(devices=[]):
        try:
            bare = _bare_copy(model)
            macs, outputs = _count(bare, torch.zeros(BATCH, *input_shape))
            graph = _Graph(bare, torch.zeros(BATCH, *input_shape), blocks)
            twice = _Graph(bare, torch.zeros(2 * BATCH, *input_shape), blocks)
        except Exception as error:
            why = str(error).partition("\n")[0] or type(error).__name__
            cause = f"the model does not run on an input of shape {tuple(input_shape)}: {why}"
            raise SpfdeError(cause, "give the shape of one sample: (channels, height, width) for images") from error
    found = tuple(
        LayerProfile(
            name=name,
            kind="linear" if isinstance(layer, nn.Linear) else "conv",
            macs=macs[name],
            weights=layer.weight.numel(),
            output_elements=outputs[name],
            input_elements=graph.input_elements[name] // BATCH,
            block=min(graph.block[parameter] for parameter in layer.parameters()),
            input_block=graph.input_block[name],
        )
        for name, layer in find_layers(bare).items()
    )
    frozen = range(len(blocks) + 1)
    trainable = tuple(sum(p.numel() for p, block in graph.block.items() if block >= k) for k in frozen)
    saved = tuple((twice.saved_bytes(k) - graph.saved_bytes(k)) // BATCH for k in frozen)  # what grows with the batch
    grown = twice.kept_inputs() - graph.kept_inputs()
    kept = tuple((keepers, alone, size // BATCH) for (keepers, alone), size in grown.items())
    return Profile(found, len(blocks), trainable[0], trainable, saved, kept)


def _bare_copy(model: nn.Module) -> nn.Module:
    """A copy in fp32 on the CPU, in training mode, every parameter trainable, without hooks."""
    bare = copy.deepcopy(model).to("cpu", torch.float32).requires_grad_()
    for module in bare.modules():
        module.training = True
        module._forward_hooks.clear()
        module._forward_pre_hooks.clear()
    return bare


def _count(model: nn.Module, x: Tensor) -> tuple[dict[str, int], dict[str, int]]:
    """Multiply-accumulates and output elements of the layers' own operations, for one sample, by fvcore."""
    with warnings.catch_warnings(action="ignore"):
        from fvcore.nn import ActivationCountAnalysis, FlopCountAnalysis  # warns when imported

        counts = []
        for analysis in (FlopCountAnalysis(model, x), ActivationCountAnalysis(model, x)):
            analysis.unsupported_ops_warnings(False).uncalled_modules_warnings(False).tracer_warnings("none")
            found = analysis.by_module_and_operator()
            names = find_layers(model)
            counts.append({name: int(sum(found[name][kind] for kind in COUNTED)) // len(x) for name in names})
    return counts[0], counts[1]


class _Graph:
    """The autograd graph of one forward pass.

    With k leading blocks frozen, exactly the nodes with a parameter of a later block upstream stay in the graph.

    Attributes:
        block: freezing block of each parameter; the number of blocks where it is in none.
        input_elements: elements of each layer's input, the batch included.
        input_block: last block upstream of each layer's input, -1 without any.
    """

    def __init__(self, model: nn.Module, x: Tensor, blocks: list[Block]) -> None:
        self.block = {parameter: len(blocks) for parameter in model.parameters()}
        for index, block in reversed(list(enumerate(blocks))):  # a shared parameter freezes with its first block
            for name in block.modules:
                self.block.update(dict.fromkeys(model.get_submodule(name).parameters(), index))
        self.input_elements: Counter[str] = Counter()
        inputs: list[tuple[str, Node]] = []
        own: dict[Node, str] = {}  # nodes of the layers' own operations

        def look(name: str, tensor: Tensor) -> None:
            self.input_elements[name] += tensor.numel()
            if tensor.requires_grad:
                inputs.append((name, get_gradient_edge(tensor).node))

        # A layer's own operations are the nodes between its output and its input: the walk goes back from the output
        # and stops at the nodes that made an input, at what another layer has claimed, and at parameters.
        def claim(name: str, output: Tensor) -> None:
            ends = {node for _, node in inputs}
            stack = [get_gradient_edge(output).node]
            while stack:
                node = stack.pop()
                if node not in ends and node not in own and not hasattr(node, "variable"):
                    own[node] = name
                    stack += [before for before, _ in node.next_functions if before is not None]

        layers = find_layers(model)
        handles = [
            handle
            for name, layer in layers.items()
            for handle in (
                layer.register_forward_pre_hook(lambda _, args, name=name: look(name, args[0])),
                layer.register_forward_hook(lambda _, args, output, name=name: claim(name, output)),
            )
        ]
        try:
            outputs = [
                tensor for tensor in tree_leaves(model(x)) if isinstance(tensor, Tensor) and tensor.requires_grad
            ]
        finally:
            for handle in handles:
                handle.remove()
        upstream = self._upstream([get_gradient_edge(tensor).node for tensor in outputs] + [node for _, node in inputs])
        self.input_block = dict.fromkeys(layers, -1)
        for name, node in inputs:
            self.input_block[name] = max(self.input_block[name], upstream[node])
        self._saved: dict[int, tuple[int, int]] = {}  # storage -> last block upstream of the nodes that keep it, bytes
        self._keepers: dict[int, set[int]] = defaultdict(set)  # storage -> positions of the layers that keep it
        self._others: dict[int, int] = defaultdict(lambda: -1)  # storage -> last block upstream of other nodes' that do
        # Several nodes may save the same tensor, and views share its storage: each storage counts once. It stays in
        # memory while any of its nodes is in the graph, that is, until the last block upstream of them is frozen.
        place = {name: index for index, name in enumerate(layers)}
        for node, last in upstream.items():
            for tensor in _saved_tensors(node):
                storage = tensor.untyped_storage()
                before, _ = self._saved.get(storage._cdata, (-1, 0))
                self._saved[storage._cdata] = max(before, last), storage.nbytes()
                if node in own:
                    self._keepers[storage._cdata].add(place[own[node]])
                else:
                    self._others[storage._cdata] = max(self._others[storage._cdata], last)

    def saved_bytes(self, frozen: int) -> int:
        """Bytes that stay saved for the backward pass when `frozen` leading blocks are frozen."""
        return sum(size for last, size in self._saved.values() if last >= frozen)

    def kept_inputs(self) -> Counter[tuple[tuple[int, ...], int]]:
        """Bytes that layers save, by their positions and by how many blocks must be frozen until they alone do."""
        found: Counter[tuple[tuple[int, ...], int]] = Counter()
        for storage, keepers in self._keepers.items():
            found[tuple(sorted(keepers)), self._others[storage] + 1] += self._saved[storage][1]
        return found

    def _upstream(self, roots: list[Node]) -> dict[Node, int]:
        """The last block with a parameter upstream, for all nodes that the roots depend on."""
        # Depth first, without recursion, because a deep network's graph is deeper than Python's stack. Each node is
        # visited twice: the first visit puts its inputs on the stack above it, the second comes when all of them are
        # known. A node that holds a parameter (AccumulateGrad) counts that parameter's own block.
        last: dict[Node, int] = {}
        seen: set[Node] = set()
        stack = [(node, False) for node in roots]
        while stack:
            node, finished = stack.pop()
            inputs = [before for before, _ in node.next_functions if before is not None]
            if finished:
                own = [self.block[node.variable]] if hasattr(node, "variable") else []
                last[node] = max(own + [last[before] for before in inputs], default=-1)
            elif node not in seen:
                seen.add(node)
                stack += [(node, True), *((before, False) for before in inputs)]
        return last


def _saved_tensors(node: Node) -> list[Tensor]:
    """The tensors that a node of the graph saves for the backward pass.

    A function written in Python keeps them in one attribute, `saved_tensors`; torch's own have an attribute for each.
    """
    names = [name for name in dir(node) if name.startswith("_saved_") or name == "saved_tensors"]
    return [tensor for name in names for tensor in tree_leaves(getattr(node, name)) if isinstance(tensor, Tensor)]
