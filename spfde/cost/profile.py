"""What a network costs: multiply-accumulates, elements and saved activations of its layers, counted without training.

A few forward passes on zeros are watched operation by operation (`spfde.cost.operations`), and the autograd graph of a
pass tells which parameters are upstream of what and what is saved for the backward pass (`spfde.cost.graph`). From
this follows what is left of the backward pass and its memory when leading blocks are frozen. Convolutions are counted
by fvcore's rule, one per multiply-accumulate.
"""

import copy
import random
import warnings
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from spfde.cost.graph import Graph, last_of, measured_bytes
from spfde.cost.operations import Operations, Work, without_checkpointing
from spfde.errors import SpfdeError, SpfdeWarning
from spfde.models.blocks import Block
from spfde.models.blocks import blocks as find_blocks
from spfde.sparsity.layers import layers as find_layers

BATCH = 2  # BatchNorm in training mode refuses a single value per channel


@dataclass(frozen=True)
class LayerProfile:
    """One convolution or linear layer, or a product without one; counts are for one sample.

    A product of activations (attention), or one with a parameter that is no layer's, has no weight that could be
    sparse: it has 0 weights and elements here, and in place of a weight gradient that of its second factor.

    Attributes:
        name: qualified name of the module; of a product, of the parameter in it, or of the module that does it with
            ".products" after it.
        kind: "conv", "linear" or "product".
        macs: multiply-accumulates of the dense forward pass.
        weights: elements of the weight tensor.
        output_elements: elements of its output.
        input_elements: elements of its input.
        block: index of its freezing block; the number of blocks where it is in none, -1 where its weight requires no
            gradient. Of a product, the last block upstream of its second factor, as below.
        input_block: the last freezing block with parameters upstream of its input; -1 where it reads the network's
            input alone, the number of blocks where parameters outside all blocks are upstream.
        direct: whether its weight reaches every operation as the parameter itself, so that a mask makes it sparse.
        called: whether all of its work is done by calling it as a module, not by a function that is given its weight.
    """

    name: str
    kind: Literal["conv", "linear", "product"]
    macs: int
    weights: int
    output_elements: int
    input_elements: int
    block: int
    input_block: int
    direct: bool = True
    called: bool = True


@dataclass(frozen=True)
class Profile:
    """A network's layers in definition order, then its products, and what it keeps in memory.

    With k leading blocks frozen, a layer is frozen if its block < k, and its input gradient is computed if its
    input_block >= k.

    Attributes:
        layers: all convolution and linear layers. One that is skipped at random (layer drop) counts as if it never
            were.
        blocks: number of freezing blocks.
        parameters: all parameters of the network.
        trainable: parameters that still train, by number of frozen leading blocks, 0 to `blocks`.
        saved_bytes: activations (fp32) that autograd saves for backward on the CPU, in bytes per sample, by number of
            frozen leading blocks; a saved input batch is in it, the loss function's own tensors are not. An upper bound
            where activations are checkpointed.
        kept_inputs: who keeps what layers read. Each entry has the layers that save the same tensor (positions in
            `layers`), the number of frozen leading blocks from which on they alone do (elsewhere ReLU or BatchNorm
            saves it too), and its bytes per sample.
        products: what is multiplied without a layer.
        output: shape of what the network gives for one sample; none where that is not one tensor.
        against_order: pairs of blocks of which the first reads what the second, a later one, gave.
        checkpointing: how the network asks for activation checkpointing, which is not in the costs: "reentrant",
            "other".
        idle: parameters that take no part in a pass, by qualified name.
    """

    layers: tuple[LayerProfile, ...]
    blocks: int
    parameters: int
    trainable: tuple[int, ...]
    saved_bytes: tuple[int, ...]
    kept_inputs: tuple[tuple[tuple[int, ...], int, int], ...] = ()
    products: tuple[LayerProfile, ...] = ()
    output: tuple[int, ...] | None = None
    against_order: tuple[tuple[int, int], ...] = ()
    checkpointing: tuple[str, ...] = ()
    idle: tuple[str, ...] = ()

    @property
    def rows(self) -> tuple[LayerProfile, ...]:
        """What a trace has a row for in every epoch: the layers, then the products."""
        return self.layers + self.products

    @property
    def macs(self) -> np.ndarray:
        """Multiply-accumulates of each row, shape (rows,)."""
        return np.array([row.macs for row in self.rows], dtype=float)

    @property
    def paper_macs(self) -> np.ndarray:
        """The same for the `paper` column, which leaves products out, shape (rows,)."""
        return self.macs * (np.arange(len(self.rows)) < len(self.layers))

    @property
    def unused(self) -> list[str]:
        """Names of the layers that do no work."""
        return [layer.name for layer in self.layers if not layer.macs]

    @property
    def classes(self) -> int:
        """Classes that the network tells apart: the channels of its output."""
        return self.output[0] if self.output else 1


