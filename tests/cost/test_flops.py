import copy

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from torch.utils.flop_counter import FlopCounterMode

from spfde.cost import LayerProfile, Profile, flops, make_trace, paper_flops, profile
from spfde.errors import SpfdeError
from spfde.models import blocks, build
from spfde.sparsity.layers import dense_layers

CHAIN = Profile(
    layers=(
        LayerProfile("stem", "conv", 100, 10, 7, 5, block=0, input_block=-1),
        LayerProfile("body", "conv", 200, 20, 8, 7, block=1, input_block=0),
        LayerProfile("head", "linear", 30, 30, 3, 8, block=2, input_block=1),
    ),
    blocks=2,
    parameters=60,
    trainable=(60, 50, 30),
    saved_bytes=(90, 50, 20),
)


def test_by_hand():
    """10 samples, densities 1 / 0.1 / 0.5, then the stem frozen; 7 multiply-accumulates of scoring in one layer."""
    densities = np.array([[1, 0.1, 0.5]] * 2)
    extra = np.array([[0, 7, 0], [0, 0, 0]])
    found = flops(CHAIN, make_trace(CHAIN, densities, 10, [0, 1], extra_macs=extra))
    active = 20 * (3 * 100 + 3 * 20 + 3 * 15)
    assert found["paper"] == pytest.approx(active + 20 * (100 + 3 * 20 + 3 * 15))
    first = 20 * (2 * 100 + 3 * 20 + 3 * 15) + 14  # no input gradient in the stem
    second = 20 * (100 + 2 * 20 + 3 * 15)  # nor in what reads the frozen stem
    assert found["full"] == pytest.approx(first + second)
    assert found["executed"] == pytest.approx(20 * (200 + 600 + 90) + 14 + 20 * (100 + 400 + 90))
    assert found["extra"] == pytest.approx(14)


def test_executed_counts_what_the_trace_says_was_run():
    """Kernels that skip the zeros of the body, whose mask has a tenth of its weights; then the stem frozen too."""
    densities = np.array([[1, 0.1, 0.5]] * 2)
    found = flops(CHAIN, make_trace(CHAIN, densities, 10, [0, 1], executed=np.array([[1, 0.1, 1]] * 2)))
    first, second = 20 * (2 * 100 + 3 * 20 + 3 * 30), 20 * (100 + 2 * 20 + 3 * 30)
    assert found["executed"] == pytest.approx(first + second)
    dense = flops(CHAIN, make_trace(CHAIN, densities, 10, [0, 1], executed=1.0))
    assert dense["executed"] == pytest.approx(20 * (200 + 600 + 90) + 20 * (100 + 400 + 90))


def test_extra_work_as_it_ran_is_in_executed_alone():
    needed, ran = (
        flops(CHAIN, make_trace(CHAIN, np.full((1, 3), 0.5), 10, extra_macs=5.0, executed_extra_macs=macs))
        for macs in (None, 11.0)
    )
    assert ran["executed"] - needed["executed"] == 2 * 3 * (11 - 5)
    assert {**ran, "executed": 0} == {**needed, "executed": 0}


def test_an_empty_layer_still_runs_its_kernels():
    densities = np.array([[1, 0, 0.5], [1, 0, 0.5]])
    found = flops(CHAIN, make_trace(CHAIN, densities, 10, [0, 1]))
    assert found["executed"] == 20 * (200 + 600 + 90) + 20 * (100 + 400 + 90)


def test_mask_updates_by_hand():
    """Score and compare to drop, score and compare to grow: four operations a weight, in neither `paper` nor `extra`.

    Two updates, then three after the stem froze.
    """
    densities = np.full((2, 3), 0.1)
    still, moving = (
        flops(CHAIN, make_trace(CHAIN, densities, 10, [0, 1], mask_updates=updates))
        for updates in (0, np.array([[2], [3]]) * [1, 1, 0])
    )
    operations = 4 * (2 * (10 + 20) + 3 * 20)
    assert moving["full"] - still["full"] == moving["executed"] - still["executed"] == operations
    assert moving["paper"] == still["paper"] and moving["extra"] == still["extra"] == 0


