"""What sparse training asks of a model and an optimizer; what cannot work is refused here, with the reason."""

from collections import defaultdict
from collections.abc import Iterable

from torch import distributed, nn
from torch.nn.parallel import DistributedDataParallel
from torch.optim import LBFGS, Optimizer

from spfde.data import SOURCES, info
from spfde.errors import SpfdeError
from spfde.settings import RunSettings


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
    """Shape of one input and size of the training set: as told, else of the data set that the settings name.

    Raises:
        SpfdeError: it is not told, and the data set is none that is known here.
    """
    if input_shape is not None and samples is not None:
        return input_shape, samples
    if settings.data.name not in SOURCES:
        cause = "the size of the training set is not known, or the shape of its samples"
        raise SpfdeError(cause, "give SparseTraining input_shape=(channels, height, width) and samples=len(train_set)")
    known = info(settings.data.name)
    return input_shape or (known.channels, known.size, known.size), samples or known.training_samples(settings.data)


def check_alone() -> None:
    """Refuses to count how samples fare in one of several processes that train together.

    Raises:
        SpfdeError: there are several.
    """
    if distributed.is_initialized() and distributed.get_world_size() > 1:
        cause = "sieving counts how every sample fares, and each of several processes sees a part of them"
        remedy = (
            "gather indices and predictions of all and call `count`, set sieving.removed=0, or train in one process"
        )
        raise SpfdeError(cause, remedy)


def check_weights(model: nn.Module, optimizer: Optimizer, layers: Iterable[str]) -> None:
    """Refuses sparse layers whose weight a mask cannot govern.

    Args:
        model: the model.
        optimizer: its optimizer.
        layers: qualified names of the layers to become sparse.

    Raises:
        SpfdeError: a weight is computed from others, shared, or not trained by the optimizer; or the optimizer
            evaluates the loss more than once a step.
    """
    if isinstance(optimizer, LBFGS):
        cause = "LBFGS evaluates the loss several times a step, and masks apply between steps"
        raise SpfdeError(cause, "use an optimizer of one evaluation a step, such as SGD or AdamW")
    holders: dict[nn.Parameter, list[str]] = defaultdict(list)
    for path, module in model.named_modules():
        for name, parameter in module.named_parameters(recurse=False, remove_duplicate=False):
            holders[parameter].append(f"{path}.{name}")
    trained = {parameter for group in optimizer.param_groups for parameter in group["params"]}
    for name in layers:
        weight = model.get_submodule(name)._parameters.get("weight")
        if weight is None:
            cause = f"layer {name} computes its weight (weight norm, or another parametrization)"
            raise SpfdeError(cause, "remove the parametrization, so that the layer has a weight to mask")
        if len(holders[weight]) > 1:
            cause = f"one weight is shared by {' and '.join(holders[weight])}, and can have one mask only"
            raise SpfdeError(cause, "give each its own weight, or keep the layer dense by sparsity.dense_layers")
        if weight not in trained or not weight.requires_grad:
            cause = f"the optimizer does not train the weight of layer {name}"
            raise SpfdeError(
                cause, "give it all parameters of the model, or give SparseTraining the part that it trains"
            )


def check_schedulers(optimizer: Optimizer) -> None:
    """Refuses an optimizer whose learning rates are set by somebody else.

    Raises:
        SpfdeError: a scheduler of `torch.optim.lr_scheduler` is attached.
    """
    if any("initial_lr" in group for group in optimizer.param_groups):  # which every scheduler leaves there
        cause = "the optimizer's learning rates are set by a scheduler, and by SparseTraining too"
        raise SpfdeError(cause, 'pass learning_rates="own" to SparseTraining, or leave the scheduler out')


def check_decay(optimizer: Optimizer, method: str, weights: set[nn.Parameter]) -> None:
    """Refuses weight decay on sparse weights, for a method whose own shrinkage takes its place.

    Raises:
        SpfdeError: a group of the optimizer with sparse weights has a weight decay.
    """
    if any(group.get("weight_decay") and not weights.isdisjoint(group["params"]) for group in optimizer.param_groups):
        cause = f"method {method} has no weight decay on sparse weights, and the optimizer has one"
        raise SpfdeError(cause, 'put them into a group with weight_decay=0, or pass learning_rates="cosine"')
