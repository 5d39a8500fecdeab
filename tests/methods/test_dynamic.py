"""SET, RigL and MEST against hand-computed masks and closed forms."""

import math
import warnings
from collections.abc import Callable

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from spfde.experiments.resolve import nested, settings_for
from spfde.methods import METHODS, MethodPlan, make
from spfde.rounding import count_of
from spfde.settings import RunSettings, parse

Build = Callable[..., tuple]


def count(run, name: str = "l0") -> int:
    return int(run.masks[name].active.sum())


def put(run, weights: list[float], mask: list[int]) -> None:
    layer = run.masks["l0"]
    with torch.no_grad():
        layer.weight.copy_(torch.tensor(weights).view_as(layer.weight))
    layer.start(torch.tensor(mask, dtype=torch.bool).view_as(layer.weight))


def test_set_drops_the_smallest_and_grows_as_many(build: Build) -> None:
    method, run = build("set", [(1, 10)], target=0.5, sparsity__options={"drop_fraction": 0.4})
    put(run, [0.1, -3.0, 0.2, 2.0, -1.0, 9, 9, 9, 9, 9], [1] * 5 + [0] * 5)
    method.update(run, 5, list(run.masks))
    layer = run.masks["l0"]
    weights = layer.weight.detach().flatten()
    assert count(run) == 5
    assert weights[[1, 3, 4]].tolist() == [-3.0, 2.0, -1.0]  # the three largest stay, 0.4 of 5 go
    assert (weights[layer.active.flatten()] == 0).sum() == 2  # the two grown ones start at 0


def test_signed_ranks_count_exact_zeros_once(build: Build) -> None:
    """With the negative ones: shares of a half each among two positive weights, of a quarter among four others."""
    method, run = build("set", [(1, 6)], target=0.0, sparsity__options={"drop": "signed"})
    with torch.no_grad():
        run.masks["l0"].weight.copy_(torch.tensor([[1.0, 2.0, 0.0, 0.0, -1.0, -2.0]]))
    score = method.drop_score(run.masks["l0"])[0].tolist()
    assert score[:2] == [0.5, 1.0] and sorted(score[2:4]) == [0.25, 0.5] and score[4:] == [0.75, 1.0]


def test_set_signed_drops_the_same_share_of_each_sign(build: Build) -> None:
    method, run = build("set", [(1, 16)], target=0.5, sparsity__options={"drop_fraction": 0.5, "drop": "signed"})
    put(run, [1, 2, 3, 4, -10, -20, -30, -40] + [0.0] * 8, [1] * 8 + [0] * 8)
    method.update(run, 5, list(run.masks))
    weights = run.masks["l0"].weight.detach().flatten()
    assert sorted(weights[weights != 0].tolist()) == [-40, -30, 3, 4]


def test_set_stops_and_decays_as_told(build: Build) -> None:
    method, _ = build("set", sparsity__options={"end": 0.5, "decay": "cosine"}, training__epochs=20)
    assert method.drop_fraction(0) == 0  # the first update comes after the first interval, as in SET's code
    assert method.drop_fraction(5) == pytest.approx(0.3 * (1 + math.cos(math.pi / 2)) / 2)
    assert method.drop_fraction(10) == 0


@pytest.mark.parametrize(("regrown", "value"), [("zero", 0.0), ("keep", 1.0)])
def test_a_weight_dropped_and_regrown(build: Build, regrown: str, value: float) -> None:
    """With every inactive weight taken as a candidate and all of them grown, the dropped one comes back."""
    method, run = build("set", [(1, 4)], target=0.0001, sparsity__options={"drop_fraction": 0.25, "regrown": regrown})
    put(run, [1.0, 2.0, 3.0, 4.0], [1, 1, 1, 1])
    method.update(run, 5, list(run.masks))
    assert run.masks["l0"].weight.tolist() == [[value, 2.0, 3.0, 4.0]]


def test_excluded_weights_do_not_come_back(build: Build) -> None:
    method, run = build("set", [(1, 4)], target=0.5, sparsity__options={"drop_fraction": 0.5, "regrown": "exclude"})
    put(run, [1.0, 2.0, 0.0, 0.0], [1, 1, 0, 0])
    method.update(run, 5, list(run.masks))
    assert not run.masks["l0"].active[0, 0] and count(run) == 2


