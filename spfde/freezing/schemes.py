"""The freezing schemes: candidates, in order of preference, for which leading blocks are frozen in which epoch.

Sources: SpFDE, progressive layer freezing and App. B (arXiv 2209.11204). A candidate is a tuple of counts: frozen
blocks by epoch. `spfde.freezing` takes the first one that costs what single-shot does.

* single-shot: from T_frz on, one more block freezes in every interval until the wanted ones are frozen. Its free
  parameter is T_frz.
* single-shot-resume: every block freezes t epochs earlier, and all blocks thaw for the last t epochs. At constant
  density that saves the same FLOPs; where the density falls over time, the thaw epoch, its free parameter, is moved
  until it does.
* periodic: there are three super-blocks, trained one epoch in four, one in two, and always. The periods are powers of
  two, so a frozen block never follows an active one. Free are the borders of the super-blocks; where there are too few
  blocks for that, also the first periodic epoch, which is the earliest possible in the first quarter of training.
* delayed-periodic: all blocks train first, then the scheme is periodic with more blocks in the first two super-blocks.
  Free are the borders, and the first periodic epoch, which is the earliest possible after a quarter of training.
* random: a control for *when* blocks freeze, at the same FLOPs: the freeze epochs are drawn at random. The order of the
  blocks stays. Freezing saves input gradients of a prefix only, so a set of blocks with holes would save less for the
  same number of blocks and could not be compared at equal cost and equal freezing.
"""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import combinations_with_replacement

import torch

from spfde import rng
from spfde.rounding import down

Counts = tuple[int, ...]
DRAWS = 5000  # how many random schedules are drawn at most


@dataclass(frozen=True)
class Grid:
    """The grid on which schemes choose.

    Attributes:
        epochs: epochs of training.
        interval: update interval in epochs; blocks freeze on its grid.
        blocks: blocks of the model.
        wanted: how many of them single-shot freezes.
        resume: share of training, at its end, for which single-shot-resume thaws all blocks.
        seed: of the random control.
    """

    epochs: int
    interval: int
    blocks: int
    wanted: int
    resume: float = 0.1
    seed: int = 0

    def counts(self, freeze_epochs: list[int]) -> Counts:
        """Frozen blocks by epoch, when one block freezes at each of the given epochs (in ascending order)."""
        return tuple(sum(freeze <= epoch for freeze in freeze_epochs) for epoch in range(self.epochs))

    @property
    def starts(self) -> range:
        """Epochs at which a block may freeze."""
        return range(self.interval, self.epochs, self.interval)


def single_shot(grid: Grid) -> Iterator[Counts]:
    """One candidate for each T_frz, the latest first."""
    for t_frz in reversed(grid.starts):
        yield grid.counts([t_frz + index * grid.interval for index in range(grid.wanted)])


def resume(grid: Grid, shot: Counts) -> Iterator[Counts]:
    """The freeze epochs are fixed on the grid; candidates differ in the thaw epoch, nearest to the wanted one first."""
    t_frz = next(epoch for epoch, count in enumerate(shot) if count)
    wanted = max(1, down(grid.resume * grid.epochs / grid.interval)) * grid.interval
    earlier = min(wanted, t_frz - grid.interval)
    if not earlier:
        return
    frozen = shot[earlier:] + (shot[-1],) * earlier
    for thaw in sorted(range(t_frz, grid.epochs), key=lambda epoch: abs(epoch - (grid.epochs - earlier))):
        yield frozen[:thaw] + (0,) * (grid.epochs - thaw)


def periodic(grid: Grid, shot: Counts) -> Iterator[Counts]:
    """All first periodic epochs before a quarter of training, 0 first, each with all borders."""
    for start in range(_quarter(grid)):
        yield from _from(grid, start)


def delayed_periodic(grid: Grid, shot: Counts) -> Iterator[Counts]:
    """All first periodic epochs from a quarter of training on, each with all borders."""
    for start in range(_quarter(grid), grid.epochs):
        yield from _from(grid, start)


def _quarter(grid: Grid) -> int:
    return math.ceil(grid.epochs / 4)


def _from(grid: Grid, start: int) -> Iterator[Counts]:
    """All pairs of borders (blocks trained 1 epoch in 4, blocks trained at most 1 epoch in 2).

    Super-blocks of similar size come first, those with an empty one last. The last block always trains.
    """
    borders = combinations_with_replacement(range(grid.blocks), 2)
    for first, second in sorted(borders, key=lambda pair: (not 0 < pair[0] < pair[1], abs(pair[1] - 2 * pair[0]))):
        cycle = (0, second, first, second)
        yield tuple(cycle[epoch % 4] if epoch >= start else 0 for epoch in range(grid.epochs))


def random(grid: Grid, shot: Counts) -> Iterator[Counts]:
    """Freeze epochs drawn from a random stretch of the grid, without single-shot's own schedule."""
    draws = rng.generator(grid.seed, "freezing")
    points = torch.tensor(grid.starts)
    for _ in range(DRAWS):
        low, high = torch.randint(len(points), (2,), generator=draws).sort().values.tolist()
        chosen = torch.randint(low, high + 1, (grid.wanted,), generator=draws)
        counts = grid.counts(points[chosen].sort().values.tolist())
        if counts != shot:
            yield counts


SCHEMES: dict[str, Callable[[Grid, Counts], Iterator[Counts]]] = {
    "single-shot-resume": resume,
    "periodic": periodic,
    "delayed-periodic": delayed_periodic,
    "random": random,
}
