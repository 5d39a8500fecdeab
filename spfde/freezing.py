"""Progressive layer freezing: which blocks are frozen in which epoch, solved for a wanted share of training FLOPs.

The frozen set is always a prefix of the model's blocks, so a schedule is one number an epoch: how many leading blocks
are frozen. SpFDE, Sec. 3.2 (arXiv 2209.11204).
"""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np

from spfde.cost.profile import Profile
from spfde.errors import SpfdeError
from spfde.settings import FreezingSettings


@dataclass(frozen=True)
class Schedule:
    """A freezing schedule.

    Attributes:
        counts: frozen leading blocks by epoch.
        t_frz: epoch at which the first block freezes; none where nothing freezes.
        achieved: share of the training FLOPs (paper column, before sieving) that it saves.
    """

    counts: tuple[int, ...]
    t_frz: int | None = None
    achieved: float = 0.0

    def learning_rates(self, blocks: int, lr: float, lr_min: float) -> np.ndarray:
        """Learning rates by epoch and block, shape (epochs, blocks + 1); the last column is what never freezes.

        Each block follows its own cosine over the epochs in which it is active, 0 while it is frozen:
        lr_min + (lr - lr_min) (1 + cos(pi t / F)) / 2, t = epochs it has been active, F = all it will be
        (SpFDE, Sec. 3.2; methods.md, "Learning rate").
        """
        active = np.array(self.counts)[:, None] <= np.arange(blocks + 1)[None, :]
        done: np.ndarray = np.cumsum(active, axis=0) - active
        share = done / np.maximum(1, active.sum(axis=0))
        return np.where(active, lr_min + (lr - lr_min) * (1 + np.cos(np.pi * share)) / 2, 0.0)


def blocks_to_freeze(settings: FreezingSettings, blocks: int) -> int:
    """How many leading blocks get frozen: the share of the model's blocks, rounded half up, at least one."""
    return max(1, min(blocks, math.floor(settings.share * blocks + 0.5)))


def single_shot(epochs: int, interval: int, wanted: int) -> Iterator[Schedule]:
    """From T_frz on, one more block every interval until the wanted ones are frozen; the latest T_frz first."""
    for t_frz in range((epochs - 1) // interval * interval, 0, -interval):
        counts = (min(wanted, (epoch - t_frz) // interval + 1) if epoch >= t_frz else 0 for epoch in range(epochs))
        yield Schedule(tuple(counts), t_frz)


SCHEMES: dict[str, Callable[[int, int, int], Iterator[Schedule]]] = {"single-shot": single_shot}


def solve(
    settings: FreezingSettings,
    interval: int,
    profile: Profile,
    trained: np.ndarray,
    weight_grad: np.ndarray,
    settled: np.ndarray,
) -> Schedule:
    """The latest schedule on the interval's grid that saves at least the wanted share of training FLOPs.

    Args:
        settings: wanted share of FLOPs, share of blocks, scheme.
        interval: update interval in epochs.
        profile: costs and blocks of the layers.
        trained: density of the forward weights while a layer trains, shape (epochs, layers).
        weight_grad: weight-gradient work while a layer trains, as a share of dense, shape (epochs, layers).
        settled: density of a frozen layer, shape (layers,).

    Raises:
        SpfdeError: even the earliest schedule saves less than is wanted.
    """
    epochs = len(trained)
    if not settings.flops_reduction:
        return Schedule((0,) * epochs)
    macs = np.array([layer.macs for layer in profile.layers], dtype=float)
    block = np.array([layer.block for layer in profile.layers])
    saving = (
        2 * trained + weight_grad - settled
    ) * macs  # backward is 2 x forward; forward of a frozen block still runs
    frozen = block[None, :] < np.arange(profile.blocks + 1)[:, None]
    saved = saving @ frozen.T.astype(float)  # (epochs, number of frozen blocks)
    total = ((2 * trained + weight_grad) * macs).sum()
    best = 0.0
    for schedule in SCHEMES[settings.scheme](epochs, interval, blocks_to_freeze(settings, profile.blocks)):
        achieved = float(saved[np.arange(epochs), list(schedule.counts)].sum() / total)
        best = max(best, achieved)
        if achieved >= settings.flops_reduction:
            return Schedule(schedule.counts, schedule.t_frz, achieved)
    cause = (
        f"freezing.flops_reduction = {settings.flops_reduction:g} is more than freezing can save (at most {best:.3f})"
    )
    raise SpfdeError(cause, "lower it, or raise freezing.share")
