"""What a loop of somebody else gets wrong without noticing is said where the next epoch begins, with the remedy."""

import copy
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from timm.optim import Lookahead
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from spfde import SparseTraining
from spfde.errors import SpfdeError
from spfde.models import Block
from spfde.settings import RunSettings
from tests.test_own_model import DATA, EPOCHS, SAMPLES, epochs, network, plain_step, settings, sgd, wrap

POSITIONS, (IMAGES, LABELS) = torch.arange(SAMPLES), DATA.tensors
DENSE_DATA = {"freezing": 0.0, "sieving": 0.0, "batch_size": SAMPLES}


def train(sparse: SparseTraining, which: range, optimizer: torch.optim.Optimizer | None = None) -> None:
    """A step an epoch on all samples."""
    for epoch in which:
        sparse.begin_epoch(epoch)
        logits = plain_step(sparse.model, optimizer or sparse.optimizer, IMAGES, LABELS)
        sparse.observe(POSITIONS, logits, LABELS)


def simple(method: str = "set", model: nn.Module | None = None, **more: Any) -> SparseTraining:
    model = model or network()
    return wrap(model, sgd(model), settings(method, **DENSE_DATA), **more)


# steps and samples


class TwoParts(torch.optim.Optimizer):
    """SAM's shape: two methods in place of `step`."""

    def __init__(self, parameters: Any) -> None:
        super().__init__(parameters, {"lr": 0.1})
        self.base = torch.optim.SGD(self.param_groups, lr=0.1)

    def second_step(self) -> None:
        self.base.step()


def test_steps_that_are_not_seen_are_an_error_of_the_next_epoch() -> None:
    model = network()
    optimizer = TwoParts(model.parameters())
    sparse = wrap(model, optimizer, settings("set", **DENSE_DATA))
    sparse.begin_epoch(0)
    logits = model(IMAGES)
    F.cross_entropy(logits, LABELS).backward()
    optimizer.second_step()
    sparse.observe(POSITIONS, logits, LABELS)
    with pytest.raises(SpfdeError, match=r"no optimizer step was seen in epoch 0; give .* \(SAM\)"):
        sparse.begin_epoch(1)
    sparse = simple()
    train(sparse, range(1), sgd(sparse.model))  # another optimizer than the one that was given
    for boundary in (lambda: sparse.begin_epoch(1), sparse.finish):
        with pytest.raises(SpfdeError, match="no optimizer step was seen in epoch 0"):
            boundary()


def test_a_wrapper_that_calls_no_hooks_is_refused_and_what_it_wraps_is_right() -> None:
    model = network()
    base = sgd(model)
    with pytest.raises(SpfdeError, match=r"Lookahead leaves out the __init__.*; give .* the optimizer that it wraps"):
        wrap(model, Lookahead(base), settings("set", **DENSE_DATA)).begin_epoch(0)

    class Bare(torch.optim.Optimizer):
        def __init__(self) -> None:
            self.param_groups = base.param_groups

    for optimizer, cause in ((Bare(), "Bare leaves out the __init__"), (model, "and no torch.optim.Optimizer")):
        with pytest.raises(SpfdeError, match=cause):
            wrap(model, optimizer, settings("set", **DENSE_DATA))

    sparse = wrap(model, base, settings("set", **DENSE_DATA))
    train(sparse, range(EPOCHS), Lookahead(base, k=2))
    assert not sparse.masks.moved_outside() and sparse.masks.overlap_first() < 1
    sparse.finish()


def test_samples_that_nobody_observes_are_an_error() -> None:
    sparse = simple()
    with pytest.raises(SpfdeError, match=r"observed before the first epoch began; call begin_epoch\(0\) first"):
        sparse.count(POSITIONS)
    sparse.begin_epoch(0)
    plain_step(sparse.model, sparse.optimizer, IMAGES, LABELS)
    with pytest.raises(SpfdeError, match=r"steps were taken and no sample was observed in epoch 0; call observe"):
        sparse.begin_epoch(1)
    sparse.count(POSITIONS)
    sparse.begin_epoch(1)
    assert sparse.history.samples.tolist()[:2] == [SAMPLES, 0]


