"""What sparse training requires of a model and an optimizer. What cannot work is refused here, with the reason."""

import json
import warnings
from collections import defaultdict
from collections.abc import Mapping, Sequence
from itertools import combinations
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torch.optim import LBFGS, Optimizer

from spfde.cost.profile import Profile, trains_alone
from spfde.data import info, is_known
from spfde.errors import SpfdeError, SpfdeWarning, nearest
from spfde.methods import Method
from spfde.models import Block
from spfde.settings import RunSettings, TrainingSettings


def unwrapped(model: nn.Module, settings: RunSettings) -> nn.Module:
    """The model inside the wrappers of `torch.compile` and DistributedDataParallel; names and weights are its own.

    Raises:
        SpfdeError: the wrapper cannot have what the settings ask for.
    """
    while True:
        if isinstance(model, DistributedDataParallel):
            if settings.freezing.flops_reduction and not model.find_unused_parameters:
                cause = "DistributedDataParallel waits for the gradients of every parameter, and frozen ones have none"
                raise SpfdeError(cause, "wrap the model with find_unused_parameters=True")
            model = model.module
        elif isinstance(inner := getattr(model, "_orig_mod", None), nn.Module):  # torch.compile's
            model = inner
        else:
            return model


def training_set(
    settings: RunSettings, input_shape: tuple[int, ...] | None, samples: int | None
) -> tuple[tuple[int, ...], int]:
    """Shape of one input and size of the training set: as given, else those of the data set in the settings.

    Raises:
        SpfdeError: they are not given, and the data set is not a known one.
    """
    if input_shape is not None and samples is not None:
        return input_shape, samples
    if not is_known(settings.data.name):
        cause = "the size of the training set is not known, or the shape of its samples"
        raise SpfdeError(cause, "give SparseTraining input_shape=(channels, height, width) and samples=len(train_set)")
    known = info(settings.data.name)
    return input_shape or (known.channels, known.size, known.size), samples or known.training_samples(settings.data)


def check_optimizer(optimizer: Optimizer) -> None:
    """Refuses an optimizer whose steps cannot be masked.

    Raises:
        SpfdeError: it is not a `torch.optim.Optimizer`, or evaluates the loss more than once per step.
    """
    kind = type(optimizer).__name__
    if not isinstance(optimizer, Optimizer):
        cause = f"the optimizer is of type {kind}, and no torch.optim.Optimizer"
        raise SpfdeError(cause, "give SparseTraining the torch optimizer whose step() changes the weights")
    if isinstance(optimizer, LBFGS):
        cause = "LBFGS evaluates the loss several times per step, and masks apply between steps"
        raise SpfdeError(cause, "use an optimizer of one evaluation per step, such as SGD or AdamW")
    if not hasattr(optimizer, "_optimizer_step_pre_hooks"):
        raise _unseen(optimizer)


def check_rates(learning_rates: str, training: TrainingSettings) -> None:
    """Refuses an unknown way to set learning rates; warns of settings that the caller's own rates leave unread.

    Raises:
        SpfdeError: it is neither "cosine" nor "own".
    """
    if learning_rates not in ("cosine", "own"):
        cause = f'unknown learning_rates "{learning_rates}"'
        raise SpfdeError(cause, nearest(str(learning_rates), ("cosine", "own")))
    rates = {"schedule", "lr_min", "milestones", "gamma", "warmup_epochs"}
    told = [f"training.{key}" for key in training.model_dump(include=rates, exclude_defaults=True)]
    if learning_rates == "own" and told:
        verb = "is" if len(told) == 1 else "are"
        text = f'{" and ".join(told)} {verb} not read with learning_rates="own"'
        remedy = 'let your scheduler do it, or leave learning_rates="own" out'
        warnings.warn(f"{text}; {remedy}", SpfdeWarning, stacklevel=3)


def check_steps(optimizer: Optimizer) -> None:
    """Refuses an optimizer whose `step` calls no hooks, because its class does not call the base class's `__init__`.

    Raises:
        SpfdeError: so it is.
    """
    if not hasattr(optimizer, "_zero_grad_profile_name"):  # set by the same code that makes `step` call hooks
        raise _unseen(optimizer)


def _unseen(optimizer: Optimizer) -> SpfdeError:
    kind = type(optimizer).__name__
    cause = f"{kind} leaves out the __init__ of torch.optim.Optimizer, so no optimizer step would be seen"
    return SpfdeError(cause, "give SparseTraining the optimizer that it wraps, and go on stepping the wrapper")


def check_blocks(model: nn.Module, blocks: Sequence[Block]) -> None:
    """Refuses freezing blocks that are not parts of the model, or that overlap.

    Raises:
        SpfdeError: so it is.
    """
    known = dict(model.named_modules(remove_duplicate=False))
    for block in blocks:
        for name in block.modules or ("",):
            if not name or name not in known:
                cause = f'block {block.name} names the module "{name}", which is no part of the model'
                raise SpfdeError(cause, "use the qualified names of named_modules(), such as layer1.0")
    for one, two in combinations(blocks, 2):
        for first in one.modules:
            for second in two.modules:
                if f"{first}.".startswith(f"{second}.") or f"{second}.".startswith(f"{first}."):
                    cause = f"blocks {one.name} and {two.name} overlap: {first} and {second}"
                    raise SpfdeError(cause, "put every module into one block at most")


