"""DeepR: its step and rewiring against a plain reference, the sign rule, constant totals."""

import math
from collections.abc import Callable

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import nn

from spfde.api import SparseTraining
from spfde.experiments.resolve import resolve
from spfde.methods.deepr import START, pick
from spfde.rounding import count_of

Build = Callable[..., tuple]


def put(method, run, theta: list[float], signs: list[int], mask: list[int]) -> None:
    """theta, signs and mask of the only layer, and an optimizer that does nothing."""
    layer = run.masks["l0"]
    method.signs = {"l0": torch.tensor([signs], dtype=torch.float32)}
    with torch.no_grad():
        layer.weight.copy_(torch.tensor([theta]) * method.signs["l0"])
    layer.start(torch.tensor([mask], dtype=torch.bool))


def test_the_dead_wake_others_with_their_sign(build: Build) -> None:
    method, run = build("deepr", [(1, 6)], target=0.5)
    put(method, run, [0.5, -0.5, 0.5, 0, 0, 0], [1, -1, -1, 1, -1, -1], [1, 1, 1, 0, 0, 0])
    momentum = torch.ones(1, 6)
    run.optimizer.state[run.masks["l0"].weight]["momentum_buffer"] = momentum
    method.after_step(run, 99)  # the last step of 160 epochs of 10 is 1599: still hot, but noise is small beside 0.5
    layer = run.masks["l0"]
    alive = layer.active[0].tolist()
    assert alive[0] and alive[2] and sum(alive) == 3
    woken = next(index for index in (1, 3, 4, 5) if alive[index])
    assert float(layer.weight[0, woken].detach()) == pytest.approx(START * method.signs["l0"][0, woken])
    assert START == 1e-12 and not layer.active[layer.weight == 0].any()
    assert momentum[0].tolist() == [1, 0, 1, 0, 0, 0]  # nothing is left of the dead, the woken begin without momentum


def test_every_dormant_connection_can_wake(build: Build) -> None:
    seen = set()
    for step in range(60):
        method, run = build("deepr", [(1, 6)], target=0.5)
        put(method, run, [0.5, -0.5, 0.5, 0, 0, 0], [1, 1, 1, 1, 1, 1], [1, 1, 1, 0, 0, 0])
        method.after_step(run, step)
        seen |= set(run.masks["l0"].active[0].nonzero().flatten().tolist()) - {0, 2}
    assert seen == {1, 3, 4, 5}


def test_the_step_is_the_formula(build: Build) -> None:
    """theta - lr alpha + sqrt(2 lr T) noise: mean and spread over many active weights."""
    method, run = build("deepr", [(100, 1000)], target=0.0, training__epochs=10, sparsity__options={"l1": 0.01})
    layer = run.masks["l0"]
    method.signs = {"l0": torch.ones_like(layer.weight).detach()}
    with torch.no_grad():
        layer.weight.fill_(1.0)
    method.after_step(run, 0)
    moved = layer.weight.detach() - 1
    spread = math.sqrt(2 * 0.1 * 1e-5)
    assert float(moved.std()) == pytest.approx(spread, rel=0.02)
    assert float(moved.mean()) == pytest.approx(-0.1 * 0.01, abs=5 * spread / math.sqrt(100_000))


def test_temperatures_fall_on_schedule(build: Build) -> None:
    method, _ = build("deepr", steps=10, training__epochs=100)
    expected = {0: 1e-5, 124: 1e-5, 125: 1e-8, 399: 1e-8, 400: 1e-12, 699: 1e-12, 700: 1e-15, 999: 1e-15}
    assert {step: method.temperature(step) for step in expected} == expected


