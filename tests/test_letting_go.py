"""A training has a hold on its model until it ends: another one waits for that, and a lost one leaves nothing."""

import gc
from typing import Any

import pytest
import torch
from torch import nn

from spfde import SparseTraining, kernels
from spfde.errors import SpfdeError
from tests.test_guards import train
from tests.test_own_model import EPOCHS, epochs, network, settings, sgd, wrap

WHOLE = {"sieving": 0.0}


def begun(model: nn.Module, method: str = "spfde", kind: str = "dense", epochs: int = 5) -> SparseTraining:
    """A training that was interrupted in its fifth epoch, when blocks are frozen already."""
    sparse = wrap(model, sgd(model), settings(method, **WHOLE), kernels=kind)
    train(sparse, range(epochs))
    return sparse


def untouched(model: nn.Module, optimizer: torch.optim.Optimizer) -> bool:
    """Whether nothing of a training is left on a model and an optimizer."""
    plain = network()
    return (
        [type(module) for module in model.modules()] == [type(module) for module in plain.modules()]
        and not any({"train", "forward"} & vars(module).keys() for module in model.modules())
        and all(parameter.requires_grad for parameter in model.parameters())
        and not any(parameter._post_accumulate_grad_hooks for parameter in model.parameters())
        and not optimizer._optimizer_step_pre_hooks
        and not optimizer._optimizer_step_post_hooks
    )


def trains_everything(sparse: SparseTraining) -> bool:
    """Trains to the end; whether every active weight has learned."""
    train(sparse, range(EPOCHS))
    sparse.finish()
    return all(bool((layer.weight[layer.active] != 0).all()) for layer in sparse.masks)


@pytest.mark.parametrize("end", ["finish", "detach"])
def test_a_second_training_of_a_model_waits_for_the_first(end: str) -> None:
    model = network()
    first = begun(model)
    assert first.frozen_blocks and not untouched(model, first.optimizer)
    old = {layer.name: layer.active for layer in first.masks}
    with pytest.raises(SpfdeError, match=r"in epoch 5 of 6; .* build a fresh model .* call finish\(\)"):
        wrap(model, sgd(model), settings("set", **WHOLE, freezing=0.0))
    getattr(first, end)()
    assert untouched(model, first.optimizer)
    second = wrap(model, sgd(model), settings("set", **WHOLE, freezing=0.0, seed=2))
    assert trains_everything(second)
    assert any(bool((layer.active & ~old[layer.name]).any()) for layer in second.masks)


def test_a_part_of_a_model_is_not_free_either() -> None:
    model = network()
    first = begun(model, epochs=1)
    with pytest.raises(SpfdeError, match="another SparseTraining is at work"):
        wrap(nn.Sequential(model, nn.Identity()), sgd(model), settings("set", **WHOLE))
    first.finish()


def test_a_training_that_has_not_begun_gives_way() -> None:
    model = network()
    optimizer = sgd(model)
    first = wrap(model, optimizer, settings("set", **WHOLE, freezing=0.0))
    assert trains_everything(wrap(model, optimizer, settings("set", **WHOLE, freezing=0.0)))
    with pytest.raises(SpfdeError, match=r"epoch 0 begins after detach\(\), or after another SparseTraining was made"):
        first.begin_epoch(0)
    with pytest.raises(SpfdeError, match=r"detach\(\) was called before"):
        first.finish()


@pytest.mark.parametrize(
    ("method", "kind"),
    [
        ("spfde", "dense"),
        ("swat-u", "dense"),
        pytest.param("spfde", "sparse", marks=pytest.mark.skipif(not kernels.available(), reason="no sparse kernels")),
    ],
)
def test_a_lost_training_leaves_nothing_on_model_and_optimizer(method: str, kind: str) -> None:
    model = network()
    first = begun(model, method, kind)
    optimizer = first.optimizer
    assert not untouched(model, optimizer)
    del first
    gc.collect()
    assert untouched(model, optimizer)
    assert trains_everything(wrap(model, sgd(model), settings("set", **WHOLE, freezing=0.0, seed=2)))


