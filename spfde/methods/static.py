"""A fixed random mask."""

from spfde.methods.base import Method, register


@register
class Static(Method):
    """A random mask drawn once; what dynamic sparse training has to beat."""

    name = "static"
    title = "Static random"
    paper = "-"
    kind = "static"
    structured = True
