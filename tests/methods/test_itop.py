"""SET-ITOP and RigL-ITOP: intervals, the falling share, masks by hand, the explored share R_s."""

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from spfde import SparseTraining, settings_for
from spfde.experiments.resolve import resolve

Build = Callable[..., tuple]


@pytest.mark.parametrize("name", ["set-itop", "rigl-itop"])
def test_drop_fraction_falls_from_a_half_to_half_a_percent(build: Build, name: str) -> None:
    method, _ = build(name, steps=100, training__epochs=10)
    assert method.drop_fraction(0) == pytest.approx(0.5)
    assert method.drop_fraction(1000) == pytest.approx(0.005)
    assert method.drop_fraction(250) == pytest.approx(0.005 + 0.495 / 2 * (1 + math.cos(math.pi / 4)))
    assert method.options.regrown == "keep"


@pytest.mark.parametrize(("name", "interval"), [("set-itop", 1500), ("rigl-itop", 4000)])
def test_interval_is_that_of_itop_at_its_own_length(build: Build, name: str, interval: int) -> None:
    _, run = build(name, [(10, 10)], steps=391, training__epochs=250, target=0.9)
    updates = []
    for step in range(interval - 3, interval + 3):
        before = run.masks["l0"].active
        run.step(step)
        updates += [step + 1] if not torch.equal(before, run.masks["l0"].active) else []
    assert updates == [interval]
    sparsity = resolve("smoke", {"sparsity.method": name}).sparsity
    assert (sparsity.distribution, sparsity.dense_layers) == ("erk", "none")  # the first layer is sparse too


@pytest.mark.parametrize("name", ["set-itop", "rigl-itop"])
def test_an_interval_can_stay_in_steps(build: Build, name: str) -> None:
    """What comes from the noise of optimisation has no reason to shrink with the length of training."""
    options = {"interval_steps": 100, "scale_interval": False}
    assert build(name, steps=782, training__epochs=32, sparsity__options=options)[0].interval == 100
    assert build(name, steps=782, training__epochs=32, sparsity__options={"interval_steps": 100})[0].interval < 100


def test_explored_share_is_the_union_of_all_masks(build: Build) -> None:
    _, run = build("set-itop", [(10, 20), (30, 5)], steps=20, training__epochs=5, target=0.9)
    union = [layer.active for layer in run.masks]
    assert run.masks.explored() == pytest.approx(35 / 350)  # the first mask counts
    for step in range(100):
        run.step(step)
        union = [seen | layer.active for seen, layer in zip(union, run.masks, strict=True)]
        assert run.masks.explored() == pytest.approx(sum(int(seen.sum()) for seen in union) / 350)
    assert run.masks.explored() > 0.2 and run.masks.counts.tolist() == [20, 15]


def test_set_itop_drops_the_smallest_and_keeps_what_it_regrows(build: Build) -> None:
    method, run = build("set-itop", [(1, 8)], target=0.5, steps=100, training__epochs=1)
    layer = run.masks["l0"]
    with torch.no_grad():
        layer.weight.copy_(torch.tensor([[4.0, 3.0, 2.0, 1.0, 0, 0, 0, 0]]))
    layer.start(torch.tensor([[1, 1, 1, 1, 0, 0, 0, 0]], dtype=torch.bool))
    method.after_step(run, 9)
    assert math.floor((1 - method.drop_fraction(10)) * 4 + 0.5) == 2
    values = layer.weight.detach()[0].tolist()
    assert values[:2] == [4.0, 3.0] and int(layer.active.sum()) == 4
    assert values[2] in (0.0, 2.0) and (values[2] == 2.0) == bool(layer.active[0, 2])


