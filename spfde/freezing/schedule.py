"""Progressive layer freezing: which blocks are frozen in which epoch, solved for a wanted share of training FLOPs.

The frozen set is always a prefix of the model's blocks, so a schedule is one number per epoch: how many leading blocks
are frozen. SpFDE, progressive layer freezing and App. B (arXiv 2209.11204). The schemes: `spfde.freezing.schemes`.

All schemes save the same FLOPs. Single-shot is solved first: the latest schedule on the grid of the update interval
that saves at least what is wanted. Every other scheme then adjusts its own free parameters to what single-shot
*achieves*.
"""

import copy
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from spfde.cost.profile import Profile
from spfde.errors import SpfdeError
from spfde.freezing.schemes import SCHEMES, Grid, single_shot
from spfde.rounding import count_of
from spfde.settings import FreezingSettings

TOLERANCE = 0.005  # relative to single-shot's FLOPs: the first candidate this near is taken
ALLOWED = 0.01  # relative too: a scheme that stays farther away cannot be compared at equal cost


@dataclass(frozen=True)
class Schedule:
    """A freezing schedule.

    Attributes:
        counts: frozen leading blocks by epoch.
        achieved: share of the training FLOPs (paper column, before sieving) that it saves.
    """

    counts: tuple[int, ...]
    achieved: float = 0.0

    @property
    def t_frz(self) -> int | None:
        """Epoch at which the first block freezes; None if nothing freezes."""
        return next((epoch for epoch, count in enumerate(self.counts) if count), None)

    def frozen(self, blocks: int) -> np.ndarray:
        """Whether a block is frozen, shape (epochs, blocks + 1); the last column is for what belongs to no block."""
        return np.arange(blocks + 1)[None, :] < np.array(self.counts)[:, None]

    def settled(self, blocks: int, interval: int) -> np.ndarray:
        """Whether a block has its final density, shape (epochs, blocks + 1).

        Freezing prunes a block to its final density. A block that thaws keeps that density until the next mask update.
        """
        settled = self.frozen(blocks)
        for epoch in range(1, len(settled)):
            if epoch % interval:
                settled[epoch] |= settled[epoch - 1]
        return settled

    def learning_rates(
        self, blocks: int, lr: float, lr_min: float, steps: Sequence[float] = (), gamma: float = 0.1
    ) -> np.ndarray:
        """Learning rates by epoch and block, shape (epochs, blocks + 1); the last column is for what is in no block.

        Each block follows its own cosine over the epochs in which it is active, and has rate 0 while it is frozen:
        lr_min + (lr - lr_min) (1 + cos(pi t / F)) / 2, where t is how many epochs the block has been active so far and
        F how many it will be active in all (SpFDE, progressive layer freezing). Steps are stretched alike: the rate is
        lr gamma^k, where k is how many of the steps are not above t / F.

        Args:
            blocks: freezing blocks of the network.
            lr: rate at the start.
            lr_min: rate at the end of the cosine.
            steps: shares of training, each the point at which the rate falls to `gamma` of itself; none: a cosine.
            gamma: that factor.
        """
        active = ~self.frozen(blocks)
        done: np.ndarray = np.cumsum(active, axis=0) - active
        share = done / np.maximum(1, active.sum(axis=0))
        if steps:
            fallen = (share[..., None] >= np.array(steps) - 1e-9).sum(axis=-1)
            return np.where(active, lr * gamma**fallen, 0.0)
        return np.where(active, lr_min + (lr - lr_min) * (1 + np.cos(np.pi * share)) / 2, 0.0)


class Ledger:
    """What a run's schedules save, in the `paper` column before sieving.

    Args:
        interval: update interval in epochs.
        profile: costs and blocks of the layers.
        trained: density of the forward weights while a layer trains, shape (epochs, layers).
        weight_grad: weight-gradient work while a layer trains, as a share of dense, shape (epochs, layers).
        settled: density of a layer that was frozen, shape (layers,).
    """

    def __init__(
        self, interval: int, profile: Profile, trained: np.ndarray, weight_grad: np.ndarray, settled: np.ndarray
    ) -> None:
        self.interval, self.blocks, self.epochs = interval, profile.blocks, len(trained)
        self._macs = profile.paper_macs
        self._block = np.array([layer.block for layer in profile.rows])
        self._settled = settled
        trains = self._block >= 0  # what never trains has no backward pass to save
        self._active = np.where(trains, 2 * trained + weight_grad, trained)  # backward is 2 x forward
        self._thawed = np.where(trains, self._active - 3 * (trained - settled), settled)  # but not grown again yet
        self._total = float((self._active @ self._macs).sum())

    def every(self, interval: int) -> "Ledger":
        """The same run with another update interval, at the densities of this one."""
        other = copy.copy(self)
        other.interval = interval
        return other

    def saved(self, schedule: Schedule) -> float:
        """The share of the training FLOPs that a schedule saves; the forward pass of a frozen block still runs."""
        frozen = schedule.frozen(self.blocks)[:, self._block]
        settled = schedule.settled(self.blocks, self.interval)[:, self._block]
        cost = np.where(frozen, self._settled, np.where(settled, self._thawed, self._active))
        return 1 - float((cost @ self._macs).sum()) / self._total