def check_order(blocks: Sequence[Block], costs: Profile, freezing: bool, own: bool) -> None:
    """Refuses blocks in another order than the forward one, and to freeze with reentrant checkpointing.

    Args:
        blocks: the freezing blocks.
        costs: the model's profile.
        freezing: whether they are going to be frozen.
        own: whether the caller named them; where blocks that were found stay unfrozen, their order is no matter.

    Raises:
        SpfdeError: so it is.
    """
    if costs.against_order and (freezing or own):
        first, later = (blocks[index].name for index in costs.against_order[0])
        cause = f"block {first} reads what block {later} gives, which comes after it in the order of freezing"
        raise SpfdeError(cause, "give SparseTraining blocks=[...] in forward order")
    if "reentrant" in costs.checkpointing and freezing:
        cause = "reentrant activation checkpointing gives no gradient to a block that reads frozen ones alone"
        raise SpfdeError(cause, "use checkpoint(..., use_reentrant=False), or set freezing.flops_reduction=0")


def warn_of_fixed(model: nn.Module, blocks: Sequence[Block]) -> None:
    """Warns of freezing blocks of which nothing trains before they freeze."""
    found = []
    for block in blocks:
        parameters = [p for name in block.modules for p in model.get_submodule(name).parameters()]
        if parameters and not any(parameter.requires_grad for parameter in parameters):
            found.append(block.name)
    if found:
        text = (
            f"nothing in block {', '.join(found)} requires a gradient: freezing it saves nothing, and delays the others"
        )
        warnings.warn(
            f"{text}; name blocks=[...] without it, or set freezing.flops_reduction=0", SpfdeWarning, stacklevel=3
        )


def warn_of_single_samples(
    model: nn.Module, input_shape: tuple[int, ...], samples: Sequence[int], batch_size: int
) -> None:
    """Warns of epochs that end with a batch of one sample, where BatchNorm cannot train on one.

    Args:
        model: the model.
        input_shape: shape of one input.
        samples: samples of each epoch.
        batch_size: samples per step.
    """
    alone = [epoch for epoch, count in enumerate(samples) if count % batch_size == 1 % batch_size]
    if alone and not trains_alone(model, input_shape):
        text = f"the last batch of epoch {alone[0]} would have one sample, on which BatchNorm cannot train"
        text += ", unless a loader of your own drops it (drop_last=True)"
        remedy = "set another training.batch_size, or another sieving.removed where data are sieved"
        warnings.warn(f"{text}; {remedy}", SpfdeWarning, stacklevel=3)


def check_head(method: Method, costs: Profile) -> None:
    """Refuses a method that scores samples by classes where the network gives none.

    Raises:
        SpfdeError: the network's output is not one tensor of logits, two or more.
    """
    if method.scores_classes and costs.classes < 2:
        gives = (
            f"an output of shape (batch, {', '.join(map(str, costs.output))})" if costs.output else "no single tensor"
        )
        cause = (
            f"method {method.name} scores samples by the cross-entropy of their classes, and the network gives {gives}"
        )
        raise SpfdeError(cause, "let the network give one logit per class, two or more, or use another method")


def check_classes(indices: Tensor, logits: Tensor, labels: Tensor) -> None:
    """Refuses what is not one logit for each class and one class for each sample.

    Raises:
        SpfdeError: it is something else, whose right predictions only the caller knows.
    """
    remedy = "find out which samples were predicted right, and call count(indices, correct)"
    if not isinstance(logits, Tensor):
        raise SpfdeError(
            f"the logits are a {type(logits).__name__}, not one tensor", f"observe the main one; or {remedy}"
        )
    if logits.ndim != 2 or logits.shape[1] < 2 or len(logits) != len(indices):
        cause = f"logits of shape {tuple(logits.shape)} are not one for each of two or more classes of a sample"
        raise SpfdeError(cause, remedy)
    if labels.shape != (len(indices),) or labels.is_floating_point():
        cause = f"labels of shape {tuple(labels.shape)} and type {labels.dtype} are not one class per sample"
        raise SpfdeError(cause, f"give whole numbers of shape (batch,); or {remedy}")


def checked_indices(indices: Tensor, samples: int) -> Tensor:
    """The positions of a batch in the training set, int64 (batch,).

    Numbers that are on a device stay there and are not looked at, since that would wait for it.

    Raises:
        SpfdeError: they are something else, or no positions in a training set of so many samples.
    """
    remedy = "give their positions in the whole training set, (batch,) whole numbers, as spfde.data.Indexed does"
    if not isinstance(indices, Tensor):
        holds = f" that holds {indices[0]!r}" if len(indices) else ""
        cause = f"the indices are a {type(indices).__name__}{holds}, and sieving counts samples by number"
        raise SpfdeError(cause, remedy)
    kind = indices.dtype
    if indices.ndim != 1 or kind == torch.bool or kind.is_floating_point or kind.is_complex:
        cause = f"indices of shape {tuple(indices.shape)} and type {kind} are not one position for each sample"
        raise SpfdeError(cause, remedy)
    if indices.device.type == "cpu" and len(indices):
        first, last = map(int, indices.aminmax())
        if first < 0 or last >= samples:
            wrong = first if first < 0 else last
            cause = f"index {wrong} is none of the {samples} samples of the training set, which are 0 to {samples - 1}"
            raise SpfdeError(cause, "give SparseTraining samples=len(train_set), and positions in that set")
    return indices.long()


