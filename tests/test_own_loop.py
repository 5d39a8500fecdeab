"""SparseTraining in loops of somebody else: ways to step, learning rates, optimizers, copies, wrappers, compilation."""

import copy
import math
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from spfde import SparseTraining
from spfde.data import Indexed
from spfde.errors import SpfdeError, SpfdeWarning
from spfde.settings import RunSettings
from tests.test_own_model import DATA, EPOCHS, Step, epochs, network, plain_step, same, settings, sgd, wrap


def trained(step: Step = plain_step, chosen: RunSettings | None = None) -> tuple[dict[str, Tensor], SparseTraining]:
    """Weights after a whole training by `step`, and the training."""
    model = network()
    sparse = wrap(model, sgd(model), chosen)
    for _ in epochs(model, sparse, range(EPOCHS), step):
        assert all(not layer.weight[~layer.active].any() for layer in sparse.masks)
    sparse.finish()
    return model.state_dict(), sparse


# loops


def test_a_loop_with_a_data_loader_sees_the_partial_set() -> None:
    model = network()
    sparse = wrap(model, sgd(model))
    sparse.begin_epoch(0)
    loader = DataLoader(Indexed(DATA), batch_size=10, sampler=sparse.sampler)
    assert len(loader) == 3
    indices = torch.cat([indices for indices, _, _ in loader])
    assert sorted(indices.tolist()) == sparse.partial_set.nonzero().flatten().tolist()
    for where, images, labels in loader:
        assert torch.equal(images, DATA.tensors[0][where]) and torch.equal(labels, DATA.tensors[1][where])


def test_fetch_gives_methods_the_samples_they_ask_for() -> None:
    data = Indexed(DATA, plain=TensorDataset(-DATA.tensors[0], DATA.tensors[1]))
    images, labels = data.fetch(torch.tensor([7, 2]))
    assert torch.equal(images, -DATA.tensors[0][[7, 2]]) and labels.tolist() == [3, 2]
    model = network()
    sparse = wrap(model, sgd(model), settings("snip", freezing=0.0), fetch=data.fetch)
    sparse.begin_epoch(0)
    assert sum(int(layer.active.sum()) for layer in sparse.masks) == (2 * 6 * 54 + 24) // 2


def closure_step(model: nn.Module, optimizer: torch.optim.Optimizer, images: Tensor, labels: Tensor) -> Tensor:
    seen: list[Tensor] = []

    def closure() -> Tensor:
        optimizer.zero_grad()
        seen.append(model(images))
        loss = F.cross_entropy(seen[0], labels)
        loss.backward()
        return loss

    loss = optimizer.step(closure)
    assert isinstance(loss, Tensor) and len(seen) == 1
    return seen[0]


def keeping_step(model: nn.Module, optimizer: torch.optim.Optimizer, images: Tensor, labels: Tensor) -> Tensor:
    optimizer.zero_grad(set_to_none=False)
    logits = model(images)
    F.cross_entropy(logits, labels).backward()
    optimizer.step()
    return logits


@pytest.mark.parametrize("method", ["spfde", "rigl"])
@pytest.mark.parametrize("step", [closure_step, keeping_step])
def test_every_way_to_step_trains_the_same(step: Step, method: str) -> None:
    chosen = settings(method)
    assert same(trained(chosen=chosen)[0], trained(step, chosen)[0])


def test_accumulated_gradients_make_one_step_of_the_plan() -> None:
    """Without BatchNorm's batch statistics, two halves are the whole batch; RigL updates at the same steps."""

    def halves(model: nn.Module, optimizer: torch.optim.Optimizer, images: Tensor, labels: Tensor) -> Tensor:
        logits = [model(part) for part in images.split(5)]
        for part, expected in zip(logits, labels.split(5), strict=True):
            (F.cross_entropy(part, expected) / 2).backward()
        optimizer.step()
        optimizer.zero_grad()
        return torch.cat(logits)

    chosen = settings("rigl", freezing=0.0)
    finals = []
    for step in (plain_step, halves):
        model = network()
        for stage in list(model)[:3]:
            stage[1] = nn.Identity()
        sparse = wrap(model, sgd(model), chosen)
        for _ in epochs(model, sparse, range(EPOCHS), step):
            pass
        assert sparse.step == 18 and sparse.history.samples.tolist() == [30] * EPOCHS
        assert sparse.masks.overlap_first() < 1
        finals.append(model.state_dict())
    assert all(torch.allclose(finals[0][name], finals[1][name], atol=1e-5) for name in finals[0])


