"""Networks by name."""

from collections.abc import Callable

from torch import nn

from spfde.errors import SpfdeError, lookup
from spfde.rounding import half_up

Builder = Callable[[int, int, int, float], nn.Module]

MODELS: dict[str, Builder] = {}


def register_model(name: str) -> Callable[[Builder], Builder]:
    """Registers `builder(classes, channels, size, width)` under a name."""

    def register(builder: Builder) -> Builder:
        MODELS[name] = builder
        return builder

    return register


def build(name: str, classes: int, channels: int = 3, size: int = 32, width: float = 1.0) -> nn.Module:
    """A freshly initialised network; its random numbers come from torch's global generator.

    Args:
        name: a key of MODELS.
        classes: outputs of the classifier.
        channels: channels of the input images.
        size: height and width of the input images, in pixels.
        width: factor on the channels of every hidden layer.

    Raises:
        SpfdeError: an unknown name (naming the nearest known one), numbers out of range, or images too small.
    """
    builder = lookup("model", name, MODELS)
    if min(classes, channels, size) < 1 or width <= 0:
        given = f"classes {classes}, channels {channels}, size {size}, width {width:g}"
        raise SpfdeError(f"model {name} cannot have {given}", "use positive numbers")
    return builder(classes, channels, size, width)


def scaled(channels: int, width: float) -> int:
    """Channels of a hidden layer at a width factor: rounded, at least one."""
    return max(1, half_up(channels * width))
