"""Training FLOPs of a trace, two per multiply-accumulate, in three columns that must never be mixed.

* `paper`, what published rows use: convolutions and classifier, backward = 2 x forward of every unfrozen block, the
  density that is trained. RigL's amortised formula (3 f_S dT + 2 f_S + f_D) / (dT + 1) follows from its mean
  weight-gradient density (RigL, Evci et al. 2020, App. H); SWAT's (1 - s) + (1 - s) + (1 - a) thirds (Raihan and
  Aamodt 2020) from its activation density. Products of activations (attention) are left out.
* `full`, exact: no input gradient where autograd computes none, products of activations, all work outside ordinary
  steps, and mask updates.
* `executed`, what the hardware ran, as the trace says, and mask updates. Freezing and sieving always save here.
  Sparsity saves only where kernels skipped the zeros. A plan knows no hardware, so it assumes masked dense kernels.

`extra` is the part of `full` at positions outside the mask or outside ordinary steps; mask updates are not in it.

A mask update drops and grows. Each of the two gives every weight of the layer a score and selects the best, which
takes time linear in the weights (radix selection, `torch.topk`): `UPDATE_OPERATIONS` operations per weight in all, each
counted as one FLOP.
"""

import numpy as np
import pandas as pd

from spfde.cost.profile import Profile
from spfde.cost.trace import EXECUTED, check_layers, matrix

UPDATE_OPERATIONS = 4  # per weight and mask update: a score and a comparison to drop, a score and a comparison to grow


def flops(profile: Profile, trace: pd.DataFrame) -> dict[str, float]:
    """Training FLOPs of a trace in the columns `paper`, `full`, `executed` and `extra`.

    Raises:
        SpfdeError: the trace is of another network.
    """
    check_layers(profile, trace)
    macs = profile.macs
    samples, forward, input_grad, weight_grad, activation, frozen, extra_macs, executed_extra = (
        matrix(trace, column, len(macs))
        for column in (
            "samples",
            "forward_density",
            "input_grad_density",
            "weight_grad_density",
            "activation_density",
            "frozen",
            "extra_macs",
            "executed_extra_macs",
        )
    )
    work = samples * macs
    block, input_block = (
        np.array([getattr(layer, name) for layer in profile.rows]) for name in ("block", "input_block")
    )
    frozen_blocks = np.where(frozen, block + 1, 0).max(axis=1, keepdims=True)
    dense = 1.0 + (input_block >= frozen_blocks) + ~frozen  # a layer that has no weights left still runs dense kernels
    ran = np.stack([matrix(trace, column, len(macs)) for column in EXECUTED]).sum(axis=0)
    kernels = np.where(np.isnan(ran), dense, ran)
    updates = mask_update_flops(profile, trace)
    beyond_mask = np.where(frozen, 0.0, np.maximum(0.0, weight_grad - forward) * activation)
    return {
        "paper": paper_flops(profile.paper_macs, samples, forward, frozen, weight_grad * activation),
        "full": float(2 * (work * (forward + input_grad + weight_grad * activation) + extra_macs).sum()) + updates,
        "executed": float(2 * (work * kernels + executed_extra).sum()) + updates,
        "extra": float(2 * (work * beyond_mask + extra_macs).sum()),
    }


def mask_update_flops(profile: Profile, trace: pd.DataFrame) -> float:
    """FLOPs of a trace's mask updates, as the module says."""
    weights = np.array([layer.weights for layer in profile.rows], dtype=float)
    return float(UPDATE_OPERATIONS * (matrix(trace, "mask_updates", len(weights)) @ weights).sum())


def paper_flops(
    macs: np.ndarray, samples: np.ndarray, forward: np.ndarray, frozen: np.ndarray, weight_grad: np.ndarray
) -> float:
    """The `paper` column from arrays: 2 FLOPs per multiply-accumulate, no backward in frozen layers.

    Args:
        macs: forward multiply-accumulates per sample, shape (layers,).
        samples: samples per epoch, shape (epochs, 1) or (epochs, layers).
        forward: density of the forward weights, shape (epochs, layers).
        frozen: whether a layer is frozen, shape (epochs, layers).
        weight_grad: weight-gradient work as a share of dense, shape (epochs, layers).
    """
    return float(2 * (samples * macs * (forward + np.where(frozen, 0.0, forward + weight_grad))).sum())
