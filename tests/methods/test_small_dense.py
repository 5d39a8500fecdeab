"""A narrower dense network costs what the sparse one costs, and is found quickly."""

import time

import numpy as np
import pytest

from spfde.data import info
from spfde.experiments.resolve import resolve
from spfde.methods.small_dense import matching_width, output_positions
from spfde.models import build
from spfde.plans import known_model, plan_settings


def planned(method: str, target: float, **settings: object) -> float:
    run = resolve("smoke", {"sparsity.method": method, "sparsity.target": target, "model.width": 4.0, **settings})
    return plan_settings(run).costs(plan_settings(run).trace())[0]["paper"]


@pytest.mark.parametrize("target", [0.8, 0.9, 0.95])
def test_training_costs_what_the_static_network_costs(target: float) -> None:
    assert planned("small-dense", target) == pytest.approx(planned("static", target), rel=0.03)


def test_the_setting_of_dense_layers_is_the_static_networks() -> None:
    settings = {"sparsity.dense_layers": "first+shortcut+classifier"}
    assert planned("small-dense", 0.9, **settings) == pytest.approx(planned("static", 0.9, **settings), rel=0.03)
    assert planned("small-dense", 0.9, **settings) > planned("small-dense", 0.9)


def test_three_sparsities_of_the_papers_network_take_a_moment() -> None:
    """A workflow resolves every row of every table before it starts; profiling each width would take minutes."""
    begin = time.process_time()
    widths = [matching_width("resnet32_2x", info("cifar100"), 1.0, s, "uniform", "first") for s in (0.9, 0.95, 0.98)]
    assert time.process_time() - begin < 10
    assert widths == sorted(widths, reverse=True)
    assert [round(width, 2) for width in widths] == [0.32, 0.23, 0.15]  # about the root of the cost that is left


def test_positions_times_weights_are_the_profiles_multiply_accumulates() -> None:
    data = info("digits")
    positions = output_positions("resnet8", data, 0.5)
    assert output_positions("resnet8", data, 0.125) == positions
    _, costs = known_model("resnet8", data, 0.5)
    assert {layer.name: layer.macs for layer in costs.layers} == {
        layer.name: positions[layer.name] * layer.weights for layer in costs.layers
    }


def test_the_row_keeps_its_target_and_masks_nothing() -> None:
    run = resolve("smoke", {"sparsity.method": "small-dense", "sparsity.target": 0.8})
    plan = plan_settings(run)
    assert run.row == "small-dense-s80" and run.model.width < 0.5
    assert not plan.shapes and np.all(plan.forward == 1)
    assert plan.costs(plan.trace())[0]["extra"] == 0


def test_finding_a_width_draws_no_random_number() -> None:
    import torch

    before = torch.get_rng_state()
    output_positions.cache_clear()
    matching_width.cache_clear()
    matching_width("resnet8", info("digits"), 1.0, 0.9, "uniform", "first")
    assert torch.equal(torch.get_rng_state(), before)
    assert build("resnet8", 10, 1, 8).conv1.weight.is_cpu


def test_dense_ignores_the_target() -> None:
    assert resolve("smoke", {"sparsity.method": "dense", "sparsity.target": 0.9}).row == "dense"