# epochs


def test_epochs_beyond_the_plan_and_a_second_finish() -> None:
    sparse = simple()
    with pytest.raises(SpfdeError, match="comes before the first epoch; call it once, after the last epoch"):
        sparse.finish()
    train(sparse, range(EPOCHS))
    with pytest.raises(SpfdeError, match=f"epoch {EPOCHS} is beyond the plan; the settings plan epochs 0 to 5"):
        sparse.begin_epoch(EPOCHS)
    sparse.finish()
    with pytest.raises(SpfdeError, match=r"finish\(\) was called before"):
        sparse.finish()
    sparse = simple()
    train(sparse, range(2))
    sparse.finish()
    with pytest.raises(SpfdeError, match=r"epoch 2 begins after finish\(\)"):
        sparse.begin_epoch(2)


# learning rates and groups


def test_rates_that_somebody_else_sets() -> None:
    sparse = simple()
    plateau = torch.optim.lr_scheduler.ReduceLROnPlateau(sparse.optimizer, patience=0)
    train(sparse, range(1))
    plateau.step(1.0)
    plateau.step(2.0)
    with pytest.raises(SpfdeError, match=r'pass learning_rates="own"'):
        sparse.begin_epoch(1)
    sparse = simple()
    train(sparse, range(2))
    sparse.optimizer.param_groups[-1]["lr"] = 0.05
    with pytest.raises(SpfdeError, match=r"a learning rate is 0\.05 where SparseTraining had set 0\.0933"):
        sparse.begin_epoch(2)
    model = network()
    own = wrap(model, sgd(model), settings("set", **DENSE_DATA), learning_rates="own")
    train(own, range(1))
    own.optimizer.param_groups[0]["lr"] = 0.05
    train(own, range(1, EPOCHS))
    own.finish()
    assert own.optimizer.param_groups[0]["lr"] == 0.05


def test_a_group_added_later_is_refused() -> None:
    sparse = simple()
    sparse.optimizer.add_param_group({"params": [nn.Parameter(torch.zeros(2))]})
    with pytest.raises(SpfdeError, match=r"has 5 parameter groups where SparseTraining made 4"):
        sparse.begin_epoch(0)


def test_names_of_parameters_are_split_with_their_groups() -> None:
    model = network()
    optimizer = torch.optim.SGD(model.named_parameters(), lr=0.1)
    wrap(model, optimizer, settings("set", **DENSE_DATA))
    known = dict(model.named_parameters())
    names = [name for group in optimizer.param_groups for name in group["param_names"]]
    assert sorted(names) == sorted(known) and len(optimizer.param_groups) == 4
    for group in optimizer.param_groups:
        assert [known[name] for name in group["param_names"]] == list(group["params"])


# gradients and weights


class Detached(nn.Module):
    """Its third block works on what the second gave without passing gradients on to it."""

    def __init__(self) -> None:
        super().__init__()
        self.net = network()
        self.cut = False

    def forward(self, x: Tensor) -> Tensor:
        x = self.net[1](self.net[0](x))
        return self.net[3:](self.net[2](x.detach() if self.cut else x))


def test_a_block_without_gradients_is_named() -> None:
    model = Detached()
    sparse = simple(model=model)
    train(sparse, range(1))
    model.cut = True
    train(sparse, range(1, 2))
    with pytest.raises(SpfdeError, match=r"block net\.0 trains, and got no gradient in epoch 1; make the loss depend"):
        sparse.begin_epoch(2)


