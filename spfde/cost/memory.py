"""Training memory of a trace, in bytes, everything in fp32.

There are two ledgers, which must never be mixed:

* `paper`, the convention of SpFDE's Fig. 4 (weights, activations and the gradients of both): sparse weights, their
  gradients in active layers, one activation tensor per layer (its output), activation gradients of active layers.
  Frozen layers still count their activations: this is the reading that reproduces the quoted percentages.
* `full`: every parameter with its gradient and momentum, the masks, and the activations that autograd really saves.
  Sparse tensors are counted as stored sparse; gradients in flight and the framework's workspaces are not counted.

A method may keep dense master weights in the layers that train (SWAT, Raihan and Aamodt 2020). A trace does not say so:
RigL, too, has a gradient of every position in an epoch whose only step is an update. The caller says it.
The paper's ledger keeps the share of the activations that the weight gradients use. The full ledger keeps the same
share in that layer, as values and positions; but what BatchNorm and ReLU save of the same activations stays dense.

The full peak is taken over everything that training did: earlier rounds at their densest, and the scoring of the dense
network, which keeps weights, gradients and the activations of its samples before there is any momentum.
"""

from typing import TypedDict

import numpy as np
import pandas as pd

from spfde.cost.profile import Profile
from spfde.cost.trace import check_layers, matrix

BYTES = 4  # of an fp32 number, and of an int32 index


class Memory(TypedDict):
    """Memory in bytes: the minimum and the mean of the paper's ledger over the epochs, and the peak of the full ledger.

    The breakdown says what the peak consists of: weights, gradients, momentum, masks (one bit per position of a sparse
    layer) and activations. Its entry `indices` is not part of the sum: it is what 32-bit positions of the active
    weights would take in place of the masks.
    """

    paper_min: float
    paper_avg: float
    full_peak: float
    breakdown: dict[str, float]


def memory(
    profile: Profile, trace: pd.DataFrame, batch_size: int, momentum: int = 1, dense_masters: bool = False
) -> Memory:
    """Training memory of a trace.

    Args:
        profile: the network.
        trace: its epochs x layers.
        batch_size: samples per step.
        momentum: buffers that the optimizer keeps for each parameter (plain SGD none, SGD with momentum one, Adam two);
            frozen blocks keep theirs too.
        dense_masters: whether all weights of the layers that train are kept (`Method.dense_masters`).

    Raises:
        SpfdeError: the trace is of another network.
    """
    check_layers(profile, trace)
    count = len(profile.rows)
    paper = paper_memory(profile, trace, batch_size, dense_masters)
    samples = matrix(trace, "samples", count)[:, 0]
    moments = _full(profile, trace, batch_size, momentum, dense_masters), _scoring(profile, trace)
    ledger = {part: np.concatenate([moment[part] for moment in moments]) for part in moments[0]}
    total = np.sum([ledger[part] for part in ledger if part != "indices"], axis=0)
    peak = int(np.argmax(total))
    return Memory(
        paper_min=float(paper.min()),
        paper_avg=float(np.average(paper, weights=samples if samples.any() else None)),
        full_peak=float(total[peak]),
        breakdown={part: float(values[peak]) for part, values in ledger.items()},
    )


def paper_memory(profile: Profile, trace: pd.DataFrame, batch_size: int, dense_masters: bool = False) -> np.ndarray:
    """The paper's ledger in bytes by epoch, shape (epochs,): the text of SpFDE's Fig. 4, as the module says."""
    weights, outputs = (
        np.array([getattr(layer, name) for layer in profile.rows], float) for name in ("weights", "output_elements")
    )
    active = ~matrix(trace, "frozen", len(weights))
    activations = outputs * matrix(trace, "activation_density", len(weights))
    stored = weights * _stored(trace, len(weights), dense_masters)
    return BYTES * ((stored + batch_size * activations) * (1 + active)).sum(axis=1)


def _stored(trace: pd.DataFrame, layers: int, dense_masters: bool) -> np.ndarray:
    """Stored share of each layer's weights, shape (epochs, layers): its density, or 1 with dense master weights.

    A layer freezes with its sparse weights alone.
    """
    density, frozen = (matrix(trace, column, layers) for column in ("forward_density", "frozen"))
    return np.where(frozen, density, 1.0) if dense_masters else density