def test_autocast() -> None:
    def step(model: nn.Module, optimizer: torch.optim.Optimizer, images: Tensor, labels: Tensor) -> Tensor:
        with torch.autocast("cpu", torch.bfloat16):
            logits = model(images)
            assert logits.dtype == torch.bfloat16
            loss = F.cross_entropy(logits, labels)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        return logits

    weights, sparse = trained(step)
    assert all(value.dtype == torch.float32 for value in weights.values() if value.is_floating_point())
    assert sparse.sieve.updates == 2 and sparse.masks.sparsity == 0.5


@pytest.mark.parametrize("method", ["spfde", "rigl"])
def test_grad_scaler_and_its_skipped_steps(method: str) -> None:
    """A step that the scaler skips does not count: the plan's RigL updates are made all the same, one step later."""
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**10, growth_interval=10_000)
    overflowed: list[bool] = []

    def step(model: nn.Module, optimizer: torch.optim.Optimizer, images: Tensor, labels: Tensor) -> Tensor:
        logits = model(images)
        loss = F.cross_entropy(logits, labels)
        overflow = len(overflowed) == 4
        scaler.scale(loss * torch.inf if overflow else loss).backward()
        before = copy.deepcopy([value for name, value in model.named_parameters()])
        scaler.step(optimizer)
        if overflow:
            assert all(torch.equal(a, b) for a, b in zip(before, model.parameters(), strict=True))
        scaler.update()
        optimizer.zero_grad()
        overflowed.append(overflow)
        return logits

    weights, sparse = trained(step, settings(method))
    assert sparse.step == 17 and all(value.isfinite().all() for value in weights.values())
    assert sparse.masks.overlap_first() < 1


# learning rates


def test_own_learning_rates_are_left_alone() -> None:
    model = network()
    optimizer = sgd(model)
    scheduler = torch.optim.lr_scheduler.StepLR(optimizer, 2)
    sparse = wrap(model, optimizer, learning_rates="own")
    rates = []
    for _ in epochs(model, sparse, range(EPOCHS)):
        rates.append([group["lr"] for group in optimizer.param_groups])
        scheduler.step()
    assert [rate for [rate] in rates] == pytest.approx([0.1, 0.1, 0.01, 0.01, 0.001, 0.001])
    assert sparse.frozen_blocks == 2


def test_two_that_set_learning_rates_are_refused() -> None:
    model = network()
    optimizer = sgd(model)
    sparse = wrap(model, optimizer)
    torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, EPOCHS)
    with pytest.raises(SpfdeError, match='pass learning_rates="own"'):
        sparse.begin_epoch(0)
    with pytest.raises(SpfdeError, match='pass learning_rates="own"'):
        wrap(model, optimizer)


def rates(sparse: SparseTraining) -> list[float]:
    """The rate of what is in no block, which is the last group, in each epoch."""
    return [sparse.optimizer.param_groups[-1]["lr"] for _ in epochs(sparse.model, sparse, range(EPOCHS))]


def test_rates_fall_from_the_optimizers_own_by_what_the_settings_say() -> None:
    """What docs/own_model.md says of learning rates."""

    def around(**told: Any) -> SparseTraining:
        model = network()
        return wrap(model, torch.optim.SGD(model.parameters(), lr=0.4), settings("set", freezing=0.0, **told))

    cosine = [0.01 + 0.39 * (1 + math.cos(math.pi * epoch / EPOCHS)) / 2 for epoch in range(EPOCHS)]
    assert rates(around(training__lr_min=0.01)) == pytest.approx(cosine)
    warm = [0.2, *(0.4 * (1 + math.cos(math.pi * epoch / EPOCHS)) / 2 for epoch in range(1, EPOCHS))]
    assert rates(around(training__warmup_epochs=2)) == pytest.approx(warm, abs=1e-6)
    steps = around(training__schedule="steps", training__milestones=[2, 5], training__gamma=0.5)
    assert rates(steps) == pytest.approx([0.4, 0.4, 0.2, 0.2, 0.2, 0.1])


@pytest.mark.parametrize(
    ("told", "keys"),
    [
        ({"training__warmup_epochs": 2}, r"training\.warmup_epochs"),
        ({"training__schedule": "steps", "training__milestones": [3]}, r"training\.schedule and training\.milestones"),
        ({"training__lr_min": 1e-3, "training__warmup_epochs": 1}, r"training\.lr_min and training\.warmup_epochs"),
    ],
)
def test_settings_of_rates_that_nobody_reads_are_warned_of(told: dict[str, Any], keys: str) -> None:
    model = network()
    message = keys + r' .* learning_rates="own"; let your scheduler do it, or leave learning_rates="own" out'
    with pytest.warns(SpfdeWarning, match=message) as said:
        wrap(model, sgd(model), settings(**told), learning_rates="own")
    assert len(said) == 1
    with warnings.catch_warnings(action="error"):
        wrap(model := network(), sgd(model), settings(**told))
        wrap(model := network(), sgd(model), settings(), learning_rates="own")