def test_after_the_last_rewiring_masks_stay_and_signs_hold(build: Build) -> None:
    method, run = build("deepr", [(1, 4)], target=0.5, steps=10, training__epochs=10)
    for step, stays in ((94, False), (95, True)):
        put(method, run, [0.5, -0.5, 0, 0], [1, 1, 1, 1], [1, 1, 0, 0])
        run.masks["l0"].mask.requires_grad_(False)
        method.after_step(run, step)
        if stays:
            assert run.masks["l0"].active.int().tolist() == [[1, 1, 0, 0]]
            assert float(run.masks["l0"].weight[0, 1].detach()) == 0
        assert not (run.masks["l0"].weight.detach() < 0).any()


@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(scope=st.sampled_from(["layer", "global"]), target=st.sampled_from([0.3, 0.8, 0.95]), seed=st.integers(0, 999))
def test_totals_are_constant_and_signs_never_change(build: Build, scope: str, target: float, seed: int) -> None:
    shapes = [(10, 30), (8, 4, 3, 3)]
    method, run = build("deepr", shapes, target=target, training__epochs=3, sparsity__options={"scope": scope})
    first = {name: signs.clone() for name, signs in method.signs.items()}
    totals = [count_of(1 - target, math.prod(shape)) for shape in shapes]
    for step in range(30):
        run.step(step, seed)
        counts = [int(layer.active.sum()) for layer in run.masks]
        assert counts == run.masks.counts.tolist()
        assert counts == totals if scope == "layer" else sum(counts) == sum(totals)
        for layer in run.masks:
            assert torch.equal(method.signs[layer.name], first[layer.name])
            assert not (first[layer.name] * layer.weight < 0).any()
            assert not layer.weight[~layer.active].any()
    assert run.masks.overlap_first() < 1


def test_where_training_starts_from_zero_each_sign_is_as_likely(build: Build) -> None:
    method, run = build("deepr", [(100, 100)], target=0.5)
    layer = run.masks["l0"]
    with torch.no_grad():
        layer.weight.zero_()
        layer.weight[0] = -0.5
    signs = method._sign(run, layer)
    assert set(signs[1:].unique().tolist()) == {-1.0, 1.0} and set(signs[0].tolist()) == {-1.0}
    assert abs(float(signs[1:].mean())) < 5 / math.sqrt(9900)


def test_global_scope_moves_connections_between_layers(build: Build) -> None:
    shapes = [(10, 30), (20, 40)]
    method, run = build("deepr", shapes, target=0.9, training__epochs=100, sparsity__options={"scope": "global"})
    with torch.no_grad():
        run.masks["l0"].weight.neg_()  # every connection of the first layer dies
    method.after_step(run, 0)
    counts = run.masks.counts.tolist()
    assert sum(counts) == 110 and counts[0] < 30 < 80 < counts[1]


@given(st.lists(st.booleans(), min_size=1, max_size=40), st.data())
def test_pick_takes_exactly_so_many_candidates(candidates: list[bool], data: st.DataObject) -> None:
    count = data.draw(st.integers(0, sum(candidates)))
    mask = torch.tensor(candidates)
    chosen = pick(mask, torch.tensor(count), torch.Generator().manual_seed(1))
    assert int(chosen.sum()) == count and not (chosen & ~mask).any()


@pytest.mark.parametrize("optimizer", [torch.optim.SGD, torch.optim.AdamW])
def test_sparse_weights_have_no_weight_decay(optimizer: type) -> None:
    model = nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(144, 10))
    chosen = {"sparsity.method": "deepr", "sparsity.dense_layers": "first"}
    optim = optimizer(model.parameters(), lr=0.1, weight_decay=0.3)
    sparse = SparseTraining(model, optim, resolve("smoke", chosen), input_shape=(1, 8, 8), samples=64)
    decay = {id(p): group["weight_decay"] for group in optim.param_groups for p in group["params"]}
    assert [layer.name for layer in sparse.masks] == ["3"] and decay[id(model[3].weight)] == 0
    assert [decay[id(p)] for p in (model[0].weight, model[0].bias, model[3].bias)] == [0.3] * 3
    assert len(decay) == 4
