"""Training recipes: presets, schedules of steps, initial weights by fan-in, and what a recipe is recognised by."""

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from spfde import SparseTraining, freezing, settings_for
from spfde.errors import SpfdeError
from spfde.experiments.recipes import RECIPES, recipe_of
from spfde.experiments.resolve import expand, resolve
from spfde.experiments.stored import read_settings, write_settings
from spfde.plans import describe, plan_settings
from spfde.sparsity.masks import SparseLayer


def test_presets_are_what_their_papers_trained_with() -> None:
    """Epochs, batch, milestones, weight decay, warm-up, rate."""
    known = {
        "paper": (160, 64, [], 1e-4, 0, 0.1),
        "gse": (200, 128, [80, 120], 1e-4, 5, 0.1),
        "gse-vit": (200, 128, [80, 120], 1e-4, 5, 0.01),
        "swat": (150, 128, [50, 100], 5e-4, 0, 0.1),
        "itop": (250, 128, [125, 187], 5e-4, 0, 0.1),
        "baselines": (160, 128, [80, 120], 1e-4, 0, 0.1),
    }
    assert known.keys() == RECIPES.keys() and all(recipe.source for recipe in RECIPES.values())
    for name, (epochs, batch, milestones, decay, warmup, lr) in known.items():
        settings = resolve("cifar100", {"sparsity.method": "set", "recipe": name})
        training = settings.training
        assert (training.epochs, training.batch_size, training.milestones) == (epochs, batch, milestones)
        assert (training.weight_decay, training.warmup_epochs, training.lr) == (decay, warmup, lr)
        assert training.schedule == ("steps" if milestones else "cosine")
        assert recipe_of(settings) == name == settings.recipe
    assert resolve("cifar100", {"recipe": "itop"}).training.nesterov


def test_a_recipe_lies_over_the_scale_and_under_the_row() -> None:
    told = resolve("smoke", {"sparsity.method": "set", "recipe": "gse", "training.epochs": 130})
    assert (told.training.epochs, told.training.batch_size) == (130, 128)  # smoke has 30 and 96
    assert told.sparsity.distribution == "er" and told.sparsity.dense_layers == "none"
    assert told.recipe == "gse" and recipe_of(told) == ""  # of fewer epochs it is GSE's recipe no more
    assert recipe_of(resolve("smoke", {})) == "" and recipe_of(resolve("cifar10", {})) == "paper"
    with pytest.raises(SpfdeError, match=r'unknown recipe "gsee"; did you mean "gse"'):
        resolve("smoke", {"recipe": "gsee"})


def test_the_name_of_a_recipe_makes_no_other_run(tmp_path: Path) -> None:
    named, plain = resolve("cifar100", {}), resolve("cifar100", {"recipe": ""})
    assert named.recipe == "paper" and named.run_id == plain.run_id
    write_settings(tmp_path / "settings.yaml", resolve("cifar100", {"recipe": "gse", "sparsity.method": "set"}))
    again = read_settings(tmp_path / "settings.yaml")[0]
    assert again == resolve("cifar100", {"recipe": "gse", "sparsity.method": "set"})


def test_rows_of_gses_own_networks_have_its_recipe() -> None:
    runs = [run for run in expand("cifar100", "gse", [1]) if run.tag]
    assert {run.model.name: recipe_of(run) for run in runs} == {
        "resnet56": "gse", "vgg16-small": "gse", "simple-vit-tiny": "gse-vit"
    }  # fmt: skip
    for run in runs:
        assert (run.sparsity.distribution, run.sparsity.dense_layers) == ("er", "none")
    assert all(recipe_of(run) == "swat" for run in expand("cifar10", "swat", [1]) if run.tag)
    assert describe(plan_settings(runs[0]))["recipe"] == "gse"


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"milestones": [10]}, "are of a schedule of steps, and training.schedule is cosine"),
        ({"schedule": "steps"}, "training.milestones (none) are not epochs in ascending order within 30"),
        ({"schedule": "steps", "milestones": [20, 10]}, "(20, 10) are not epochs in ascending order"),
        ({"schedule": "steps", "milestones": [30]}, "(30) are not epochs"),
        ({"schedule": "steps", "milestones": [0]}, "(0) are not epochs"),
    ],
)
def test_milestones_that_are_no_schedule_are_refused(values: dict[str, object], message: str) -> None:
    with pytest.raises(SpfdeError) as caught:
        resolve("smoke", {f"training.{key}": value for key, value in values.items()})
    assert message in str(caught.value)