@pytest.mark.parametrize("after", [1, 2, 3])
def test_an_update_of_set_itop_drops_the_share_after_its_step(build: Build, after: int) -> None:
    """0.5 to 0.005 by a cosine over four steps; so few of so many positions that none grows where it was dropped."""
    options = {"interval_steps": 1, "scale_interval": False}
    method, run = build("set-itop", [(200, 1000)], 4, 0.999, training__epochs=1, sparsity__options=options)
    layer = run.masks["l0"]
    before = layer.active.clone()
    with torch.no_grad():
        layer.weight.copy_(torch.where(before, 1.0 + torch.rand(200, 1000), 0.0))
    method.after_step(run, after - 1)
    share = 0.005 + 0.495 / 2 * (1 + math.cos(math.pi * after / 4))
    assert int((before & layer.active).sum()) == math.floor((1 - share) * 200 + 0.5)
    assert int(layer.active.sum()) == 200


def test_rigl_itop_steps_and_then_grows_by_the_dense_gradient(build: Build) -> None:
    """The optimizer's step decides what is smallest; the dense gradient of that step says what grows."""
    method, run = build("rigl-itop", [(1, 8)], target=0.5, steps=100, training__epochs=1)
    layer = run.masks["l0"]
    with torch.no_grad():
        layer.weight.copy_(torch.tensor([[4.0, 3.0, 2.0, 2.5, 0, 0, 0, 0]]))
    layer.start(torch.tensor([[1, 1, 1, 1, 0, 0, 0, 0]], dtype=torch.bool))
    run.optimizer = torch.optim.SGD([layer.weight], lr=1.0)
    layer.weight.grad = torch.tensor([[0.0, 0, -2.0, 0.5, 0.1, -9.0, 0.2, 5.0]])
    assert not method.is_update(8) and method.is_update(9)
    assert method.before_step(run, 9) is True  # a step is taken
    run.masks.mask_gradients()
    run.optimizer.step()
    run.masks.mask_weights()
    assert layer.weight.tolist() == [[4.0, 3.0, 4.0, 2.0, 0, 0, 0, 0]]
    method.after_step(run, 9)  # after the step 3.0 and 2.0 are the smallest; -9.0 and 5.0 grow
    assert layer.active.int().tolist() == [[1, 0, 1, 0, 0, 1, 0, 1]]
    assert layer.weight.tolist() == [[4.0, 0, 4.0, 0, 0, 0, 0, 0]]
    layer.weight.grad = torch.zeros_like(layer.weight)
    assert method.before_step(run, 10) is True and not method.gradients


def test_rigl_itop_in_training_grows_where_the_dense_gradient_of_the_step_is_largest() -> None:
    """In `SparseTraining`, which masks gradients wherever no method asks for dense ones."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 8), nn.Linear(8, 12), nn.Linear(12, 2))
    settings = settings_for(
        "rigl-itop",
        epochs=5,
        batch_size=4,
        sparsity=0.5,
        interval=1,
        sparsity__distribution="uniform",
        options={"interval_steps": 10, "scale_interval": False},
    )
    optimizer = torch.optim.SGD(model.parameters(), 0.1, 0.9)
    sparse = SparseTraining(model, optimizer, settings, input_shape=(6,), samples=16)
    layer = sparse.masks["1"]
    for epoch in range(3):
        sparse.begin_epoch(epoch)
        for step in range(4):
            indices = torch.arange(4) + 4 * step
            inputs, labels = torch.randn(4, 6), indices % 2
            logits, before = model(inputs), layer.active
            loss = F.cross_entropy(logits, labels)
            (dense,) = torch.autograd.grad(loss, layer.weight, retain_graph=True)
            loss.backward()
            optimizer.step()
            optimizer.zero_grad()
            sparse.observe(indices, logits, labels)
            grown = layer.active & ~before
            assert bool(grown.any()) == (sparse.step == 10)
            if grown.any():
                others = ~before & ~layer.active
                assert dense.abs()[grown].min() >= dense.abs()[others].max() > 0


def test_rigl_itop_costs_a_dense_gradient_per_update(build: Build) -> None:
    """dT steps cost 3 f_S (dT - 1) + 2 f_S + f_D: none of them is lost."""
    method, _ = build("rigl-itop", steps=391, training__epochs=250)
    density = np.array([0.1])
    cost = 2 * density + method.weight_grad_density(density, range(0, 4000 * 10))
    assert cost == pytest.approx((3 * 0.1 * 3999 + 2 * 0.1 + 1) / 4000)
    assert not method.is_update(250 * 391 - 1)
