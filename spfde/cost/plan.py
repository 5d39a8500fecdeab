"""What training any network would cost, from its input's shape alone: no data, no training."""

from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike
from torch import nn

from spfde.cost.flops import flops
from spfde.cost.memory import Memory, memory
from spfde.cost.profile import Profile, profile
from spfde.cost.trace import make_trace
from spfde.errors import SpfdeError
from spfde.models.blocks import Block
from spfde.sparsity.layers import dense_layers as find_dense_layers


@dataclass(frozen=True)
class Plan:
    """A planned training: the network, its trace, training FLOPs by column, memory in bytes."""

    profile: Profile
    trace: pd.DataFrame
    flops: dict[str, float]
    memory: Memory


def plan(
    model: nn.Module,
    input_shape: tuple[int, ...],
    epochs: int,
    samples: ArrayLike,
    batch_size: int,
    sparsity: ArrayLike = 0.0,
    frozen_blocks: ArrayLike = 0,
    dense_layers: str = "first",
    blocks: list[Block] | None = None,
) -> Plan:
    """Plans the training of a network with uniform sparsity and leading blocks frozen.

    >>> from spfde.models import build
    >>> cost = plan(build("resnet32_2x", 100), (3, 32, 32), epochs=160, samples=50_000, batch_size=64, sparsity=0.9)
    >>> f"{cost.flops['paper']:.4g}"
    '1.361e+15'

    Args:
        model: any module that takes one tensor of shape (batch, *input_shape).
        input_shape: shape of one sample.
        epochs: epochs of training.
        samples: training samples an epoch, a number or shape (epochs,).
        batch_size: samples a step.
        sparsity: share of zeros of each sparse layer, a number or shape (epochs,).
        frozen_blocks: number of frozen leading blocks, a number or shape (epochs,).
        dense_layers: which layers stay dense: "first", "first+classifier", "first+shortcut+classifier" or "none".
        blocks: freezing blocks in forward order; found in the module tree unless given.

    Raises:
        SpfdeError: the model does not run on such an input, or a schedule is out of range or not of `epochs` values.
    """
    found = profile(model, input_shape, blocks)
    ranges = {"sparsity": (sparsity, 1), "frozen_blocks": (frozen_blocks, found.blocks), "samples": (samples, np.inf)}
    for name, (values, most) in ranges.items():
        array = np.asarray(values)
        if array.shape not in ((), (epochs,)) or not np.all((array >= 0) & (array <= most)):
            raise SpfdeError(
                f"{name} is not a schedule", f"give a number of 0 to {most}, or one for each of {epochs} epochs"
            )
    dense = find_dense_layers(model, dense_layers)
    sparse = np.array([layer.name not in dense for layer in found.layers])
    densities = 1 - sparse * np.broadcast_to(sparsity, epochs)[:, None]
    trace = make_trace(found, densities, samples, frozen_blocks)
    return Plan(found, trace, flops(found, trace), memory(found, trace, batch_size))