def test_rigl_is_its_amortised_formula():
    """(3 f_S dT + 2 f_S + f_D) / (dT + 1): every dT + 1 steps one with a dense weight gradient (Evci et al. 2020)."""
    density, steps = 0.1, 100
    mean = (steps * density + 1) / (steps + 1)
    found = flops(CHAIN, make_trace(CHAIN, np.full((1, 3), density), 1, weight_grad=mean))
    sparse, dense = 2 * 330 * density, 2 * 330
    assert found["paper"] == pytest.approx((3 * sparse * steps + 2 * sparse + dense) / (steps + 1))
    assert found["extra"] == pytest.approx((dense - sparse) / (steps + 1))


def test_swat_is_a_third_each():
    """Forward 1 - s, input gradient 1 - s, dense weight gradient from 1 - a of the activations."""
    s, a = 0.9, 0.8
    trace = make_trace(CHAIN, np.full((1, 3), 1 - s), 1, weight_grad=1.0, activation_density=1 - a)
    found = flops(CHAIN, trace)
    assert found["paper"] == pytest.approx(2 * 330 * ((1 - s) + (1 - s) + (1 - a)))
    assert found["extra"] == pytest.approx(2 * 330 * s * (1 - a))
    frozen = flops(CHAIN, make_trace(CHAIN, np.full((1, 3), 1 - s), 1, 2, weight_grad=1.0))
    assert frozen["extra"] == pytest.approx(2 * 30 * s)


@settings(max_examples=20, deadline=None)
@given(arrays(float, (4, 3), elements=st.floats(0.01, 1)), st.lists(st.integers(0, 2), min_size=4, max_size=4))
def test_invariants(densities, frozen):
    found = flops(CHAIN, make_trace(CHAIN, densities, 10, frozen))
    free = flops(CHAIN, make_trace(CHAIN, densities, 10))
    assert found["full"] <= found["executed"] * (1 + 1e-12)
    assert all(found[column] <= free[column] * (1 + 1e-12) for column in found)
    assert found["extra"] == 0
    parts = [flops(CHAIN, make_trace(CHAIN, densities[i : i + 1], 10, frozen[i]))["paper"] for i in range(4)]
    assert found["paper"] == pytest.approx(sum(parts))


def test_arrays_give_the_paper_column(resnet32_profile):
    densities = np.random.default_rng(0).random((8, len(resnet32_profile.layers)))
    macs = np.array([layer.macs for layer in resnet32_profile.layers], float)
    frozen = np.array([layer.block for layer in resnet32_profile.layers]) < np.arange(8)[:, None]
    trace = make_trace(resnet32_profile, densities, 640, np.arange(8))
    from_arrays = paper_flops(macs, np.full((8, 1), 640), densities, frozen, densities)
    assert from_arrays == pytest.approx(flops(resnet32_profile, trace)["paper"])


def test_a_trace_of_another_network_is_refused(resnet32_profile):
    with pytest.raises(SpfdeError, match="different layers; profile the model"):
        flops(resnet32_profile, make_trace(CHAIN, np.ones((1, 3)), 1))


def dense_step(found, frozen=0):
    return flops(found, make_trace(found, np.ones((1, len(found.rows))), 1, frozen))


def test_dense_step_of_resnet32(resnet32_profile):
    forward = 2 * sum(layer.macs for layer in resnet32_profile.layers)
    assert forward == pytest.approx(551.249e6, rel=1e-6)
    step = dense_step(resnet32_profile)
    assert step["full"] / forward - 1 == pytest.approx(1.9968, abs=5e-5)
    assert step["paper"] * 160 * 50_000 == pytest.approx(1.323e16, rel=2e-5)
    assert step["executed"] == step["full"]


