"""No sparsity: the whole network, which every saving is measured against."""

from spfde.methods.base import Method, register


@register
class Dense(Method):
    """No sparsity: the reference of every table. Freezing and sieving work around it and save real time."""

    name = "dense"
    title = "Dense"
    paper = "-"
    kind = "dense"
    scope = "none"
    sparse = False
    uses_target = False