def checked_correct(indices: Tensor, correct: Tensor | None) -> Tensor:
    """The booleans that sieving counts, one for each sample of a batch.

    Raises:
        SpfdeError: they are something else.
    """
    if correct is None or correct.dtype != torch.bool or correct.shape != (len(indices),):
        cause = "sieving needs a boolean for each sample of the batch: whether it was predicted right"
        raise SpfdeError(cause, "give count(indices, correct) both, of shape (batch,)")
    return correct


def check_state(state: Mapping[str, Tensor], own: Mapping[str, Tensor], settings: RunSettings) -> None:
    """Refuses the state of a training of other settings or of another network.

    Args:
        state: the state to be loaded.
        own: the masks' state of the training that is to load it.
        settings: its settings.

    Raises:
        SpfdeError: it does not fit, naming the first setting or layer that differs.
    """
    remedy = "resume with what the training began with, or start it anew"
    try:
        theirs, mine = flat(json.loads(bytes(state["settings"].tolist()))), flat(json.loads(settings.identity))
    except (KeyError, ValueError):
        raise SpfdeError("the state is not one that SparseTraining.state_dict gave", remedy) from None
    for name in sorted(theirs.keys() | mine.keys()):
        if theirs.get(name) != mine.get(name):
            cause = f"the state is of other settings: {name} is {theirs.get(name)} there and {mine.get(name)} here"
            raise SpfdeError(cause, remedy)
    there = {name.removeprefix("masks."): value.shape for name, value in state.items() if name.startswith("masks.")}
    for name in sorted(there.keys() | own.keys()):
        if name not in there or name not in own or there[name] != own[name].shape:
            raise SpfdeError(f"the state is of another network: layer {name.rpartition('.')[0]} does not fit", remedy)


def flat(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Values by dotted name."""
    found: dict[str, Any] = {}
    for key, value in tree.items():
        found |= flat(value, f"{prefix}{key}.") if isinstance(value, Mapping) else {prefix + key: value}
    return found


def check_weights(model: nn.Module, optimizer: Optimizer, method: Method, costs: Profile) -> None:
    """Refuses sparse layers whose weight cannot be masked.

    Args:
        model: the model.
        optimizer: its optimizer.
        method: the method, which knows the layers that are to become sparse.
        costs: the model's profile, which knows how their weights are used.

    Raises:
        SpfdeError: a weight is computed from others, shared, or not trained by the optimizer.
    """
    holders: dict[nn.Parameter, list[str]] = defaultdict(list)
    for path, module in model.named_modules():
        for name, parameter in module.named_parameters(recurse=False, remove_duplicate=False):
            holders[parameter].append(f"{path}.{name}")
    trained = {parameter for group in optimizer.param_groups for parameter in group["params"]}
    uses = {layer.name: layer for layer in costs.layers}
    for name in method.plan.densities:
        stay = f'or keep it dense: SparseTraining(..., dense=["{name}"])'
        weight = model.get_submodule(name)._parameters.get("weight")
        if weight is None or not uses[name].direct:
            cause = f"layer {name} computes its weight (weight norm, weight standardisation or the like)"
            raise SpfdeError(cause, f"let its parameter `weight` be what it multiplies by, {stay}")
        if method.calls_layers and not uses[name].called:
            cause = f"method {method.name} acts in the calls of layers, and layer {name} is used by its weight alone"
            raise SpfdeError(cause, f"use a method that masks weights, {stay}")
        if len(holders[weight]) > 1:
            cause = f"one weight is shared by {' and '.join(holders[weight])}, and can have one mask only"
            raise SpfdeError(cause, f"give each its own weight, {stay}")
        if not weight.requires_grad:
            raise SpfdeError(f"the weight of layer {name} requires no gradient", f"let it train, {stay}")
        if weight not in trained:
            cause = f"the optimizer does not train the weight of layer {name}"
            raise SpfdeError(
                cause, "give it all parameters of the model, or give SparseTraining the part that it trains"
            )


def check_decay(optimizer: Optimizer, method: str, weights: set[nn.Parameter]) -> None:
    """Refuses weight decay on sparse weights, for a method whose own shrinkage takes its place.

    Raises:
        SpfdeError: a group of the optimizer with sparse weights has a weight decay.
    """
    if any(group.get("weight_decay") and not weights.isdisjoint(group["params"]) for group in optimizer.param_groups):
        cause = f"method {method} has no weight decay on sparse weights, and the optimizer has one"
        raise SpfdeError(cause, 'put them into a group with weight_decay=0, or pass learning_rates="cosine"')