@pytest.mark.parametrize(("frozen", "full", "paper"), [(5, 0.764, 0.770), (10, 0.546, 0.551), (15, 0.334, 0.333)])
def test_share_of_a_dense_step_left(resnet32_profile, frozen, full, paper):
    dense, step = dense_step(resnet32_profile), dense_step(resnet32_profile, frozen)
    assert step["full"] / dense["full"] == pytest.approx(full, abs=5e-4)
    assert step["paper"] / dense["paper"] == pytest.approx(paper, abs=5e-4)


@pytest.mark.parametrize("frozen", [0, 5, 10, 15])
def test_executed_is_what_torch_counts_in_a_real_step(freeze, resnet32, resnet32_profile, frozen):
    model = copy.deepcopy(resnet32)
    freeze(model, blocks(model), frozen)
    counter = FlopCounterMode(display=False)
    with counter:
        torch.nn.functional.cross_entropy(model(torch.randn(2, 3, 32, 32)), torch.tensor([1, 2])).backward()
    assert counter.get_total_flops() / 2 == pytest.approx(dense_step(resnet32_profile, frozen)["executed"], rel=1e-3)


@pytest.mark.parametrize(
    ("name", "size", "width"), [("resnet56", 8, 0.5), ("vgg16-small", 32, 0.5), ("simple-vit-tiny", 16, 0.2)]
)
def test_executed_is_what_torch_counts_in_other_networks(freeze, name, size, width):
    """Attention's two products of tokens x tokens too, which paper leaves out."""
    model = build(name, 10, 3, size, width)
    found = profile(model, (3, size, size))
    for frozen in (0, 1):
        freeze(model, blocks(model), frozen)
        counter = FlopCounterMode(display=False)
        with counter:
            torch.nn.functional.cross_entropy(model(torch.randn(2, 3, size, size)), torch.tensor([1, 2])).backward()
        assert counter.get_total_flops() / 2 == dense_step(found, frozen)["executed"]
    attention = 4 * 2 * 16 * 16 * 64 if name == "simple-vit-tiny" else 0  # 4 blocks of one head of 64
    assert found.macs.sum() - found.paper_macs.sum() == attention


FIXED = {
    "stem": ("conv1", "bn1", "layer1.0"),
    "middle": ("layer2.0.conv1", "layer2.0.bn1"),
    "all but the classifier": ("conv1", "bn1", "layer1", "layer2", "layer3"),
    "classifier": ("classifier",),
}


@pytest.mark.parametrize("frozen", [0, 2])
@pytest.mark.parametrize("fixed", FIXED)
def test_what_a_user_has_frozen_is_not_trained(freeze, fixed, frozen):
    """Parameters that require no gradient cost no weight gradient, and no input gradient where none is upstream."""
    model = build("resnet8", 10, 3, 8, 0.5)
    for name in FIXED[fixed]:
        model.get_submodule(name).requires_grad_(False)
    found, whole = profile(model, (3, 8, 8)), profile(build("resnet8", 10, 3, 8, 0.5), (3, 8, 8))
    assert found.parameters == whole.parameters == sum(p.numel() for p in model.parameters())
    freeze(model, blocks(model), frozen)
    assert found.trainable[frozen] == sum(p.numel() for p in model.parameters() if p.requires_grad)
    with FlopCounterMode(display=False) as counter:
        loss = torch.nn.functional.cross_entropy(model(torch.randn(2, 3, 8, 8)), torch.tensor([1, 2]))
        if loss.requires_grad:
            loss.backward()
    step = dense_step(found, frozen)
    assert counter.get_total_flops() / 2 == step["executed"] == step["full"]
    trained = [layer.macs for layer in found.layers if layer.block >= frozen]
    assert step["paper"] == 2 * (found.macs.sum() + 2 * sum(trained))