def test_steps_are_those_of_torch_and_stretch_over_a_blocks_own_epochs() -> None:
    parameter = nn.Parameter(torch.zeros(1))
    optimizer = torch.optim.SGD([parameter], lr=0.1)
    scheduler = torch.optim.lr_scheduler.MultiStepLR(optimizer, [80, 120], 0.1)
    wanted = []
    for _ in range(200):
        wanted.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    rates = freezing.Schedule((0,) * 200).learning_rates(1, 0.1, 4e-8, [80 / 200, 120 / 200])
    np.testing.assert_allclose(rates[:, 0], wanted)
    frozen = freezing.Schedule((0,) * 100 + (1,) * 100).learning_rates(1, 0.1, 4e-8, [80 / 200, 120 / 200])
    np.testing.assert_allclose(frozen[:, 0], [0.1] * 40 + [0.01] * 20 + [0.001] * 40 + [0.0] * 100)
    np.testing.assert_allclose(frozen[:, 1], wanted)


def small(**more: Any) -> tuple[nn.Module, SparseTraining]:
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(3, 32, 3),
        nn.ConvTranspose2d(32, 16, 3),
        nn.Conv2d(16, 16, 3, groups=2),
        nn.Flatten(),
        nn.Linear(576, 4),
    )
    told = {"sparsity__initialization": "fan-in", "sparsity__dense_layers": "none", **more}
    method = str(told.pop("method", "set"))
    settings = settings_for(method, sparsity=0.8, epochs=10, batch_size=8, **told)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    return model, SparseTraining(model, optimizer, settings, input_shape=(3, 8, 8), samples=8)


def test_weights_start_uniform_within_the_bound_of_their_real_fan_in() -> None:
    """Each output counts its own active inputs, transposed and grouped ones too; signs are as often + as -."""
    model, sparse = small()
    sparse.begin_epoch(0)
    for layer in sparse.masks:
        module = model.get_submodule(layer.name)
        outputs = [(weight[mask], mask) for weight, mask in zip(*by_output(module, layer), strict=True)]
        for values, mask in outputs:
            bound = math.sqrt(3 / max(1, int(mask.sum())))
            assert values.abs().max() <= bound * 1.0001 if len(values) else True
        shares = torch.cat([values.abs() / math.sqrt(3 / max(1, len(values))) for values, _ in outputs])
        assert shares.mean() == pytest.approx(0.5, abs=0.05) and shares.max() > 0.95
        assert not layer.weight[~layer.active].any()
        bias = module.bias.detach().abs()
        fan_in = torch.tensor([max(1, int(mask.sum())) for _, mask in outputs])
        assert (bias <= (3 / fan_in).sqrt() * 1.0001).all()


def by_output(module: nn.Module, layer: SparseLayer) -> tuple[torch.Tensor, torch.Tensor]:
    """Weights and masks of each output channel, found by hand."""
    if isinstance(module, nn.ConvTranspose2d):
        return layer.weight.detach().transpose(0, 1), layer.active.transpose(0, 1)
    return layer.weight.detach(), layer.active


def test_the_models_own_weights_stay_unless_told() -> None:
    model, sparse = small(sparsity__initialization="model")
    before = {name: value.clone() for name, value in model.state_dict().items()}
    sparse.begin_epoch(0)
    for layer in sparse.masks:
        assert torch.equal(layer.weight[layer.active], before[f"{layer.name}.weight"][layer.active])


def test_weights_that_choose_the_mask_keep_the_bound_of_the_dense_layer() -> None:
    model, sparse = small(method="swat-u")
    sparse.begin_epoch(0)
    for layer in sparse.masks:
        rows, _ = by_output(model.get_submodule(layer.name), layer)
        assert 0.95 < float(layer.weight.detach().abs().max()) / math.sqrt(3 / rows[0].numel()) <= 1


def test_reference_values_of_another_recipe_say_so() -> None:
    from spfde.plans import describe_rows
    from spfde.results.collect import collect
    from spfde.results.material import Material, comparable
    from spfde.results.tables import costs

    plan = describe_rows(run for run in expand("cifar100", "table2", [1]) if run.sparsity.target in (0, 0.9))
    table = costs.table("table2", "Table 2", Material("cifar100", collect([]), plan, comparable("cifar100")))
    place = [column.title for column in table.columns].index("reference")
    said = {row["row"]: cells[place] for row, cells in zip(plan, table.cells, strict=True)}
    assert said["snip-s90"] == "68.89 ± 0.45 (unverified; recipe baselines)"
    assert said["mest-ems-s90"] == "71.30 ± 0.31 (unverified)"
    assert said["spfde-s90-f25-d25"] == "71.02 (derived)"
    assert any("*baselines*: GraSP, Wang et al." in note for note in table.notes)
    assert not any("*paper*: SpFDE" in note for note in table.notes)