def _full(
    profile: Profile, trace: pd.DataFrame, batch_size: int, momentum: int, dense_masters: bool
) -> dict[str, np.ndarray]:
    """The full ledger by part, each in bytes by epoch, shape (epochs,)."""
    # A weight's gradient takes memory only while its block trains, its momentum also while it is frozen. A layer whose
    # gradient is needed at more positions than it has weights (RigL at an update) is counted with all its positions,
    # since the peak is that step. What autograd saves depends on the number of frozen blocks alone; the profile has it.
    layers = len(profile.rows)
    weights, block = (np.array([getattr(layer, name) for layer in profile.rows]) for name in ("weights", "block"))
    frozen = matrix(trace, "frozen", layers)
    stored = np.maximum(_stored(trace, layers, dense_masters), matrix(trace, "peak_density", layers))
    kept = (weights * stored).sum(axis=1)
    frozen_blocks = np.where(frozen, block + 1, 0).max(axis=1)
    trained_weights = (weights * ~frozen).sum(axis=1)
    other = profile.parameters - weights.sum()  # biases and BatchNorm, dense
    other_trained = np.array(profile.trainable)[frozen_blocks] - trained_weights
    dense_steps = matrix(trace, "weight_grad_density", layers) > stored + 1e-6  # the peak is a step of dense gradients
    gradients = (weights * np.where(dense_steps, 1.0, stored) * ~frozen).sum(axis=1)
    saved = np.array(profile.saved_bytes)[frozen_blocks] + _sparse_activations(profile, trace, frozen_blocks)
    sparse = stored < 1
    return {
        "weights": BYTES * (kept + other),
        "gradients": BYTES * (gradients + other_trained),
        "momentum": BYTES * momentum * (kept + other - (profile.parameters - profile.trainable[0])),
        "masks": (weights * sparse).sum(axis=1) / 8,
        "activations": batch_size * saved,
        "indices": BYTES * (weights * stored * sparse).sum(axis=1),
    }


def _sparse_activations(profile: Profile, trace: pd.DataFrame, frozen_blocks: np.ndarray) -> np.ndarray:
    """What sparse activations change in the saved bytes per sample, shape (epochs,); negative where they save memory.

    A layer that uses a share of its input keeps the values and as many positions; the input itself is gone where no
    other operation and no other layer still keeps it.
    """
    layers = profile.rows
    inputs, last = np.array([[layer.input_elements, max(layer.block, layer.input_block)] for layer in layers]).T
    share = matrix(trace, "activation_density", len(layers))
    in_graph = last >= frozen_blocks[:, None]
    sparse = in_graph & (share < 1) & ~matrix(trace, "frozen", len(layers))
    change = (2 * BYTES * inputs * share * sparse).sum(axis=1)
    # A tensor that several layers and other operations save is stored once, and goes only when nobody needs it dense:
    # when every layer that keeps it is sparse now or has left the graph, and when so many blocks are frozen (`alone`)
    # that no ReLU or BatchNorm in the graph keeps it either.
    for keepers, alone, size in profile.kept_inputs:
        of = list(keepers)
        kept, replaced = in_graph[:, of].any(axis=1), (sparse | ~in_graph)[:, of].all(axis=1)
        gone = kept & replaced & (frozen_blocks >= alone)
        change = change - size * gone
    return change


def _scoring(profile: Profile, trace: pd.DataFrame) -> dict[str, np.ndarray]:
    """The full ledger of scoring the dense network before an epoch, each part of shape (epochs,); 0 without scoring."""
    samples = matrix(trace, "scored_samples", len(profile.rows))[:, 0]
    parameters, nothing = BYTES * profile.parameters * (samples > 0), np.zeros(len(samples))
    return {
        "weights": parameters,
        "gradients": parameters,
        "momentum": nothing,
        "masks": nothing,
        "activations": samples * profile.saved_bytes[0],
        "indices": nothing,
    }
