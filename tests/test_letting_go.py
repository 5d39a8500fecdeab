"""A training has a hold on its model until it ends: another one waits for that, and a lost one leaves nothing."""

import gc

import pytest
import torch
from torch import nn

from spfde import SparseTraining, kernels
from spfde.errors import SpfdeError
from tests.test_guards import train
from tests.test_own_model import EPOCHS, network, settings, sgd, wrap

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
