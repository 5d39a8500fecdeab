"""Progressive layer freezing: which blocks are frozen in which epoch, solved for a wanted share of training FLOPs.

The frozen set is always a prefix of the model's blocks, so a schedule is one number per epoch: how many leading blocks
are frozen. SpFDE, Sec. 3.2 and Appendix B (arXiv 2209.11204). The schemes themselves: `spfde.freezing.schemes`.

All schemes save the same FLOPs: single-shot is solved first (the latest schedule on the interval's grid that saves at
least what is wanted), and every other one is solved to what single-shot *achieves*, by parameters of its own.
"""

from dataclasses import dataclass

import numpy as np

from spfde.cost.profile import Profile
from spfde.errors import SpfdeError
from spfde.freezing.schemes import SCHEMES, Grid, single_shot
from spfde.rounding import count_of
from spfde.settings import FreezingSettings

TOLERANCE = 0.005  # a scheme is solved once its FLOPs are so near to single-shot's, as a share of those
ALLOWED = 0.01  # farther from them than this is another cost


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
        """Epoch at which the first block freezes; none where nothing freezes."""
        return next((epoch for epoch, count in enumerate(self.counts) if count), None)

    def frozen(self, blocks: int) -> np.ndarray:
        """Whether a block is frozen, shape (epochs, blocks + 1); the last column is what never freezes."""
        return np.arange(blocks + 1)[None, :] < np.array(self.counts)[:, None]

    def settled(self, blocks: int, interval: int) -> np.ndarray:
        """Whether a block has its final density, shape (epochs, blocks + 1).

        Freezing prunes a block to it, and after thawing it stays so until the next mask update.
        """
        settled = self.frozen(blocks)
        for epoch in range(1, len(settled)):
            if epoch % interval:
                settled[epoch] |= settled[epoch - 1]
        return settled

    def learning_rates(self, blocks: int, lr: float, lr_min: float) -> np.ndarray:
        """Learning rates by epoch and block, shape (epochs, blocks + 1); the last column is what never freezes.

        Each block follows its own cosine over the epochs in which it is active, 0 while it is frozen:
        lr_min + (lr - lr_min) (1 + cos(pi t / F)) / 2, t = epochs it has been active, F = all it will be
        (SpFDE, Sec. 3.2).
        """
        active = ~self.frozen(blocks)
        done: np.ndarray = np.cumsum(active, axis=0) - active
        share = done / np.maximum(1, active.sum(axis=0))
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
        self._macs = np.array([layer.macs for layer in profile.layers], dtype=float)
        self._block = np.array([layer.block for layer in profile.layers])
        self._settled = settled
        self._active = 2 * trained + weight_grad  # backward is 2 x forward
        self._thawed = self._active - 3 * (trained - settled)  # active, but not grown again yet
        self._total = float((self._active @ self._macs).sum())

    def saved(self, schedule: Schedule) -> float:
        """The share of the training FLOPs that a schedule saves; forward of a frozen block still runs."""
        frozen = schedule.frozen(self.blocks)[:, self._block]
        settled = schedule.settled(self.blocks, self.interval)[:, self._block]
        cost = np.where(frozen, self._settled, np.where(settled, self._thawed, self._active))
        return 1 - float((cost @ self._macs).sum()) / self._total


def blocks_to_freeze(settings: FreezingSettings, blocks: int) -> int:
    """How many leading blocks get frozen: the share of the model's blocks, rounded half up, at least one."""
    return max(1, count_of(settings.share, blocks))


def grid_of(settings: FreezingSettings, ledger: Ledger, seed: int = 0) -> Grid:
    """What the schemes have to work with in a run."""
    wanted = blocks_to_freeze(settings, ledger.blocks)
    return Grid(ledger.epochs, ledger.interval, ledger.blocks, wanted, settings.resume, seed)


def solve(settings: FreezingSettings, ledger: Ledger, seed: int = 0) -> Schedule:
    """The schedule of the wanted scheme that saves the wanted share of training FLOPs.

    Single-shot: the latest on the interval's grid that saves at least that much. The others: the first candidate of
    the scheme whose FLOPs are within 0.5 % of single-shot's, or else the nearest one. Adaptive freezing is decided in
    training (`spfde.freezing.adaptive`); single-shot's schedule is what is expected of it.

    Args:
        settings: wanted share of FLOPs, share of blocks, scheme.
        ledger: what schedules save in this run.
        seed: the run's, for the random control.

    Raises:
        SpfdeError: even the earliest single-shot schedule saves less than is wanted, or the scheme cannot come within
            1 % of its FLOPs.
    """
    if not settings.flops_reduction:
        return Schedule((0,) * ledger.epochs)
    grid = grid_of(settings, ledger, seed)
    best = 0.0
    for counts in single_shot(grid):
        shot = Schedule(counts, ledger.saved(Schedule(counts)))
        best = max(best, shot.achieved)
        if shot.achieved >= settings.flops_reduction:
            return _equal(settings.scheme, grid, ledger, shot) if settings.scheme in SCHEMES else shot
    cause = (
        f"freezing.flops_reduction = {settings.flops_reduction:g} is more than freezing can save (at most {best:.3f})"
    )
    raise SpfdeError(cause, "lower it, or raise freezing.share")


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