def test_a_bias_that_trains_alone_makes_no_weight_gradient():
    model = build("resnet8", 10, 3, 8, 0.5)
    model.classifier.weight.requires_grad_(False)
    found = profile(model, (3, 8, 8))
    assert found.layers[-1].block == -1 and found.trainable[0] == found.parameters - model.classifier.weight.numel()


PUBLISHED = {
    "none": (1.3229, 0.6615, 0.2646),
    "first": (1.3612, 0.7018, 0.3062),
    "first+shortcut+classifier": (1.4071, 0.7502, 0.3561),
}


@pytest.mark.parametrize("rule", PUBLISHED)
def test_static_training_of_resnet32(resnet32, resnet32_profile, rule):
    """Also the three readings of which layers stay dense that published rows allow."""
    sparse = np.array([layer.name not in dense_layers(resnet32, rule) for layer in resnet32_profile.layers])
    for sparsity, expected in zip((0.90, 0.95, 0.98), PUBLISHED[rule], strict=True):
        trace = make_trace(resnet32_profile, np.tile(1 - sparsity * sparse, (160, 1)), 50_000)
        assert flops(resnet32_profile, trace)["paper"] / 1e15 == pytest.approx(expected, abs=1.01e-4)


@pytest.mark.parametrize(("t_frz", "saved"), [(90, 0.113), (75, 0.157), (60, 0.207), (45, 0.260)])
def test_saving_of_progressive_freezing(resnet32, resnet32_profile, t_frz, saved):
    """90 %, +0.05/+0.025/0 until epochs 90/120; a block every 5 epochs, pruned to the target as it freezes."""
    epochs = np.arange(160)
    upper = 0.1 + np.select([epochs < 90, epochs < 120], [0.05, 0.025], 0.0)
    counts = np.clip((epochs - t_frz) // 5 + 1, 0, 10)
    layers = resnet32_profile.layers
    first = np.array([layer.name == "conv1" for layer in layers])
    frozen = np.array([layer.block for layer in layers]) < counts[:, None]
    free = np.where(first, 1.0, upper[:, None])
    without = flops(resnet32_profile, make_trace(resnet32_profile, free, 50_000))
    settled = np.where(frozen & ~first, 0.1, free)
    with_freezing = flops(resnet32_profile, make_trace(resnet32_profile, settled, 50_000, counts))
    assert 1 - with_freezing["paper"] / without["paper"] == pytest.approx(saved, abs=5.1e-4)
    if t_frz == 45:
        assert 0.75 * with_freezing["paper"] == pytest.approx(0.996e15, abs=5e11)


def test_resnet50_on_imagenet():
    network = profile(build("resnet50", 1000), (3, 224, 224))
    macs = sum(layer.macs for layer in network.layers)
    assert macs == pytest.approx(4.089e9, rel=2e-4)
    assert 2 * macs == pytest.approx(8.2e9, rel=5e-3)
    assert (network.parameters, network.blocks) == (25_557_032, 16)
    dense = make_trace(network, np.ones((100, len(network.layers))), 1_281_167)
    assert flops(network, dense)["paper"] == pytest.approx(3.2e18, rel=0.02)


def test_any_network_by_hand():
    """8 -> 6 -> 4 -> 2: in the second epoch half sparse but the first layer, which is frozen."""
    model = torch.nn.Sequential(torch.nn.Linear(8, 6), torch.nn.ReLU(), torch.nn.Linear(6, 4), torch.nn.Linear(4, 2))
    network = profile(model, (8,))
    trace = make_trace(network, np.array([[1, 1, 1], [1, 0.5, 0.5]]), [10, 6], [0, 1])
    assert trace["forward_density"].tolist() == [1, 1, 1, 1, 0.5, 0.5]
    found = flops(network, trace)
    assert found["paper"] == 2 * (10 * 3 * (48 + 24 + 8) + 6 * (48 + 3 * 12 + 3 * 4))
    assert found["full"] == 2 * (10 * (2 * 48 + 3 * 32) + 6 * (48 + 2 * 12 + 3 * 4))
