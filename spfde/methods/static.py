"""Training whose masks never change: dense, and a fixed random mask."""

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


@register
class Static(Method):
    """A random mask drawn once; what dynamic sparse training has to beat."""

    name = "static"
    title = "Static random"
    paper = "-"
    kind = "static"
    structured = True