def values(optimizer: torch.optim.Optimizer) -> list[tuple[float, float]]:
    return [(group["lr"], group["weight_decay"]) for group in optimizer.param_groups for _ in group["params"]]


@pytest.mark.parametrize("end", ["finish", "detach", "lost"])
@pytest.mark.parametrize("loaded", [False, True])
def test_an_optimizer_gets_its_rates_and_weight_decay_back(end: str, loaded: bool) -> None:
    """Its groups stay split, so that a state which is saved afterwards fits; loading a state makes new groups."""
    model = network()
    optimizer = sgd(model)
    given = values(optimizer)
    first = wrap(model, optimizer, settings("deepr", **WHOLE))
    train(first, range(5))
    assert all(now != before for now, before in zip(values(optimizer), given, strict=True))
    if loaded:
        optimizer.load_state_dict(optimizer.state_dict())
    groups = len(optimizer.param_groups)
    if end != "lost":
        getattr(first, end)()
    del first
    gc.collect()
    assert values(optimizer) == given and len(optimizer.param_groups) == groups
    second = wrap(model, optimizer, settings("set", **WHOLE, freezing=0.0))
    second.begin_epoch(0)
    assert values(optimizer) == given


def test_one_that_gives_way_leaves_no_group_without_weight_decay() -> None:
    model = network()
    optimizer = sgd(model)
    given = values(optimizer)
    first = wrap(model, optimizer, settings("deepr", **WHOLE, freezing=0.0))
    assert values(optimizer) != given
    second = wrap(model, optimizer, settings("set", **WHOLE, freezing=0.0))
    assert first.hold.released and not second.hold.released and values(optimizer) == given


@pytest.mark.parametrize("method", ["deepr", "swat-u"])
def test_one_that_is_refused_leaves_nothing(method: str) -> None:
    """Whatever refuses it comes before model and optimizer change: kernels, a scheduler, a method."""
    model = network()
    optimizer = sgd(model)
    given = [{**group, "params": list(group["params"])} for group in optimizer.param_groups]

    def refused(message: str, optimizer: torch.optim.Optimizer = optimizer, method: str = method, **more: Any) -> None:
        with pytest.raises(SpfdeError, match=message):
            wrap(model, optimizer, settings(method, **WHOLE, freezing=0.0), **more)

    refused('unknown kernels "fast"', kernels="fast")
    scheduled = sgd(model)
    torch.optim.lr_scheduler.StepLR(scheduled, 2)
    refused("by a scheduler", scheduled)
    refused("by momentum", torch.optim.SGD(model.parameters(), lr=0.1), method="swat-m")
    gc.collect()
    assert optimizer.param_groups == given and untouched(model, optimizer)


def test_groups_of_others_are_left_alone() -> None:
    first = begun(network())
    optimizer = first.optimizer
    optimizer.add_param_group({"params": [nn.Parameter(torch.zeros(1))], "lr": 0.7})
    optimizer.param_groups[0]["weight_decay"] = 0.25  # a schedule of the user's own
    first.detach()
    assert optimizer.param_groups[-1]["lr"] == 0.7 and optimizer.param_groups[0]["weight_decay"] == 0.25
    assert {group["lr"] for group in optimizer.param_groups[:-1]} == {0.1}


@pytest.mark.parametrize("sieving", [0.0, 0.25])
@pytest.mark.parametrize("end", ["finish", "detach"])
def test_nothing_is_observed_after_the_end(end: str, sieving: float) -> None:
    sparse = wrap(model := network(), sgd(model), settings("set", freezing=0.0, sieving=sieving))
    for _ in epochs(model, sparse, range(2)):
        pass
    getattr(sparse, end)()
    seen = int(sparse.history.samples.sum())
    indices, logits, labels = torch.arange(4), torch.eye(4), torch.arange(4)
    for call in (lambda: sparse.observe(indices, logits, labels), lambda: sparse.count(indices, labels == 0)):
        with pytest.raises(SpfdeError, match=rf"samples are observed after {end}\(\): .*make another SparseTraining"):
            call()
    assert int(sparse.history.samples.sum()) == seen