class Checkpointed(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.net, self.reentrant, self.on = network(), True, True

    def forward(self, x: Tensor) -> Tensor:
        x = self.net[0](x)
        for block in (self.net[1], self.net[2]):
            x = checkpoint(block, x, use_reentrant=self.reentrant) if self.on else block(x)
        return self.net[3:](x)


def test_reentrant_checkpointing_that_begins_after_construction_is_found_out() -> None:
    model = Checkpointed()
    model.on = False
    sparse = wrap(model, sgd(model), settings("set", freezing=0.1, sieving=0.0))
    model.on = True
    with pytest.raises(SpfdeError, match=r"block net\.1 trains, and got no gradient.*use_reentrant=False"):
        train(sparse, range(EPOCHS))


def test_weights_that_change_outside_the_masks_are_named() -> None:
    sparse = simple()
    train(sparse, range(1))
    with torch.no_grad():
        sparse.masks["1.0"].weight.add_(1.0)
    with pytest.raises(SpfdeError, match=r"weights of layer 1\.0 outside its mask are not 0 after epoch 0"):
        sparse.begin_epoch(1)
    sparse.masks.mask_weights()
    train(sparse, range(1, 2))


@pytest.mark.parametrize("value", [torch.inf, -torch.inf, torch.nan])
def test_what_overflows_outside_a_mask_is_zero(value: float) -> None:
    """0 times infinity is not 0: masks are no products."""
    sparse = simple("static")
    sparse.begin_epoch(0)
    F.cross_entropy(sparse.model(IMAGES), LABELS).backward()
    layer = sparse.masks["1.0"]
    layer.weight.grad[~layer.active] = value
    sparse.optimizer.step()
    momentum = sparse.optimizer.state[layer.weight]["momentum_buffer"]
    assert not layer.weight[~layer.active].any() and not momentum[~layer.active].any()
    assert sparse.model(IMAGES).isfinite().all()


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16, torch.float16])
def test_masks_of_every_precision(dtype: torch.dtype) -> None:
    model = network().to(dtype)
    sparse = wrap(model, sgd(model), settings("static", **DENSE_DATA))
    sparse.begin_epoch(0)
    layer = sparse.masks["1.0"]
    before = layer.weight.detach().clone()
    layer.weight.grad = torch.full_like(layer.weight, torch.inf).where(~layer.active, 1.0)
    sparse.optimizer.step()
    assert torch.equal(layer.weight == 0, ~layer.active)
    assert torch.equal(layer.weight[layer.active] != before[layer.active], layer.active[layer.active])


def test_step_sizes_are_no_momentum() -> None:
    """Rprop's step sizes start at the learning rate; one of 0 would hold a weight that grows again for good."""
    model = network()
    sparse = wrap(model, torch.optim.Rprop(model.parameters(), lr=0.01), settings("set", **DENSE_DATA))
    train(sparse, range(3))
    assert sparse.masks.overlap_first() < 1
    for layer in sparse.masks:
        state = sparse.optimizer.state[layer.weight]
        assert (state["step_size"] > 0).all() and not state["prev"][~layer.active].any()


# blocks


def test_blocks_that_overlap_or_are_not_there_are_refused_at_once() -> None:
    halves = [Block("a", ("0", "1")), Block("b", ("1.0", "2"))]
    with pytest.raises(SpfdeError, match=r"blocks a and b overlap: 1 and 1\.0; put every module into one block"):
        simple(blocks=halves)
    for wrong in (Block("a", ("0", "layer9")), Block("a", ())):
        with pytest.raises(SpfdeError, match=r"block a names the module .*, which is no part of the model"):
            simple(blocks=[wrong])