def profile(model: nn.Module, input_shape: tuple[int, ...], blocks: list[Block] | None = None) -> Profile:
    """Profiles a network in training mode, on a copy: modes and hooks of the model do not matter.

    Parameters that require no gradient are frozen from the start in all costs.

    Warns of layers that do no work on this input, and of activation checkpointing.

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
    bare = _bare_copy(model)
    with _passes(bare) as asked:
        try:
            graph, twice, passes = _watch(bare, input_shape, blocks)
        except Exception as error:
            why = str(error).partition("\n")[0] or type(error).__name__
            cause = f"the model does not run on an input of shape {tuple(input_shape)}: {why}"
            raise SpfdeError(cause, "give the shape of one sample: (channels, height, width) for images") from error
    found = [_layer(name, layer, graph, twice, passes) for name, layer in find_layers(bare).items()]
    frozen = range(len(blocks) + 1)
    trainable = tuple(sum(p.numel() for p, block in graph.block.items() if block >= k) for k in frozen)
    saved = [(twice.saved_bytes(k) - graph.saved_bytes(k)) // BATCH for k in frozen]  # what grows with the batch
    if any(layer.block < layer.input_block == len(blocks) for layer in found):
        # Trained parameters are upstream of frozen blocks, which then stay in the graph and save less than before.
        with _passes(bare):
            saved[1:] = [measured_bytes(bare, input_shape, blocks[:k], BATCH) for k in frozen if k]
    grown = twice.kept_inputs() - graph.kept_inputs()
    kept = tuple((keepers, alone, size // BATCH) for (keepers, alone), size in grown.items())
    output = tuple(graph.output.shape[1:]) if isinstance(graph.output, Tensor) else None
    order = tuple(_against_order(found, graph, len(blocks)))
    result = Profile(
        layers=tuple(found),
        blocks=len(blocks),
        parameters=sum(parameter.numel() for parameter in graph.block),
        trainable=trainable,
        saved_bytes=tuple(saved),
        kept_inputs=kept,
        products=tuple(_products(graph, twice)),
        output=output,
        against_order=order,
        checkpointing=tuple(sorted(asked)),
        idle=tuple(_idle(bare, graph, passes)),
    )
    if result.unused:
        names = ", ".join(result.unused)
        warnings.warn(
            f"layers without work that grows with the batch, which count as free: {names}", SpfdeWarning, stacklevel=2
        )
    if result.checkpointing:
        left_out = "activation checkpointing is not in the costs: neither its second pass nor the memory it saves"
        warnings.warn(left_out, SpfdeWarning, stacklevel=2)
    return result


def trains_alone(model: nn.Module, input_shape: tuple[int, ...]) -> bool:
    """Whether a batch of one sample can be trained on: BatchNorm refuses it where that has one value per channel."""
    bare = _bare_copy(model)
    if any(isinstance(module, _BatchNorm) for module in bare.modules()):
        with _passes(bare):
            _set_training(bare, "all")
            try:
                bare(torch.zeros(1, *input_shape))
            except Exception as error:
                return "more than 1 value per channel" not in str(error)
    return True


def _bare_copy(model: nn.Module) -> nn.Module:
    """A copy in fp32 on the CPU, without hooks."""
    bare = copy.deepcopy(model).to("cpu", torch.float32)
    for module in bare.modules():
        module._forward_hooks.clear()
        module._forward_pre_hooks.clear()
    return bare


@contextmanager
def _passes(model: nn.Module) -> Iterator[set[str]]:
    """Where passes are watched: random streams are as before afterwards, nothing is checkpointed or opaque.

    Yields:
        The kinds of checkpointing that the model asks for.
    """
    streams = random.getstate(), np.random.get_state()  # noqa: NPY002 - of a model of somebody else
    with ExitStack() as stack:
        stack.enter_context(warnings.catch_warnings(action="ignore"))
        stack.enter_context(torch.enable_grad())
        stack.enter_context(torch.random.fork_rng(devices=[]))
        torch.manual_seed(0)
        random.seed(0)
        np.random.seed(0)  # noqa: NPY002
        if any(isinstance(module, nn.RNNBase) for module in model.modules()):
            stack.enter_context(torch.backends.mkldnn.flags(enabled=False))  # its one operation for all of an LSTM
        asked = stack.enter_context(without_checkpointing())
        try:
            yield asked
        finally:
            random.setstate(streams[0])
            np.random.set_state(streams[1])  # noqa: NPY002


def _watch(model: nn.Module, shape: tuple[int, ...], blocks: list[Block]) -> tuple[Graph, Graph, list[Operations]]:
    """The graph of a batch and of one twice its size, and every pass that was made.

    In training mode, unless layers are skipped at random there: then everything but the leaves of the module tree
    (BatchNorm, dropout) is in evaluation mode.
    """

    def graph(batch: int) -> Graph:
        return Graph(model, torch.zeros(batch, *shape), blocks)

    _set_training(model, "none")
    evaluation = Operations(model, x := torch.zeros(BATCH, *shape))
    with torch.no_grad(), evaluation.watching():
        model(x)
    _set_training(model, "all")
    once, twice = graph(BATCH), graph(2 * BATCH)
    made = [evaluation, once.operations, twice.operations]
    if not evaluation.used <= once.operations.used & twice.operations.used:
        _set_training(model, "leaves")
        once, twice = graph(BATCH), graph(2 * BATCH)
        made += [once.operations, twice.operations]
    return once, twice, made


def _set_training(model: nn.Module, which: Literal["all", "leaves", "none"]) -> None:
    for module in model.modules():
        module.training = which == "all" or (which == "leaves" and not any(True for _ in module.children()))


def _layer(name: str, layer: nn.Module, graph: Graph, twice: Graph, passes: list[Operations]) -> LayerProfile:
    work = graph.operations.layers[name]
    macs, outputs, inputs = _grown(work, twice.operations.layers[name])
    seen = [each.layers[name] for each in passes]
    weight = layer._parameters.get("weight")
    only_elsewhere = weight is not None and any(name in each.used for each in passes) and not any(w.macs for w in seen)
    return LayerProfile(
        name=name,
        kind="linear" if isinstance(layer, nn.Linear) else "conv",
        macs=macs,
        weights=layer.weight.numel(),  # type: ignore[operator]
        output_elements=outputs,
        input_elements=inputs,
        block=_block(layer, graph),
        input_block=last_of(graph.upstream_of(work.left)),
        direct=all(w.direct for w in seen) and not only_elsewhere,
        called=all(w.called for w in seen)
        and all(w.macs or name not in p.used for w, p in zip(seen, passes, strict=True)),
    )


def _block(layer: nn.Module, graph: Graph) -> int:
    weight = layer._parameters.get("weight")
    if weight is not None and graph.block[weight] < 0:
        return -1  # its bias may still train
    return min((block for p in layer.parameters() if (block := graph.block[p]) >= 0), default=-1)


def _grown(once: Work, twice: Work) -> tuple[int, int, int]:
    """Multiply-accumulates, elements of output and input per sample: what grows with the batch."""
    return tuple((getattr(twice, name) - getattr(once, name)) // BATCH for name in ("macs", "outputs", "inputs"))


def _products(graph: Graph, twice: Graph) -> list[LayerProfile]:
    """Products without a layer, one row for each place in the network and pair of blocks upstream of the factors."""
    once, double = (Counter[tuple[str, int, int]](), Counter[tuple[str, int, int]]())
    for of, rows in ((graph, once), (twice, double)):
        for name, work in of.operations.products:
            rows[name, last_of(of.upstream_of(work.right)), last_of(of.upstream_of(work.left))] += work.macs
    found: list[LayerProfile] = []
    for (name, block, input_block), total in double.items():
        if macs := (total - once[name, block, input_block]) // BATCH:
            number = sum(row.name.partition("#")[0] == name for row in found)
            unique = f"{name}#{number + 1}" if number else name
            found.append(LayerProfile(unique, "product", macs, 0, 0, 0, block, input_block))
    return found


def _against_order(layers: list[LayerProfile], graph: Graph, blocks: int) -> Iterator[tuple[int, int]]:
    for layer in layers:
        if 0 <= layer.block < blocks:
            upstream = graph.upstream_of(graph.operations.layers[layer.name].left)
            for later in range(layer.block + 1, blocks):
                if upstream >> later & 1:
                    yield layer.block, later


def _idle(model: nn.Module, graph: Graph, passes: list[Operations]) -> Iterator[str]:
    reached = {node.variable for node in graph.upstream if hasattr(node, "variable")}
    called = set().union(*(each.called for each in passes))
    for path, module in model.named_modules():
        for name, parameter in module.named_parameters(recurse=False):
            if path not in called and parameter not in reached and parameter.requires_grad:
                yield f"{path}.{name}".removeprefix(".")