@pytest.mark.parametrize(("name", "scheme"), [("set", "unstructured"), ("mest", "unstructured"), ("set", "channel")])
def test_counts_stay_exact_where_nothing_else_is_left_to_grow(build: Build, name: str, scheme: str) -> None:
    """Four of twenty places are outside the mask and eight are dropped: four of these have to come back, at 0."""
    told = {"sparsity__options": {"drop_fraction": 0.5, "regrown": "exclude"}, "sparsity__scheme": scheme}
    method, run = build(name, [(5, 20)], target=0.2, **told)
    layer = run.masks["l0"]
    before, outside = count(run), ~layer.active
    for epoch in (5, 10, 15):
        dropped = layer.scheme.keep(layer.active, method.drop_score(layer), 0.4) ^ layer.active
        outside = ~layer.active
        method.update(run, epoch, list(run.masks))
        assert count(run) == before == 80
        assert layer.active[outside].all() and int((layer.active & dropped).sum()) == 20
        assert not layer.weight[layer.active & dropped].any()
        layer.weight.data.normal_(generator=torch.Generator().manual_seed(epoch)).mul_(layer.mask)


def test_rigl_grows_where_the_dense_gradient_is_largest_and_takes_no_step(build: Build) -> None:
    method, run = build(
        "rigl", [(1, 8)], target=0.5, steps=1000, training__epochs=1, sparsity__options={"drop_fraction": 0.5}
    )
    step = next(number for number in range(100) if method.is_update(number))
    assert step == 10  # the interval is 10 steps at least, and the update takes the place of the next
    put(run, [4.0, 3.0, 2.0, 1.0, 0, 0, 0, 0], [1, 1, 1, 1, 0, 0, 0, 0])
    run.masks["l0"].weight.grad = torch.tensor([[0.0, 0, 0, 0.5, 0.1, -9.0, 0.2, 0.3]])
    assert method.before_step(run, step) is False
    share = 0.25 * (1 + math.cos(math.pi * step / 750))
    assert count_of((1 - share) * 0.5, 8) == 2  # so two go: 2.0 and 1.0, and -9.0 and 0.5 have the largest gradients
    assert run.masks["l0"].active.int().tolist() == [[1, 1, 0, 1, 0, 1, 0, 0]]
    assert run.masks["l0"].weight.tolist() == [
        [4.0, 3.0, 0.0, 1.0, 0.0, 0.0, 0.0, 0.0]
    ]  # a regrown one keeps its value


@given(st.integers(0, 900), st.integers(1, 300), st.floats(0.1, 1))
def test_rigl_counts_its_dense_steps_wherever_an_epoch_lies(start: int, steps: int, end: float) -> None:
    values = {"sparsity.method": "rigl", "sparsity.options": {"end": end}}
    method = make(MethodPlan(parse(RunSettings, nested(values)), {}, steps=1000))
    updates = sum(map(method.is_update, range(start, start + steps)))
    dense = method.weight_grad_density(np.zeros(1), range(start, start + steps))
    assert dense == pytest.approx(updates / steps)


def test_rigl_costs_its_amortised_formula(build: Build) -> None:
    """(3 f_S dT + 2 f_S + f_D) / (dT + 1), as long as masks are updated."""
    method, _ = build("rigl", steps=782, training__epochs=160)
    density, interval = np.array([0.1]), 100
    grad = method.weight_grad_density(density, range(0, 50 * (interval + 1)))
    cost = 2 * density + grad
    assert cost == pytest.approx((3 * 0.1 * interval + 2 * 0.1 + 1) / (interval + 1))
    late = range(int(0.75 * 160 * 782) + 1, 160 * 782)
    assert method.weight_grad_density(density, late) == pytest.approx(density)


def test_intervals_in_steps_keep_their_share_of_training(build: Build) -> None:
    assert build("rigl", steps=782, training__epochs=160)[0].plan.step_interval(100) == 100
    assert build("rigl", steps=391, training__epochs=80)[0].plan.step_interval(100) == 25
    assert build("rigl", steps=22, training__epochs=30)[0].plan.step_interval(100) == 10
    assert build("rigl", steps=782, training__epochs=32)[0].cycle == 20 + 1
    kept = {"scale_interval": False}  # what comes from the noise of optimisation need not shrink with training
    assert build("rigl", steps=782, training__epochs=32, sparsity__options=kept)[0].cycle == 100 + 1


def test_mest_importance_adds_the_gradient(build: Build) -> None:
    options = {"gradient_weight": 10.0, "drop_fraction": 0.5}
    method, run = build("mest", [(1, 4)], target=0.5, sparsity__options=options)
    put(run, [2.0, 1.0, 0.0, 0.0], [1, 1, 0, 0])
    method.gradients = {"l0": torch.tensor([[0.1, -0.5, 0.0, 0.0]])}
    assert method.drop_score(run.masks["l0"]).tolist() == [[3.0, 6.0, 0.0, 0.0]]
    method.update(run, 5, list(run.masks))
    assert run.masks["l0"].active[0, 1] and not run.masks["l0"].weight[0, 0]


