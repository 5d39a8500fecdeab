"""Circular data sieving: easy samples wait in a queue, and samples of the queue come back.

SpFDE, circular data sieving. Training uses the partial set; the removed queue holds the other samples. At each update
the easiest samples of the partial set, those forgotten least often in the interval, go to the tail of the queue, and as
many come back from its head.
"""

import torch
from torch import Tensor

from spfde.errors import SpfdeError
from spfde.rng import generator
from spfde.rounding import count_of
from spfde.settings import SievingSettings


class Sieve:
    """Partial set and removed queue of a run; the two always partition the training set and keep their sizes.

    Attributes:
        partial: membership of the partial set, bool (samples,).
        queue: removed samples from head to tail, int64 (removed,).
        removed: number of samples in the queue: the setting's share of all, rounded half up.
        exchanged: number of samples that change places at each update.
        updates: number of exchanges so far.
        decided: for each exchange, the share of the leaving samples that their score singled out, float64 (updates,);
            the others were drawn at random among samples of the same score.

    Raises:
        SpfdeError: nothing would be left to train on.
    """

    def __init__(self, samples: int, settings: SievingSettings, seed: int, device: torch.device | str = "cpu") -> None:
        self.settings, self.seed, self.updates = settings, seed, 0
        self.removed = count_of(settings.removed, samples)
        if self.removed == samples:
            cause = f"setting sieving.removed = {settings.removed} removes all {samples} samples"
            raise SpfdeError(cause, "remove a smaller share")
        base = samples if settings.exchange == "total" else samples - self.removed
        moved = max(1, count_of(settings.removed, base))  # at least one, otherwise no sample would ever come back
        self.exchanged = min(moved, self.removed, samples - self.removed)

        start = torch.randperm(samples, generator=generator(seed, "sieve", "start"))
        self.queue = start[: self.removed].to(device)
        self.partial = torch.ones(samples, dtype=torch.bool, device=device)
        self.partial[self.queue] = False
        # Only a change from correct to wrong counts as forgetting, so an unknown last prediction can be stored as a
        # wrong one.
        self._was_correct = torch.zeros_like(self.partial)
        self._learned = torch.zeros_like(self.partial)  # predicted correctly at least once in this interval
        self._forgotten = torch.zeros(samples, dtype=torch.int32, device=device)  # in this interval
        self.decided = torch.zeros(0, dtype=torch.float64, device=device)

    def observe(self, indices: Tensor, correct: Tensor) -> None:
        """Counts the predictions of a training step: distinct samples int64 (B,), whether each was right bool (B,)."""
        self._forgotten[indices] += self._was_correct[indices] & ~correct
        self._learned[indices] |= correct
        self._was_correct[indices] = correct

    def update(self, epoch: int) -> None:
        """Makes the exchange at the boundary before `epoch`; a new interval of counting begins."""
        draws = generator(self.seed, "sieve", epoch)
        leaving = self._easiest(draws)
        arriving, staying = self._returning(draws)
        self.partial[leaving] = False
        self.partial[arriving] = True
        self.queue = torch.cat([staying, leaving])
        self.updates += 1
        if self.updates * self.exchanged >= self.removed:  # the first samples have all come back
            self.queue = self.queue[self._permutation(self.removed, draws)]
        self._was_correct[leaving] = False  # its last prediction counts as unknown
        self._learned.zero_()
        self._forgotten.zero_()

    def _easiest(self, draws: torch.Generator) -> Tensor:
        """The samples that leave, the easiest first; ties are broken at random."""
        members = self.partial.nonzero().flatten()
        members = members[self._permutation(len(members), draws)]
        score = torch.zeros_like(self._forgotten[members])  # all alike: the choice is random
        if self.settings.criterion == "forgetting":
            score = self._forgotten[members]
            if self.settings.never_learned == "hard":
                score = score.masked_fill(~self._learned[members], torch.iinfo(score.dtype).max)
            order = score.argsort(stable=True)
            members, score = members[order], score[order]
        self.decided = torch.cat([self.decided, decided_share(score, self.exchanged)[None]])
        return members[: self.exchanged]

    def _returning(self, draws: torch.Generator) -> tuple[Tensor, Tensor]:
        """The samples of the queue that come back, and those that stay, in their order."""
        if self.settings.returns == "head":
            return self.queue[: self.exchanged], self.queue[self.exchanged :]
        drawn = self._permutation(self.removed, draws)
        return self.queue[drawn[: self.exchanged]], self.queue[drawn[self.exchanged :].sort().values]

    def _permutation(self, size: int, draws: torch.Generator) -> Tensor:
        return torch.randperm(size, generator=draws).to(self.partial.device)

    def state_dict(self) -> dict[str, Tensor]:
        """All that a resumed run needs to go on bit for bit, as copies that later updates do not change."""
        return {name: tensor.clone() for name, tensor in self._tensors().items()} | {
            "updates": torch.tensor(self.updates)
        }

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Restores a `state_dict()` of the same settings.

        Raises:
            SpfdeError: the state is of another number of samples or of another share.
        """
        self.decided = self.decided.new_empty(int(state.get("updates", torch.tensor(0))))
        own = self._tensors()
        if state.keys() != {*own, "updates"} or any(state[name].shape != own[name].shape for name in own):
            cause = "the stored sieving state does not fit the settings"
            raise SpfdeError(cause, "resume with the settings that the run began with, or start it anew")
        for name, tensor in own.items():
            tensor.copy_(state[name])
        self.updates = int(state["updates"])

    def _tensors(self) -> dict[str, Tensor]:
        return {
            "partial": self.partial,
            "queue": self.queue,
            "was_correct": self._was_correct,
            "learned": self._learned,
            "forgotten": self._forgotten,
            "decided": self.decided,
        }


def decided_share(score: Tensor, chosen: int) -> Tensor:
    """Share of the first `chosen` samples that their score decided, a float64 without dimensions, on the device.

    Where the last chosen score and the first one that is not chosen are equal, chance has drawn among the samples of
    that score, and only those of lower scores were decided.

    >>> float(decided_share(torch.tensor([0, 1, 1, 1, 1]), 4))
    0.25
    >>> float(decided_share(torch.tensor([0, 0, 1, 1, 2]), 4))
    1.0

    Args:
        score: (samples,) in ascending order.
        chosen: how many of them, from the lowest on, were chosen.
    """
    if not 0 < chosen < len(score):
        return torch.ones((), dtype=torch.float64, device=score.device)
    last = score[chosen - 1]
    drawn = (score == last) & (score[chosen] == last)
    return 1 - drawn[:chosen].double().mean()
