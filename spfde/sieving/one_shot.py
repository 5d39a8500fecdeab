"""When data are sieved, and the one-shot removal of MEST's data-efficient training beside the circular sieve.

Two schedules: `circular` exchanges samples at every update (SpFDE, circular data sieving); `once` trains on the whole
set first and then removes the least forgotten samples for good (data-efficient MEST, Yuan et al. 2021).
"""

import warnings

import numpy as np
import torch
from torch import Tensor

from spfde.errors import SpfdeError, SpfdeWarning
from spfde.rng import generator
from spfde.rounding import count_of, down
from spfde.settings import SievingSettings
from spfde.sieving.circular import Sieve

_said: set[str] = set()


class Removal(Sieve):
    """Trains on the whole training set until its one update, and then without the least forgotten samples.

    Forgetting is counted from the first epoch. Samples that were never learned count as the hardest. No sample comes
    back.
    """

    def __init__(self, samples: int, settings: SievingSettings, seed: int, device: torch.device | str = "cpu") -> None:
        super().__init__(samples, settings, seed, device)
        self.partial.fill_(True)
        self.queue = self.queue[:0]
        self.exchanged = self.removed

    def update(self, epoch: int) -> None:
        """Removes the samples, before `epoch`."""
        self.queue = self._easiest(generator(self.seed, "sieve", epoch))
        self.partial[self.queue] = False
        self.updates += 1

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        self.queue = self.queue.new_empty(self.removed if int(state.get("updates", torch.tensor(0))) else 0)
        super().load_state_dict(state)


SCHEDULES: dict[str, type[Sieve]] = {"circular": Sieve, "once": Removal}


def update_epochs(settings: SievingSettings, interval: int, epochs: int) -> range:
    """Epochs before which the partial set changes.

    Args:
        settings: the sieving settings.
        interval: update interval of the masks, used when the sieving settings have none of their own.
        epochs: epochs of training.

    Raises:
        SpfdeError: a one-shot removal before the first epoch, when nothing is known about the samples yet.
    """
    interval = settings.interval or interval
    if settings.schedule == "circular":
        return range(interval, epochs, interval)
    epoch = down(settings.start * epochs) // interval * interval
    if not epoch:
        cause = f"sieving.start = {settings.start:g} of {epochs} epochs is before the first update, epoch {interval}"
        raise SpfdeError(cause, "raise it, train longer or update more often")
    return range(epoch, epoch + 1)


def warn_of_single_looks(settings: SievingSettings, interval: int, epochs: int) -> None:
    """Warns, once per process, where a sample is seen fewer than two times before the sieve judges it.

    Such settings can be planned and compared as they are (a study has them as a control), so this is said where they
    are trained: at the line that makes the `SparseTraining`. The arguments are those of `update_epochs`.
    """
    looks = update_epochs(settings, interval, epochs).start
    key = "sieving.interval" if settings.interval else "sparsity.interval"
    text = (
        f"{key} = {looks}: each sample is seen once between exchanges, so hardly any can be seen to be forgotten, "
        "and chance chooses what leaves; set sieving.interval=2 or more"
    )
    if settings.criterion == "forgetting" and looks < 2 and text not in _said:
        _said.add(text)
        warnings.warn(text, SpfdeWarning, stacklevel=3)


def samples_by_epoch(settings: SievingSettings, interval: int, epochs: int, samples: int) -> np.ndarray:
    """Number of training samples in each epoch, shape (epochs,); the other arguments are those of `update_epochs`."""
    seen = np.full(epochs, samples - count_of(settings.removed, samples))
    if settings.removed and settings.schedule == "once":
        seen[: update_epochs(settings, interval, epochs).start] = samples
    return seen