@pytest.mark.parametrize(
    ("name", "target", "offsets"),
    [
        ("mest-ems", 0.90, (0.02, 0.01, 0)),
        ("mest-ems", 0.95, (0.03, 0.015, 0)),
        ("mest-ems", 0.98, (0.0085, 0.00425, 0)),
        ("mest-ems", 0.60, (0.02, 0.01, 0)),
        ("spfde", 0.90, (0.05, 0.025, 0)),
        ("spfde", 0.95, (0.05, 0.025, 0)),
        ("spfde", 0.98, (0.02, 0.01, 0)),
        ("spfde", 0.60, (0.05, 0.025, 0)),
    ],
)
def test_soft_bounds_follow_their_presets(build: Build, name: str, target: float, offsets: tuple) -> None:
    method, _ = build(name, target=target, training__epochs=160)
    for epoch, offset in zip((0, 90, 120), offsets, strict=True):
        assert method.densities(epoch)["l0"] == pytest.approx(1 - target + offset)
        assert method.densities(max(0, epoch - 1))["l0"] >= method.densities(epoch)["l0"]


@pytest.mark.parametrize("name", ["mest-em", "mest-ems", "spfde"])
@pytest.mark.parametrize(
    ("interval", "message"),
    [(8, "its masks never change"), (7, "starts at half its distance"), (6, "starts at half its distance"), (5, None)],
)
def test_bounds_that_an_interval_skips_are_warned_of(name: str, interval: int, message: str | None) -> None:
    """Of ten epochs, the bounds move after 5 (9/16) and after 7 (3/4), rounded down to the interval's grid."""
    told = {"sparsity": 0.8, "epochs": 10, "batch_size": 8, "freezing": 0.0, "sieving": 0.0}
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        chosen = settings_for(name, interval=interval, **told)
    assert [message in str(each.message) for each in said] == [True] * bool(message)
    if message:
        assert "set sparsity.interval=5 or less" in str(said[0].message)
    method = make(MethodPlan(chosen, {"l": 0.2}))
    assert method.factor(0) == {8: 0.0, 7: 0.5, 6: 0.5}.get(interval, 1.0)
    assert any(method.mask_updates(epoch, range(1)) for epoch in range(10)) == (interval != 8)


def test_elastic_mutation_prunes_below_the_target_and_grows_back(build: Build) -> None:
    method, run = build("mest-em", training__epochs=160)
    layer = run.masks["l0"]
    for epoch, below in ((0, 0.02), (90, 0.01), (120, 0)):
        lower, upper = method.bounds(layer, epoch)
        assert (lower, upper) == (pytest.approx(0.1 - below), pytest.approx(0.1))
    assert build("mest-em", target=0.95, training__epochs=160)[0].bounds(layer, 0)[0] == pytest.approx(0.8 * 0.1)


def test_soft_memory_bound_starts_full_and_ends_at_the_target(build: Build) -> None:
    method, run = build("mest-ems", [(40, 50)], training__epochs=20, sparsity__interval=2)
    assert count(run) == count_of(0.12, 2000)
    for epoch in range(0, 20, 2):
        method.update(run, epoch, list(run.masks))
        assert count(run) == count_of(method.densities(epoch)["l0"], 2000)
        run.step(epoch)
    assert count(run) == 200


def test_a_layer_about_to_freeze_is_pruned_to_the_target(build: Build) -> None:
    method, run = build("spfde", [(40, 50)])
    before = run.masks["l0"].active
    method.settle(run, run.masks["l0"])
    after = run.masks["l0"].active
    assert int(before.sum()) == 300 and int(after.sum()) == 200 and bool((after & ~before).sum() == 0)
    kept = run.masks["l0"].weight.detach().abs()
    assert int((kept > 0).sum()) == 200


DYNAMIC = [name for name, method in METHODS.items() if method.kind == "dynamic"]


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    name=st.sampled_from(DYNAMIC),
    shape=st.sampled_from([(20, 30), (8, 4, 3, 3), (16, 16, 1, 1)]),
    target=st.sampled_from([0.5, 0.8, 0.9, 0.95]),
    seed=st.integers(0, 1000),
)
def test_invariants_of_every_dynamic_method(build: Build, name: str, shape: tuple, target: float, seed: int) -> None:
    """Masked weights and their momentum are exactly 0 after every step; counts stay what the method says."""
    method, run = build(name, [shape, shape], target=target, steps=11, training__epochs=8, sparsity__interval=2)
    for step in range(88):
        epoch = step // 11
        if step % 22 == 0 and method.uses_interval:
            method.update(run, epoch, list(run.masks))
        run.step(step, seed)
        for layer in run.masks:
            off = ~layer.active
            assert not layer.weight[off].any()
            momentum = run.optimizer.state[layer.weight].get("momentum_buffer")
            assert momentum is None or not momentum[off].any()
    if method.scope == "layer":
        for layer in run.masks:
            assert int(layer.active.sum()) == count_of(method.densities(7)[layer.name], layer.weight.numel())
