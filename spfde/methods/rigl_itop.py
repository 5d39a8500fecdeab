"""RigL-ITOP: RigL with updates so far apart that what was grown is trained before it is judged."""

from typing import Any, ClassVar

from pydantic import Field

from spfde.methods.base import Options, register
from spfde.methods.rigl import Rigl
from spfde.methods.set_itop import ITOP_STEPS, ItopOptions, itop_share


class RiglItopOptions(ItopOptions):
    interval: int = Field(4000, ge=1, description=ItopOptions.model_fields["interval"].description)


@register
class RiglItop(Rigl):
    """Drops by |w| and grows by |dense gradient|, from an ERK start, all training long: Liu et al. 2021, Sec. 4.

    As in RigL an update takes the place of an optimizer step. An interval is the same share of all steps as in ITOP's
    own runs.
    """

    name = "rigl-itop"
    title = "RigL-ITOP"
    paper = "Liu et al., ICML"
    year = 2021
    Options: ClassVar[type[Options]] = RiglItopOptions
    defaults: ClassVar[dict[str, Any]] = {"sparsity": {"distribution": "erk"}}

    @property
    def interval(self) -> int:
        return self.plan.step_interval(self.options.interval, ITOP_STEPS)

    @property
    def end(self) -> float:
        return self.plan.steps - 1  # the last step trains

    def share(self, step: int) -> float:
        return itop_share(self.options, step, self.plan.steps)