def blocks_to_freeze(settings: FreezingSettings, blocks: int) -> int:
    """How many leading blocks are to freeze: the wanted share of the model's blocks, rounded half up, at least one."""
    return max(1, count_of(settings.share, blocks))


def grid_of(settings: FreezingSettings, ledger: Ledger, seed: int = 0) -> Grid:
    """The grid of epochs and blocks on which the schemes of a run choose."""
    wanted = blocks_to_freeze(settings, ledger.blocks)
    return Grid(ledger.epochs, ledger.interval, ledger.blocks, wanted, settings.resume, seed)


def solve(settings: FreezingSettings, ledger: Ledger, seed: int = 0) -> Schedule:
    """The schedule of the wanted scheme that saves the wanted share of training FLOPs.

    Single-shot: the latest on the interval's grid that saves at least that much. The others: the first candidate of
    the scheme whose FLOPs are within 0.5 % of single-shot's, or else the nearest one. Adaptive freezing is decided in
    training (`spfde.freezing.adaptive`); until then single-shot's schedule stands for it.

    Args:
        settings: wanted share of FLOPs, share of blocks, scheme.
        ledger: what schedules save in this run.
        seed: the run's, for the random control.

    Raises:
        SpfdeError: there is no block, even the earliest single-shot schedule saves less than is wanted, or the scheme
            cannot come within 1 % of its FLOPs.
    """
    if not settings.flops_reduction:
        return Schedule((0,) * ledger.epochs)
    if not ledger.blocks:
        remedy = "name blocks for it, SparseTraining(..., blocks=[...]), or set freezing.flops_reduction=0"
        raise SpfdeError("layers are to freeze, and the network has no freezing block", remedy)
    grid = grid_of(settings, ledger, seed)
    for counts in single_shot(grid):
        shot = Schedule(counts, ledger.saved(Schedule(counts)))
        if shot.achieved >= settings.flops_reduction:
            return _equal(settings.scheme, grid, ledger, shot) if settings.scheme in SCHEMES else shot
    wanted, best = f"freezing.flops_reduction = {settings.flops_reduction:g}", _most(settings, ledger)
    cause = f"{wanted} is more than freezing can save (at most {best:.3f})"
    raise SpfdeError(cause, ", or ".join(["lower it", *_ways(settings, ledger)]))


def _most(settings: FreezingSettings, ledger: Ledger) -> float:
    """The largest share of FLOPs that single-shot can save."""
    found = (ledger.saved(Schedule(counts)) for counts in single_shot(grid_of(settings, ledger)))
    return max(found, default=0.0)  # there is no schedule where training is no longer than the interval


def _ways(settings: FreezingSettings, ledger: Ledger) -> list[str]:
    """What would let freezing save as much as is wanted: more blocks, or a shorter time from one to the next."""
    wanted, all_blocks = settings.flops_reduction, settings.model_copy(update={"share": 1.0})
    ways = []
    if _most(all_blocks, ledger) >= wanted:
        ways.append("raise freezing.share")
    shorter = [interval for interval in range(1, ledger.interval) if _most(settings, ledger.every(interval)) >= wanted]
    if shorter:
        ways.append(f"set sparsity.interval={shorter[-1]}")
    elif not ways and ledger.interval > 1 and _most(all_blocks, ledger.every(1)) >= wanted:
        ways.append("raise freezing.share and set sparsity.interval=1")
    return ways


def _equal(scheme: str, grid: Grid, ledger: Ledger, shot: Schedule) -> Schedule:
    """The schedule of a scheme that costs what single-shot does."""
    left, nearest = 1 - shot.achieved, Schedule(())
    for counts in SCHEMES[scheme](grid, shot.counts):
        found = Schedule(counts, ledger.saved(Schedule(counts)))
        if abs(found.achieved - shot.achieved) < abs(nearest.achieved - shot.achieved):
            nearest = found
        if abs(nearest.achieved - shot.achieved) <= TOLERANCE * left:
            return nearest
    if abs(nearest.achieved - shot.achieved) <= ALLOWED * left:
        return nearest
    cause = f"freezing.scheme = {scheme} cannot save the {shot.achieved:.3f} that single-shot saves"
    raise SpfdeError(
        f"{cause} (nearest: {nearest.achieved:.3f})", "change freezing.flops_reduction or sparsity.interval"
    )
