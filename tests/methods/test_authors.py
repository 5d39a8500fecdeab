"""What the methods' authors publish or do in their code, where it is a number or a rule of its own."""

import math
from collections.abc import Callable
from fractions import Fraction
from typing import Any

import pytest
import torch
from torch import nn
from torch.optim import SGD, Adam, Adamax, AdamW, Optimizer, RMSprop

from spfde import SparseTraining, settings_for
from spfde.errors import SpfdeError
from spfde.experiments.resolve import expand, resolve
from spfde.methods import METHODS, make
from spfde.methods.base import MethodPlan
from spfde.plans import plan_settings
from spfde.settings import RunSettings, parse

Build = Callable[..., tuple]


@pytest.mark.parametrize(("target", "published"), [(0.8, 0.42), (0.9, 0.24)])
def test_erk_of_rigl_leaves_no_layer_dense(target: float, published: float) -> None:
    """Training of ResNet-50 in RigL's own 32,000 steps of 4096 images: its README gives 0.42 and 0.24 of dense."""
    length = {"training.batch_size": 4096, "training.epochs": 102}
    rows = {run.row: run for run in expand("imagenet", "table3", [1], length)}
    plan, dense = plan_settings(rows[f"rigl-s{100 * target:g}"]), plan_settings(rows["dense"])
    assert "conv1" in plan.shapes and plan.settings.sparsity.distribution == "erk"
    share = plan.costs(plan.trace())[0]["paper"] / dense.costs(dense.trace())[0]["paper"]
    assert round(share, 2) == published
    if target == 0.9:
        assert share == pytest.approx(0.244, abs=0.0005)


@pytest.mark.parametrize("removed", [0.0, 0.2])
def test_rigl_makes_250_updates_on_imagenet(removed: float) -> None:
    """25,000 of 32,000 steps at an interval of 100, whatever the batch size; fewer only where data are sieved."""
    plan = plan_settings(resolve("imagenet", {"sparsity.method": "rigl", "sieving.removed": removed}))
    updates = plan.trace()["mask_updates"].groupby(plan.trace()["layer"]).sum().max()
    assert updates == (250 if not removed else 200)


def method_of(name: str, data: str, epochs: int, steps: int, **options: object) -> Any:
    values = {"data": {"name": data}, "training": {"epochs": epochs}, "sparsity": {"method": name, "options": options}}
    return make(MethodPlan(parse(RunSettings, values), {}, steps, {}, steps * epochs))


@pytest.mark.parametrize("batch", [256, 512, 1024, 2048, 4096])
@pytest.mark.parametrize("epochs", [90, 100, 150, 200])
def test_updates_on_imagenet_do_not_depend_on_batch_and_length(batch: int, epochs: int) -> None:
    steps = math.ceil(1_281_167 / batch)
    rigl = method_of("rigl", "imagenet", epochs, steps)
    assert rigl.mask_updates(0, range(steps * epochs)) == 250
    assert rigl.cycle == Fraction(3, 4) * steps * epochs / 250
    kept = method_of("rigl", "imagenet", epochs, steps, scale_interval=False)
    assert kept.cycle == 101


def test_first_mask_of_mest_is_random_or_the_largest_weights(build: Build) -> None:
    _, run = build("mest-ems", [(20, 30)], target=0.9, sparsity__options={"first_mask": "magnitude"})
    draws = torch.Generator().manual_seed(7)
    initial = torch.randn((20, 30), generator=draws).abs()
    largest = initial >= initial.flatten().sort(descending=True).values[71]  # 0.12 x 600, the upper bound
    assert torch.equal(run.masks["l0"].active, largest)
    _, other = build("mest-ems", [(20, 30)], target=0.9)
    assert other.method.options.first_mask == "random"
    assert 2 < int((other.masks["l0"].active & largest).sum()) < 20  # 72 x 72 / 600 = 8.6 by chance


def test_a_dense_layer_of_gse_offers_all_its_positions(build: Build) -> None:
    """From half density on nothing is drawn: S is everything outside the mask."""
    method, run = build("gse-uniform", [(10, 20)], target=0.5, sparsity__options={"gamma": 0.01})
    before = run.masks["l0"].active
    method.after_step(run, 19)  # the first update
    assert method.sampled.sum() == int((~before).sum()) == 100


class Lion(Optimizer):
    """An optimizer with a momentum of its own kind."""

    def __init__(self, parameters: Any) -> None:
        super().__init__(parameters, {"lr": 0.1, "betas": (0.9, 0.99)})


@pytest.mark.parametrize(
    ("make_optimizer", "known"),
    [
        (lambda p: SGD(p, lr=0.1, momentum=0.9), True),
        (Adam, True),
        (AdamW, True),
        (lambda p: SGD(p, lr=0.1), False),
        (RMSprop, False),
        (Adamax, False),
        (Lion, False),
        (lambda p: Adam(p, betas=(0.0, 0.99)), False),
    ],
)
def test_swat_m_refuses_an_optimizer_whose_momentum_it_does_not_know(make_optimizer: Callable, known: bool) -> None:
    model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Flatten(), nn.Linear(288, 4))
    settings = settings_for("swat-m", sparsity=0.75, epochs=30, batch_size=8)

    def training() -> SparseTraining:
        return SparseTraining(model, make_optimizer(model.parameters()), settings, input_shape=(3, 8, 8), samples=8)

    if known:
        training()
        return
    with pytest.raises(SpfdeError, match="keeps none that it knows; use SGD with momentum, Adam or AdamW"):
        training()


def test_rows_of_itop_and_swat_erk_make_the_first_layer_sparse() -> None:
    for name in ("set-itop", "rigl-itop", "swat-erk"):
        assert METHODS[name].defaults["sparsity"] == {"distribution": "erk", "dense_layers": "none"}
