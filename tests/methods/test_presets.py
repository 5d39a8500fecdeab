"""Numbers of the methods that decide what is dropped and grown, at every sparsity of the papers' tables."""

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch

from spfde.rounding import count_of

Build = Callable


@pytest.mark.parametrize(
    ("name", "preset", "target", "first"),
    [
        # MEST+EM&S, by the FLOPs of its rows: 2, 3 and 0.85 points above the target density; else 2 points at most
        ("mest-ems", "flops", 0.90, 0.02),
        ("mest-ems", "flops", 0.95, 0.03),
        ("mest-ems", "flops", 0.98, 0.0085),
        ("mest-ems", "flops", 0.99, 0.005),
        ("mest-ems", "flops", 0.80, 0.02),
        # its README names 90 % alone; half of the density is the most elsewhere
        ("mest-ems", "readme", 0.90, 0.02),
        ("mest-ems", "readme", 0.95, 0.02),
        ("mest-ems", "readme", 0.98, 0.01),
        # its scripts: 5, 5 and 2 points, and never more than the density itself elsewhere
        ("mest-ems", "scripts", 0.90, 0.05),
        ("mest-ems", "scripts", 0.95, 0.05),
        ("mest-ems", "scripts", 0.98, 0.02),
        ("mest-ems", "scripts", 0.99, 0.01),
        ("spfde", "scripts", 0.98, 0.02),
        ("spfde", "flops", 0.98, 0.0085),
    ],
)
def test_upper_bounds_of_mest(build: Build, name: str, preset: str, target: float, first: float) -> None:
    """The whole bound for 9/16 of training, half of it until 3/4, the target from then on."""
    method, run = build(name, target=target, training__epochs=160, sparsity__options={"preset": preset})
    layer = run.masks["l0"]
    for epoch, share in ((0, 1.0), (89, 1.0), (90, 0.5), (119, 0.5), (120, 0.0), (159, 0.0)):
        lower, upper = method.bounds(layer, epoch)
        assert (lower, upper) == (pytest.approx(1 - target), pytest.approx(1 - target + share * first))


def test_no_upper_bound_is_above_the_whole_layer(build: Build) -> None:
    method, run = build("mest-ems", target=0.01, training__epochs=160)  # 0.99 + 0.02 would be more
    assert method.bounds(run.masks["l0"], 0) == (pytest.approx(0.99), 1.0)


@pytest.mark.parametrize(("target", "below"), [(0.9, 0.02), (0.95, 0.01), (0.98, 0.004)])
def test_lower_bounds_of_mest(build: Build, target: float, below: float) -> None:
    """A fifth of the density: 2 points at 90 % and 1 at 95 %, as in MEST's scripts."""
    method, run = build("mest-em", target=target, training__epochs=160)
    for epoch, share in ((0, 1.0), (89, 1.0), (90, 0.5), (120, 0.0)):
        lower, upper = method.bounds(run.masks["l0"], epoch)
        assert (lower, upper) == (pytest.approx(1 - target - share * below), pytest.approx(1 - target))


def test_the_share_that_rigl_drops(build: Build) -> None:
    """alpha / 2 (1 + cos(pi t / T_end)) of the active weights, with alpha = 0.3 and T_end at 3/4 of training."""
    method, _ = build("rigl", steps=1000, training__epochs=1)
    assert method.end == 750
    by_hand = {0: 0.3, 250: 0.225, 375: 0.15, 500: 0.075, 750: 0.0}
    assert {step: method.drop_fraction(step) for step in by_hand} == pytest.approx(by_hand)


def test_no_update_of_rigl_comes_when_masks_stay(build: Build) -> None:
    """Every second of four steps would be an update, and from the fourth on, step 3, masks stay."""
    method, _ = build(
        "rigl", steps=4, training__epochs=1, sparsity__options={"interval_steps": 1, "scale_interval": False}
    )
    assert [step for step in range(4) if method.is_update(step)] == [1] and method.mask_updates(0, range(4)) == 1


@pytest.mark.parametrize("name", ["rigl", "rigl-itop"])
def test_an_epoch_of_one_step_that_is_an_update_has_a_dense_gradient(build: Build, name: str) -> None:
    method, _ = build(name, steps=1000, training__epochs=1)
    step = next(step for step in range(1000) if method.is_update(step))
    for density in (0.0, 0.1):
        found = [method.weight_grad_density(np.array([density]), range(at, at + 1)).tolist() for at in (step - 1, step)]
        assert found == [[density], [1.0]]


@pytest.mark.parametrize(("after", "share"), [(0, 0.5), (500, 0.25)])
def test_an_update_of_rigl_drops_that_share(build: Build, after: int, share: float) -> None:
    """Half of alpha when half of the updates' time is over."""
    options = {"drop_fraction": 0.5, "end": 1.0, "interval_steps": 1, "scale_interval": False}
    method, run = build("rigl", [(20, 100)], target=0.9, steps=1000, training__epochs=1, sparsity__options=options)
    step = next(step for step in range(after, 1000) if method.is_update(step))
    layer = run.masks["l0"]
    before, magnitude = layer.active.clone(), layer.weight.detach().abs()
    layer.weight.grad = torch.where(before, 0.0, 1.0)  # everything that grows comes from elsewhere
    exact = 0.25 * (1 + math.cos(math.pi * step / 1000))
    assert not method.before_step(run, step) and exact == pytest.approx(share, abs=0.002)
    kept = count_of((1 - exact) * 0.1, 2000)
    assert int(layer.active.sum()) == 200 and int((before & layer.active).sum()) == kept
    smallest = magnitude[before & layer.active].min()
    assert kept < 200 and bool((magnitude[before & ~layer.active] < smallest).all())