def test_learning_rates_of_another_name_are_refused() -> None:
    model = network()
    with pytest.raises(SpfdeError, match='unknown learning_rates "cosin"; did you mean "cosine"'):
        wrap(model, sgd(model), learning_rates="cosin")


# optimizers


def test_an_optimizer_with_momentum_from_before() -> None:
    model = network()
    optimizer = sgd(model)
    plain_step(model, optimizer, *DATA.tensors)
    sparse = wrap(model, optimizer)
    sparse.begin_epoch(0)
    for layer in sparse.masks:
        momentum = optimizer.state[layer.weight]["momentum_buffer"]
        assert momentum[layer.active].any() and not momentum[~layer.active].any()


def test_a_step_before_the_first_epoch_is_refused_and_after_the_last_is_free() -> None:
    model = network()
    sparse = wrap(model, sgd(model))
    with pytest.raises(SpfdeError, match=r"call begin_epoch\(0\) first"):
        plain_step(model, sparse.optimizer, *DATA.tensors)
    _, sparse = trained()
    for parameter in sparse.model.parameters():
        parameter.grad = torch.ones_like(parameter)
    sparse.optimizer.param_groups[-2]["lr"] = 1.0
    sparse.optimizer.step()
    assert any(layer.weight[~layer.active].any() for layer in sparse.masks)


# copies, wrappers, compilation


def test_copies_of_a_frozen_model() -> None:
    model = network()
    sparse = wrap(model, sgd(model))
    average = torch.optim.swa_utils.AveragedModel(model, use_buffers=True)
    for _ in epochs(model, sparse, range(EPOCHS)):
        average.update_parameters(model)
    assert sparse.frozen_blocks == 2
    twin = copy.deepcopy(model)
    before = copy.deepcopy(twin.state_dict())
    sparse.finish()
    for each in (model, twin, average):
        each.train()(DATA.tensors[0])
    assert all(module.training for module in model.modules())
    frozen = [name for name in before if name[0] in "01"]
    assert all(torch.equal(before[name], twin.state_dict()[name]) for name in frozen)  # the copy stays frozen
    assert not all(torch.equal(before[name], value) for name, value in model.state_dict().items())
    network().load_state_dict(average.module.state_dict())


@pytest.mark.parametrize("backend", ["eager", "aot_eager", pytest.param("inductor", marks=pytest.mark.soak)])
def test_torch_compile(backend: str) -> None:
    """Freezing compiles anew; nothing in a frozen block moves, and the weights are those without compilation."""
    torch._dynamo.reset()
    model = network()
    compiled = torch.compile(model, backend=backend)
    sparse = wrap(compiled, sgd(model))
    frozen: dict[str, Tensor] = {}
    for epoch in epochs(compiled, sparse, range(EPOCHS)):
        count = sparse.plan.schedule.counts[epoch]
        now = {name: value for name, value in model.state_dict().items() if int(name[0]) < count}
        assert all(torch.equal(now[name], value) for name, value in frozen.items())
        frozen = copy.deepcopy(now)
    assert frozen and sparse.masks["1.0"].weight is model[1][0].weight
    sparse.finish()
    reference, _ = trained()
    tolerance = 0.0 if backend == "eager" else 1e-3
    assert all(torch.allclose(value, reference[name], atol=tolerance) for name, value in model.state_dict().items())


def test_a_data_parallel_model(tmp_path: Path) -> None:
    torch.distributed.init_process_group("gloo", f"file://{tmp_path}/meeting", rank=0, world_size=1)
    try:
        model = network()
        with pytest.raises(SpfdeError, match="find_unused_parameters=True"):
            wrap(nn.parallel.DistributedDataParallel(model), sgd(model))
        wrapped = nn.parallel.DistributedDataParallel(model, find_unused_parameters=True)
        sparse = wrap(wrapped, sgd(wrapped))
        for _ in epochs(wrapped, sparse, range(EPOCHS)):
            pass
        sparse.finish()
    finally:
        torch.distributed.destroy_process_group()
    assert same(model.state_dict(), trained()[0])
