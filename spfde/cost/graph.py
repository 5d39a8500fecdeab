"""The autograd graph of one forward pass: which blocks are upstream of what, and what is kept for the backward pass."""

import copy
from collections import Counter, defaultdict

import torch
from torch import Tensor, nn
from torch.autograd.graph import Node, get_gradient_edge
from torch.utils._pytree import tree_leaves

from spfde.cost.operations import Operations
from spfde.models.blocks import Block
from spfde.sparsity.layers import layers as find_layers


class Graph:
    """The graph of a pass.

    With k leading blocks frozen, exactly those nodes stay in the graph that have a parameter of a later block upstream.
    A set of blocks is a whole number with one bit for each block, and one more bit for parameters in no block.

    Args:
        model: the network; parameters that require no gradient count as frozen from the start.
        x: a batch of inputs.
        blocks: freezing blocks in forward order.

    Attributes:
        block: freezing block of each parameter; the number of blocks where it is in none, -1 where it never trains.
        operations: the operations of the pass.
        output: what the pass returned.
        upstream: blocks upstream of each node, itself included.
    """

    def __init__(self, model: nn.Module, x: Tensor, blocks: list[Block]) -> None:
        self.block = {parameter: len(blocks) for parameter in model.parameters()}
        for index, block in reversed(list(enumerate(blocks))):  # a shared parameter freezes with its first block
            for name in block.modules:
                self.block.update(dict.fromkeys(model.get_submodule(name).parameters(), index))
        self.block.update({parameter: -1 for parameter in model.parameters() if not parameter.requires_grad})
        self.operations = Operations(model, x)
        with self.operations.watching():
            self.output = model(x)
        outputs = [leaf for leaf in tree_leaves(self.output) if isinstance(leaf, Tensor) and leaf.requires_grad]
        work = [*self.operations.layers.values(), *(work for _, work in self.operations.products)]
        ends = [node for each in work for node in (*each.left, *each.right)]
        self.upstream = self._upstream([get_gradient_edge(leaf).node for leaf in outputs] + ends)
        self._saved: dict[int, tuple[int, int]] = {}  # storage -> last block upstream of the nodes that keep it, bytes
        self._keepers: dict[int, set[int]] = defaultdict(set)  # storage -> positions of the layers that keep it
        self._others: dict[int, int] = defaultdict(lambda: -1)  # storage -> last block upstream of other nodes' that do
        # Several nodes may save the same tensor, and views share its storage: each storage counts once. It stays in
        # memory while any of its nodes is in the graph, that is, until the last block upstream of them is frozen.
        place = {name: index for index, name in enumerate(find_layers(model))}
        for node, before in self.upstream.items():
            last, tensors = last_of(before), _saved_tensors(node)
            weights = [name for tensor in tensors for name in self.operations.layers_of(tensor)]
            owner = self.operations.own.get(node, weights[0] if weights else None)  # the layer whose weight is used
            for tensor in tensors:
                storage = tensor.untyped_storage()
                earlier, _ = self._saved.get(storage._cdata, (-1, 0))
                self._saved[storage._cdata] = max(earlier, last), storage.nbytes()
                if owner is not None:
                    self._keepers[storage._cdata].add(place[owner])
                else:
                    self._others[storage._cdata] = max(self._others[storage._cdata], last)

    def upstream_of(self, nodes: set[Node]) -> int:
        """The blocks upstream of any of these nodes."""
        found = 0
        for node in nodes:
            found |= self.upstream[node]
        return found

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
        """The blocks with a parameter upstream, for all nodes that the roots depend on."""
        # Depth first, without recursion, because a deep network's graph is deeper than Python's stack. Each node is
        # visited twice: the first visit puts its inputs on the stack above it, the second comes when all of them are
        # known. A node that holds a parameter (AccumulateGrad) counts that parameter's own block.
        found: dict[Node, int] = {}
        seen: set[Node] = set()
        stack = [(node, False) for node in roots]
        while stack:
            node, finished = stack.pop()
            inputs = [before for before, _ in node.next_functions if before is not None]
            if finished:
                found[node] = 1 << self.block[node.variable] if hasattr(node, "variable") else 0
                for before in inputs:
                    found[node] |= found[before]
            elif node not in seen:
                seen.add(node)
                stack += [(node, True), *((before, False) for before in inputs)]
        return found


def last_of(blocks: int) -> int:
    """The last block of a set; -1 where it is empty."""
    return blocks.bit_length() - 1


def measured_bytes(model: nn.Module, shape: tuple[int, ...], frozen: list[Block], batch: int) -> int:
    """Measured bytes per sample that a pass with these blocks frozen saves: what doubling the batch adds."""
    held = copy.deepcopy(model)
    for name in (name for block in frozen for name in block.modules):
        held.get_submodule(name).requires_grad_(False).eval()
    own = {tensor.untyped_storage()._cdata for tensor in (*held.parameters(), *held.buffers())}
    sizes = []
    for samples in (batch, 2 * batch):
        kept: dict[int, Tensor] = {}

        def keep(tensor: Tensor, kept: dict[int, Tensor] = kept) -> Tensor:
            kept[tensor.untyped_storage()._cdata] = tensor  # which also prevents that the storage is used again
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
            held(torch.zeros(samples, *shape))
        sizes.append(sum(t.untyped_storage().nbytes() for storage, t in kept.items() if storage not in own))
    return (sizes[1] - sizes[0]) // batch


def _saved_tensors(node: Node) -> list[Tensor]:
    """The tensors that a node of the graph saves for the backward pass.

    A function written in Python keeps them in one attribute, `saved_tensors`; torch's own have an attribute for each.
    """
    names = [name for name in dir(node) if name.startswith("_saved_") or name == "saved_tensors"]
    return [tensor for name in names for tensor in tree_leaves(getattr(node, name)) if isinstance(tensor, Tensor)]
