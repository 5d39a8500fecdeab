"""Layer densities against closed forms and a reference written here."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from spfde.errors import SpfdeError
from spfde.sparsity.distributions import densities

SHAPES = {"conv": (64, 32, 3, 3), "point": (128, 64, 1, 1), "fc": (10, 128)}


def test_uniform_gives_every_layer_the_same() -> None:
    assert densities("uniform", SHAPES, 0.9) == dict.fromkeys(SHAPES, pytest.approx(0.1))


def test_erk_follows_the_closed_form() -> None:
    found = densities("erk", SHAPES, 0.8)
    raw = {"conv": (64 + 32 + 3 + 3) / (64 * 32 * 9), "point": (128 + 64 + 2) / (128 * 64), "fc": 138 / 1280}
    sizes = {name: math.prod(shape) for name, shape in SHAPES.items()}
    epsilon = 0.2 * sum(sizes.values()) / sum(raw[name] * sizes[name] for name in SHAPES)
    assert epsilon * raw["fc"] > 1  # so fc is dense, and the two others share the rest
    epsilon = (0.2 * sum(sizes.values()) - sizes["fc"]) / sum(raw[name] * sizes[name] for name in ("conv", "point"))
    assert found == pytest.approx({"conv": epsilon * raw["conv"], "point": epsilon * raw["point"], "fc": 1.0})


def test_er_counts_channels_times_kernel_as_inputs() -> None:
    shapes = {"conv": (64, 32, 3, 3), "other": (64, 64, 3, 3)}
    found = densities("er", shapes, 0.95)
    raw = {name: (9 * shape[1] + shape[0]) / (9 * shape[1] * shape[0]) for name, shape in shapes.items()}
    assert found["conv"] / found["other"] == pytest.approx(raw["conv"] / raw["other"])


@given(
    st.lists(st.tuples(st.integers(1, 64), st.integers(1, 64), st.sampled_from([1, 3])), min_size=1, max_size=6),
    st.floats(0.01, 0.99),
    st.sampled_from(["uniform", "erk", "er"]),
)
def test_every_distribution_meets_the_overall_sparsity(
    sides: list[tuple[int, int, int]], sparsity: float, name: str
) -> None:
    shapes = {str(index): (out, inner, k, k) for index, (out, inner, k) in enumerate(sides)}
    sizes = {key: math.prod(shape) for key, shape in shapes.items()}
    found = densities(name, shapes, sparsity)
    assert all(0 < value <= 1 + 1e-12 for value in found.values())
    mean = sum(found[key] * sizes[key] for key in shapes) / sum(sizes.values())
    assert mean == pytest.approx(1 - sparsity)


def test_an_unknown_distribution_names_the_nearest() -> None:
    with pytest.raises(SpfdeError, match='did you mean "uniform"'):
        densities("unifrom", SHAPES, 0.9)
