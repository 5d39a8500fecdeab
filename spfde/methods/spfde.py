"""SpFDE: MEST+EM&S with progressive layer freezing and circular data sieving."""

from typing import ClassVar

from spfde.methods.base import Options, register
from spfde.methods.mest import MestEms, ScriptsOptions


@register
class Spfde(MestEms):
    """The subject of this project (Yuan et al., NeurIPS 2022): its masks are EM&S with the bounds of MEST's scripts.

    Freezing and sieving are settings of their own and work around every method; this one turns both on, at 20 %,
    by default.
    """

    name = "spfde"
    title = "SpFDE"
    paper = "Yuan et al., NeurIPS"
    year = 2022
    Options: ClassVar[type[Options]] = ScriptsOptions
    defaults: ClassVar[dict[str, dict[str, float]]] = {
        "freezing": {"flops_reduction": 0.2},
        "sieving": {"removed": 0.2},
    }
