"""SET-ITOP and RigL-ITOP: intervals, the falling share, masks by hand, the explored share R_s."""

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch

from spfde.experiments.resolve import resolve
from spfde.methods.set_itop import itop_share

Build = Callable[..., tuple]


@pytest.mark.parametrize("name", ["set-itop", "rigl-itop"])
def test_share_falls_from_a_half_to_half_a_percent(build: Build, name: str) -> None:
    options = build(name)[0].options
    assert itop_share(options, 0, 1000) == pytest.approx(0.5)
    assert itop_share(options, 1000, 1000) == pytest.approx(0.005)
    assert itop_share(options, 250, 1000) == pytest.approx(0.005 + 0.495 / 2 * (1 + math.cos(math.pi / 4)))
    assert options.regrown == "keep"


@pytest.mark.parametrize(("name", "interval"), [("set-itop", 1500), ("rigl-itop", 4000)])
def test_interval_is_that_of_itop_at_its_own_length(build: Build, name: str, interval: int) -> None:
    _, run = build(name, [(10, 10)], steps=391, training__epochs=250, target=0.9)
    updates = []
    for step in range(interval - 3, interval + 3):
        before = run.masks["l0"].active
        run.step(step)
        updates += [step + 1] if not torch.equal(before, run.masks["l0"].active) else []
    assert updates == [interval if name == "set-itop" else interval + 1]  # RigL's takes the place of a step
    assert resolve("smoke", {"sparsity.method": name}).sparsity.distribution == "erk"


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
    assert math.floor((1 - itop_share(method.options, 10, 100)) * 4 + 0.5) == 2
    values = layer.weight.detach()[0].tolist()
    assert values[:2] == [4.0, 3.0] and int(layer.active.sum()) == 4
    assert values[2] in (0.0, 2.0) and (values[2] == 2.0) == bool(layer.active[0, 2])


def test_rigl_itop_grows_by_the_dense_gradient_and_costs_it(build: Build) -> None:
    method, run = build("rigl-itop", [(1, 8)], target=0.5, steps=100, training__epochs=1)
    layer = run.masks["l0"]
    with torch.no_grad():
        layer.weight.copy_(torch.tensor([[4.0, 3.0, 2.0, 1.0, 0, 0, 0, 0]]))
    layer.start(torch.tensor([[1, 1, 1, 1, 0, 0, 0, 0]], dtype=torch.bool))
    layer.weight.grad = torch.tensor([[0.0, 0, 0, 0.5, 0.1, -9.0, 0.2, 0.3]])
    assert method.before_step(run, 10) is False and method.before_step(run, 11) is True
    assert layer.active.int().tolist() == [[1, 1, 0, 1, 0, 1, 0, 0]]
    assert layer.weight.tolist() == [[4.0, 3.0, 0.0, 1.0, 0.0, 0.0, 0.0, 0.0]]
    assert method.weight_grad_density(np.array([0.2]), range(100)) == pytest.approx(0.2 + 0.8 * 9 / 100)
    assert not method.is_update(98 + 11)
