"""Circular data sieving (SpFDE, circular data sieving).

* `circular`: the partial set that is trained on and the queue of removed samples, which exchange samples.
* `one_shot`: the removal of data-efficient MEST, and the epochs at which either schedule changes the partial set.
* `sampler`: the order in which a training loop of your own sees the partial set.
"""

from spfde.sieving.circular import Sieve
from spfde.sieving.one_shot import SCHEDULES, Removal, samples_by_epoch, update_epochs, warn_of_single_looks
from spfde.sieving.sampler import PartialSetSampler

__all__ = [
    "SCHEDULES",
    "PartialSetSampler",
    "Removal",
    "Sieve",
    "samples_by_epoch",
    "update_epochs",
    "warn_of_single_looks",
]
