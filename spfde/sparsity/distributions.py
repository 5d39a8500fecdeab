"""How a sparsity is spread over the layers: uniform, Erdos-Renyi kernel (ERK), Erdos-Renyi (ER)."""

import math
from collections.abc import Callable, Mapping, Sequence

from spfde.errors import SpfdeError, lookup

Shapes = Mapping[str, Sequence[int]]


def densities(distribution: str, shapes: Shapes, sparsity: float) -> dict[str, float]:
    """Density of each layer, such that the layers together have the given sparsity.

    Args:
        distribution: `uniform`, `erk` or `er`.
        shapes: weight shapes (out, in, *kernel) of the sparse layers.
        sparsity: share of zeros over all these layers, in [0, 1).
    """
    return lookup("distribution", distribution, DISTRIBUTIONS)(shapes, sparsity)


def uniform(shapes: Shapes, sparsity: float) -> dict[str, float]:
    return dict.fromkeys(shapes, 1 - sparsity)


def erk(shapes: Shapes, sparsity: float) -> dict[str, float]:
    """Density proportional to (in + out + kernel sides) / (in x out x kernel): RigL, Evci et al. 2020."""
    return _proportional(shapes, sparsity, lambda shape: sum(shape) / math.prod(shape))


def er(shapes: Shapes, sparsity: float) -> dict[str, float]:
    """Density proportional to (in + out) / (in x out), in = channels x kernel: SET, Mocanu et al. 2018, Eq. 1."""

    def ratio(shape: Sequence[int]) -> float:
        fan_in = math.prod(shape[1:])
        return (fan_in + shape[0]) / (fan_in * shape[0])

    return _proportional(shapes, sparsity, ratio)


def _proportional(shapes: Shapes, sparsity: float, ratio: Callable[[Sequence[int]], float]) -> dict[str, float]:
    """Densities epsilon x ratio; a layer that would pass 1 is dense and the others share what is left."""
    sizes = {name: math.prod(shape) for name, shape in shapes.items()}
    ratios = {name: ratio(shape) for name, shape in shapes.items()}
    budget = (1 - sparsity) * sum(sizes.values())
    dense: set[str] = set()
    while open_layers := [name for name in shapes if name not in dense]:
        left = budget - sum(sizes[name] for name in dense)
        epsilon = left / sum(ratios[name] * sizes[name] for name in open_layers)
        over = [name for name in open_layers if epsilon * ratios[name] > 1]
        if not over:
            return {name: 1.0 if name in dense else epsilon * ratios[name] for name in shapes}
        dense.update(over)
    if shapes and sparsity > 0:
        raise SpfdeError(f"sparsity {sparsity} leaves every layer dense", "use the uniform distribution")
    return dict.fromkeys(shapes, 1.0)


DISTRIBUTIONS: dict[str, Callable[[Shapes, float], dict[str, float]]] = {"uniform": uniform, "erk": erk, "er": er}
