"""Progressive layer freezing (SpFDE, progressive layer freezing and App. B).

* `schedule`: which blocks are frozen in which epoch, solved for a wanted share of the training FLOPs.
* `schemes`: the candidates among which the schedule is chosen, one function per scheme.
* `adaptive`: the control in which gradient norms choose the epochs.
* `frozen_block`: what holds a frozen block still while the model goes on training.
"""

from spfde.freezing.adaptive import GradientCriterion, candidates
from spfde.freezing.frozen_block import FrozenBlock, blocks_of_parameters, freezing_together
from spfde.freezing.schedule import Ledger, Schedule, solve

__all__ = [
    "FrozenBlock",
    "GradientCriterion",
    "Ledger",
    "Schedule",
    "blocks_of_parameters",
    "candidates",
    "freezing_together",
    "solve",
]