class Residual(nn.Module):
    def __init__(self, relu: nn.Module, dropout: nn.Module) -> None:
        super().__init__()
        self.one, self.relu, self.dropout = nn.Conv2d(6, 6, 3, padding=1), relu, dropout
        self.two = nn.Conv2d(6, 6, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.two(self.dropout(self.relu(self.one(x))))


def test_a_shared_module_trains_on_with_the_blocks_that_do() -> None:
    relu, dropout, once = nn.ReLU(), nn.Dropout(0.5), nn.BatchNorm2d(6)
    blocks = [Residual(relu, dropout) for _ in range(3)]
    model = nn.Sequential(nn.Conv2d(1, 6, 3, padding=1), *blocks, once, nn.Flatten(), nn.Linear(216, 4))
    sparse = wrap(model, sgd(model), settings("set", sieving=0.0, freezing=0.1))
    frozen = 0
    for epoch in epochs(model, sparse, range(EPOCHS)):
        frozen = sparse.plan.schedule.counts[epoch]
        assert dropout.training and relu.training and model[3].training
        assert [block.training for block in blocks] == [index >= frozen for index in range(3)]
    assert frozen == 2
    sparse.finish()
    assert all(module.training and "train" not in vars(module) for module in model.modules())


def test_a_module_that_only_frozen_blocks_share_is_still() -> None:
    shared = nn.Dropout(0.5)
    blocks = [Residual(nn.ReLU(), shared), Residual(nn.ReLU(), shared), Residual(nn.ReLU(), nn.Dropout(0.5))]
    model = nn.Sequential(nn.Conv2d(1, 6, 3, padding=1), *blocks, nn.Flatten(), nn.Linear(216, 4))
    sparse = wrap(model, sgd(model), settings("set", sieving=0.0, freezing=0.1))
    for epoch in epochs(model, sparse, range(EPOCHS)):
        assert shared.training == (sparse.plan.schedule.counts[epoch] < 2)
    sparse.finish()
    assert shared.training


# heads and labels


@pytest.mark.parametrize(
    ("logits", "labels", "message"),
    [
        (torch.zeros(3, 1), torch.zeros(3), r"logits of shape \(3, 1\) are not one for each of two or more classes"),
        (torch.zeros(3), torch.zeros(3), r"logits of shape \(3,\)"),
        (torch.zeros(3, 4, 5, 5), torch.zeros(3, 5, 5).long(), r"logits of shape \(3, 4, 5, 5\)"),
        ((torch.zeros(3, 4), torch.zeros(3, 4)), torch.zeros(3).long(), "the logits are a tuple, not one tensor"),
        (torch.zeros(3, 4), torch.zeros(3, 1).long(), r"labels of shape \(3, 1\)"),
        (torch.zeros(3, 4), torch.zeros(3, 4), r"labels of shape \(3, 4\) and type torch.float32"),
        (torch.zeros(2, 4), torch.zeros(3).long(), r"logits of shape \(2, 4\)"),
    ],
)
def test_what_is_no_logit_a_class_is_sieved_by_count_alone(logits: Any, labels: Tensor, message: str) -> None:
    model = network()
    sparse = wrap(model, sgd(model))
    sparse.begin_epoch(0)
    with pytest.raises(SpfdeError, match=rf"{message}.*call count\(indices, correct\)"):
        sparse.observe(torch.arange(3), logits, labels)
    with pytest.raises(SpfdeError, match="sieving needs a boolean for each sample of the batch"):
        sparse.count(torch.arange(3), torch.zeros(3, 1, dtype=torch.bool))
    assert not sparse.history.samples.any()
    sparse.count(torch.arange(3), torch.tensor([True, False, True]))
    assert sparse.history.samples.tolist() == [3] + [0] * (EPOCHS - 1)
    free = simple()
    free.begin_epoch(0)
    free.observe(torch.arange(3), logits, labels)  # without sieving only the number of samples counts


# state


def other(chosen: RunSettings, model: nn.Module | None = None) -> SparseTraining:
    model = model or network()
    return wrap(model, sgd(model), chosen)


def test_a_state_of_other_settings_or_another_network_is_refused() -> None:
    sparse = simple()
    train(sparse, range(1))
    state = copy.deepcopy(sparse.state_dict())
    message = r"the state is of other settings: sparsity\.target is 0\.5 there and 0\.75 here; resume with what"
    with pytest.raises(SpfdeError, match=message):
        other(settings("set", **DENSE_DATA, sparsity=0.75)).load_state_dict(state)
    wider = network()
    wider[2][0] = nn.Conv2d(6, 6, 5, padding=2)
    with pytest.raises(SpfdeError, match=r"the state is of another network: layer 2\.0 does not fit"):
        other(sparse.settings, wider).load_state_dict(state)
    for damaged in ({}, {**state, "settings": torch.tensor([1, 2], dtype=torch.uint8)}):
        with pytest.raises(SpfdeError, match="not one that SparseTraining"):
            other(sparse.settings).load_state_dict(damaged)
    again = other(sparse.settings)
    again.load_state_dict(state)
    assert again.begun == 1
