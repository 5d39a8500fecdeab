"""A narrower dense network that trains for as many FLOPs as the sparse one."""

import functools
from bisect import bisect_left
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from spfde.data import DataInfo, info
from spfde.methods.base import Method, register
from spfde.models import build
from spfde.settings import RunSettings
from spfde.sparsity.distributions import densities
from spfde.sparsity.layers import dense_layers, layers

WIDTHS = range(1, 1001)  # widths are tried in thousandths of the network's own


@register
class SmallDense(Method):
    """A dense network narrowed until it trains for the FLOPs (paper column) of a static one of the target sparsity.

    What sparsity has to beat at equal cost (Evci et al. 2020, Small-Dense). `model.width` names the network that is
    narrowed, and `sparsity.target` with `sparsity.distribution` and `sparsity.dense_layers` the sparse one that it
    matches; channels are whole, so a small network comes only as near as they allow.
    """

    name = "small-dense"
    title = "Small dense"
    paper = "Evci et al., ICML"
    year = 2020
    kind = "dense"
    scope = "none"
    sparse = False

    @classmethod
    def adjust(cls, settings: RunSettings) -> RunSettings:
        """Replaces the width in the settings by the narrower one."""
        sparsity = settings.sparsity
        told = (sparsity.target, sparsity.distribution, sparsity.dense_layers)
        width = matching_width(settings.model.name, info(settings.data.name), settings.model.width, *told)
        return settings.model_copy(update={"model": settings.model.model_copy(update={"width": width})})


@functools.cache
def matching_width(name: str, data: DataInfo, width: float, target: float, distribution: str, dense_rule: str) -> float:
    """The width whose dense forward pass comes nearest to that of the sparse network in multiply-accumulates.

    In the `paper` column the whole training is a fixed multiple of the forward pass, so training is equal too.
    """
    positions = output_positions(name, data, width)
    model = without_storage(name, data, width)
    dense = dense_layers(model, dense_rule)
    shapes = {name: tuple(weight.shape) for name, weight in weights(model).items() if name not in dense}
    density = densities(distribution, shapes, target)
    wanted = sum(positions[name] * weight.numel() * density.get(name, 1.0) for name, weight in weights(model).items())

    def macs(thousandths: int) -> int:
        narrow = weights(without_storage(name, data, width * thousandths / 1000))
        return sum(positions[name] * weight.numel() for name, weight in narrow.items())

    above = WIDTHS[min(bisect_left(WIDTHS, wanted, key=macs), len(WIDTHS) - 1)]
    nearest = min((above, max(1, above - 1)), key=lambda thousandths: abs(macs(thousandths) - wanted))
    return round(width * nearest / 1000, 6)


def weights(model: nn.Module) -> dict[str, Tensor]:
    return {name: layer.weight for name, layer in layers(model).items()}


@functools.cache
def output_positions(name: str, data: DataInfo, width: float) -> dict[str, int]:
    """How often each layer uses each of its weights for one sample: its output elements per channel, at any width."""
    positions: dict[str, int] = {}
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        model = build(name, data.classes, data.channels, data.size, width).eval()
        for name, layer in layers(model).items():
            layer.register_forward_hook(
                lambda module, _, output, name=name: positions.update({name: output.numel() // len(module.weight)})
            )
        model(torch.zeros(1, data.channels, data.size, data.size))
    return positions


@functools.cache
def without_storage(name: str, data: DataInfo, width: float) -> nn.Module:
    """A network whose weights have shapes but no values."""
    with torch.device("meta"), _Unfilled():
        return build(name, data.classes, data.channels, data.size, width)


class _Unfilled(TorchFunctionMode):
    """Skips the initialisation of tensors: there are no values to fill, and torch takes long to find that out."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name, kwargs = func.__name__, kwargs or {}
        if name.endswith("_") and not name.endswith("__"):
            return (*args, *kwargs.values())[0]
        return func(*args, **kwargs)
