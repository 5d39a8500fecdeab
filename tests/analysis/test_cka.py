"""Linear CKA: its invariances, its estimator against sums written out, and a hand-made case."""

import itertools

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from spfde.analysis.cka import cka, hsic


def normal(seed: int, *shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@given(st.integers(0, 1000), st.sampled_from([None, 4, 7, 10]))
def test_a_layer_with_itself_is_one_under_rotation_scale_and_shift(seed: int, batch: int | None) -> None:
    features = normal(seed, 20, 6)
    rotation = torch.linalg.qr(normal(seed + 1, 6, 6)).Q
    assert cka(features, features, batch) == pytest.approx(1)
    assert cka(features, 3.7 * features @ rotation + 5, batch) == pytest.approx(1)


def test_it_is_symmetric_and_not_invariant_to_any_linear_map() -> None:
    one, other = normal(1, 40, 6), normal(2, 40, 9)
    assert cka(one, other) == pytest.approx(cka(other, one))
    stretched = one * torch.tensor([10.0, 1, 1, 1, 1, 1], dtype=torch.float64)
    assert cka(one, stretched) < 0.9


def test_one_minibatch_is_the_full_estimator_and_a_short_last_one_is_left_out() -> None:
    one, other = normal(1, 24, 6), normal(2, 24, 9)
    assert cka(one, other, batch=24) == cka(one, other)
    assert cka(one, other, batch=20) == pytest.approx(cka(one[:20], other[:20]))


def test_hsic_is_the_u_statistic_over_distinct_samples() -> None:
    """HSIC = E[k(a,b) h(a,b)] + E[k(a,b) h(c,d)] - 2 E[k(a,b) h(a,c)] over distinct a, b, c, d (Song et al., 2012)."""
    one, other = normal(1, 6, 3), normal(2, 6, 2)
    k, h = one @ one.T, other @ other.T
    sums = [0.0, 0.0, 0.0]
    quadruples = list(itertools.permutations(range(6), 4))
    for a, b, c, d in quadruples:
        sums[0] += float(k[a, b] * h[a, b])
        sums[1] += float(k[a, b] * h[c, d])
        sums[2] += float(k[a, b] * h[a, c])
    expected = (sums[0] + sums[1] - 2 * sums[2]) / len(quadruples)
    assert float(hsic(k, h)) == pytest.approx(expected)


def test_minibatches_average_each_term_before_the_ratio() -> None:
    """Not the mean of the minibatches' ratios (Nguyen et al., 2021, Eq. 1)."""
    one, other = normal(1, 16, 6), normal(2, 16, 9) + torch.nn.functional.pad(normal(1, 16, 6), (0, 3))
    grams = [(x @ x.T, y @ y.T) for x, y in zip(one.split(8), other.split(8), strict=True)]
    both, first, second = (sum(float(hsic(pair[a], pair[b])) for pair in grams) for a, b in ((0, 1), (0, 0), (1, 1)))
    assert cka(one, other, batch=8) == pytest.approx(both / (first * second) ** 0.5)


def test_independent_features_have_none_on_average() -> None:
    values = [cka(normal(seed, 64, 5), normal(seed + 500, 64, 5)) for seed in range(40)]
    assert abs(sum(values) / len(values)) < 0.02  # the biased estimator gives about 0.15 here
