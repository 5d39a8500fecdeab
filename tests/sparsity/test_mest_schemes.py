"""MEST's block and pattern sparsity against masks derived anew, one unit at a time, in plain NumPy loops."""

import math

import numpy as np
import pytest
import torch

from spfde.sparsity.schemes import scheme

# Positions (row, column) that a kernel keeps, as the authors' code lists them.
KEPT = (
    ((1, 1), (1, 2), (2, 1), (2, 2)),
    ((1, 0), (1, 1), (2, 0), (2, 1)),
    ((0, 1), (0, 2), (1, 1), (1, 2)),
    ((0, 0), (0, 1), (1, 0), (1, 1)),
    ((1, 2), (2, 0), (2, 1), (2, 2)),
    ((1, 0), (1, 1), (1, 2), (2, 1)),
    ((0, 1), (1, 1), (1, 2), (2, 1)),
    ((0, 1), (1, 0), (1, 1), (2, 1)),
)


def weights(*shape: int, seed: int) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=shape)


def block_mask(weight: np.ndarray, density: float) -> np.ndarray:
    """Four neighbouring filters at an input position are one column; the columns of the largest L2 norm stay."""
    mask = np.zeros_like(weight, dtype=bool)
    last = len(weight) - len(weight) % 4
    for filters in ([range(first, first + 4) for first in range(0, last, 4)], [range(last, len(weight))]):
        norms = {}
        for group in filters:
            for position in np.ndindex(weight.shape[1:]) if len(group) else ():
                norms[group, position] = math.sqrt(sum(weight[(one, *position)] ** 2 for one in group))
        count = math.floor(density * len(norms) + 0.5)
        for group, position in sorted(norms, key=norms.__getitem__, reverse=True)[:count]:
            for one in group:
                mask[(one, *position)] = True
    return mask


def pattern_mask(weight: np.ndarray, density: float) -> np.ndarray:
    """Each kernel projected on its best pattern; of each filter the kernels of the largest L2 norm stay."""
    mask = np.zeros_like(weight, dtype=bool)
    kernels = math.floor(round(density * 9 / 4 * weight.shape[1], 6) + 0.5)
    for number, one in enumerate(weight):
        found = []
        for channel, kernel in enumerate(one):
            norms = [math.sqrt(sum(kernel[place] ** 2 for place in kept)) for kept in KEPT]
            found.append((max(norms), channel, KEPT[norms.index(max(norms))]))
        for _, channel, kept in sorted(found, reverse=True)[:kernels]:
            for place in kept:
                mask[(number, channel, *place)] = True
    return mask


@pytest.mark.parametrize("shape", [(8, 6, 3, 3), (10, 5, 3, 3), (12, 7), (3, 6, 1, 1)])
@pytest.mark.parametrize("density", [0.1, 0.22, 0.5])
def test_blocks_of_four_filters_by_l2_norm(shape: tuple[int, ...], density: float) -> None:
    weight = weights(*shape, seed=len(shape))
    mask = scheme("block").keep(torch.ones(shape, dtype=torch.bool), torch.from_numpy(np.abs(weight)), density)
    assert np.array_equal(mask.numpy(), block_mask(weight, density))


@pytest.mark.parametrize("shape", [(8, 6, 3, 3), (5, 16, 3, 3)])
@pytest.mark.parametrize("density", [0.1, 0.25, 4 / 9])
def test_patterns_by_l2_norm_and_as_many_kernels_of_every_filter(shape: tuple[int, ...], density: float) -> None:
    weight = weights(*shape, seed=sum(shape))
    mask = scheme("pattern").keep(torch.ones(shape, dtype=torch.bool), torch.from_numpy(np.abs(weight)), density)
    assert np.array_equal(mask.numpy(), pattern_mask(weight, density))
    assert len(set(mask.flatten(2).any(2).sum(1).tolist())) == 1


def test_an_update_keeps_the_kernels_of_every_filter_alike() -> None:
    """Pruned to a lower density and grown at random, however the scores lie."""
    pattern, draws = scheme("pattern"), torch.Generator().manual_seed(3)
    mask = pattern.random((6, 16, 3, 3), 0.2, draws)
    for lower, upper, kernels in ((0.1, 0.15, 5), (0.1, 0.1, 4)):  # 0.15 x 9 / 4 x 16 = 5.4, 0.1 x 9 / 4 x 16 = 3.6
        kept = pattern.keep(mask, torch.rand(mask.shape, generator=draws) * torch.arange(6).view(6, 1, 1, 1), lower)
        mask = pattern.grow(kept, torch.rand(mask.shape, generator=draws), upper, ~kept)
        assert mask.flatten(2).any(2).sum(1).tolist() == [kernels] * 6
        assert set(mask.flatten(2).sum(2).flatten().tolist()) == {0, 4}
