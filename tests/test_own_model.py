"""SparseTraining around models, optimizers and loops of somebody else: what must work, and what is refused and why."""

import copy
import io
import os
import socket
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from pyarrow import parquet
from torch import Tensor, nn
from torch.nn.utils import parametrizations
from torch.utils.data import DataLoader, TensorDataset
from torchvision.models import resnet18

from spfde import SparseTraining, settings_for
from spfde.data import Indexed
from spfde.data.parquet import parquet_files, read_parquet
from spfde.data.sources import CIFAR100
from spfde.data.split import DataInfo
from spfde.errors import SpfdeError
from spfde.models import Block
from spfde.settings import RunSettings

SAMPLES, EPOCHS = 40, 6
DATA = TensorDataset(
    torch.randn(SAMPLES, 1, 6, 6, generator=torch.Generator().manual_seed(3)), torch.arange(SAMPLES) % 4
)
Step = Callable[[nn.Module, torch.optim.Optimizer, Tensor, Tensor], Tensor]


def network() -> nn.Module:
    """Three blocks of convolution and BatchNorm, and a classifier."""
    torch.manual_seed(0)
    stages = [nn.Sequential(nn.Conv2d(i, 6, 3, padding=1), nn.BatchNorm2d(6), nn.ReLU()) for i in (1, 6, 6)]
    return nn.Sequential(*stages, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(6, 4))


def settings(method: str = "spfde", **more: Any) -> RunSettings:
    chosen = {"epochs": EPOCHS, "batch_size": 10, "freezing": 0.1, "sieving": 0.25, "interval": 2, "sparsity": 0.5}
    return settings_for(method, **{**chosen, **more})


def sgd(model: nn.Module) -> torch.optim.Optimizer:
    return torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9, weight_decay=1e-3)


def wrap(
    model: nn.Module, optimizer: torch.optim.Optimizer, chosen: RunSettings | None = None, **more: Any
) -> SparseTraining:
    chosen = chosen or settings()
    return SparseTraining(model, optimizer, chosen, input_shape=(1, 6, 6), samples=SAMPLES, **more)


def plain_step(model: nn.Module, optimizer: torch.optim.Optimizer, images: Tensor, labels: Tensor) -> Tensor:
    logits = model(images)
    F.cross_entropy(logits, labels).backward()
    optimizer.step()
    optimizer.zero_grad()
    return logits


def epochs(model: nn.Module, sparse: SparseTraining, which: range, step: Step = plain_step) -> Iterator[int]:
    """Trains, and yields after each epoch."""
    loader = DataLoader(Indexed(DATA), batch_size=10, sampler=sparse.sampler)
    for epoch in which:
        model.train()
        sparse.begin_epoch(epoch)
        for positions, images, labels in loader:
            sparse.observe(positions, step(model, sparse.optimizer, images, labels), labels)
        yield epoch


def trained(step: Step = plain_step, chosen: RunSettings | None = None) -> tuple[dict[str, Tensor], SparseTraining]:
    """Weights after a whole training by `step`, and the training."""
    model = network()
    sparse = wrap(model, sgd(model), chosen)
    for _ in epochs(model, sparse, range(EPOCHS), step):
        assert all(not layer.weight[~layer.active].any() for layer in sparse.masks)
    sparse.finish()
    return model.state_dict(), sparse


def same(one: dict[str, Tensor], two: dict[str, Tensor]) -> bool:
    return one.keys() == two.keys() and all(torch.equal(one[name], two[name]) for name in one)


# settings


def test_settings_have_the_methods_defaults_unless_told() -> None:
    spfde = settings_for(epochs=10, batch_size=32)
    assert (spfde.scale, spfde.sparsity.method, spfde.sparsity.target) == ("custom", "spfde", 0.9)
    assert (spfde.freezing.flops_reduction, spfde.sieving.removed) == (0.2, 0.2)
    told = settings_for(
        "set", epochs=10, batch_size=32, sieving=0.1, options={"zeta": 0.5}, sparsity__distribution="erk"
    )
    assert (told.freezing.flops_reduction, told.sieving.removed) == (0.0, 0.1)
    assert (told.sparsity.options, told.sparsity.distribution) == ({"zeta": 0.5}, "erk")
    assert settings_for("dense", epochs=10, batch_size=32, sparsity=0.9).sparsity.target == 0


@pytest.mark.parametrize(
    ("told", "message"),
    [
        ({"method": "spfd"}, 'unknown method "spfd"; did you mean "spfde"?'),
        ({"sparsity": 1.0}, "setting sparsity.target = 1.0 is not valid"),
        ({"options": {"prset": "flops"}}, 'unknown setting "sparsity.options.prset"; did you mean "preset"?'),
        ({"sparsity__schem": "2:4"}, 'unknown setting "sparsity.schem"; did you mean "scheme"?'),
        ({"interval": 10}, "is not shorter than the run"),
        ({"method": "small-dense"}, "train it with method dense"),
    ],
)
def test_settings_are_checked_at_once(told: dict[str, Any], message: str) -> None:
    with pytest.raises(SpfdeError) as raised:
        settings_for(**{"epochs": 10, "batch_size": 32, **told})
    assert message in str(raised.value)


# loops


def test_a_loop_with_a_data_loader_sees_the_partial_set() -> None:
    model = network()
    sparse = wrap(model, sgd(model))
    sparse.begin_epoch(0)
    loader = DataLoader(Indexed(DATA), batch_size=10, sampler=sparse.sampler)
    assert len(loader) == 3
    positions = torch.cat([positions for positions, _, _ in loader])
    assert sorted(positions.tolist()) == sparse.partial_set.nonzero().flatten().tolist()
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


def test_a_data_parallel_model() -> None:
    with closing(socket.socket()) as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    torch.distributed.init_process_group("gloo", f"tcp://127.0.0.1:{port}", rank=0, world_size=1)
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


# what cannot work


class Tied(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.one, self.two, self.three, self.four = (nn.Linear(6, 6) for _ in range(4))
        self.three.weight = self.two.weight

    def forward(self, x: Tensor) -> Tensor:
        return self.four(self.three(self.two(self.one(x.mean(dim=(1, 2))))))


def test_what_cannot_work_is_refused_with_the_reason() -> None:
    chosen = settings("set", freezing=0.0)
    with pytest.raises(SpfdeError, match=r"one weight is shared by two\.weight and three\.weight"):
        wrap(model := Tied(), sgd(model), chosen)
    model = network()
    parametrizations.weight_norm(model[1][0])
    with pytest.raises(SpfdeError, match=r"layer 1\.0 computes its weight"):
        wrap(model, sgd(model), chosen)
    model = network()
    with pytest.raises(SpfdeError, match=r"does not train the weight of layer 1\.0"):
        wrap(model, sgd(model[2]), chosen)
    with pytest.raises(SpfdeError, match="LBFGS"):
        wrap(model, torch.optim.LBFGS(model.parameters()), chosen)
    with pytest.raises(SpfdeError, match="method deepr has no weight decay on sparse weights"):
        wrap(model, sgd(model), settings("deepr", freezing=0.0), learning_rates="own")
    sparse = wrap(model, sgd(model), settings("snip", freezing=0.0))
    with pytest.raises(SpfdeError, match=r"give SparseTraining a function fetch"):
        sparse.begin_epoch(0)


def test_a_tied_weight_that_stays_dense_is_no_matter() -> None:
    model = Tied()
    model.three.weight = nn.Parameter(model.three.weight.detach().clone())
    model.four.weight = model.one.weight
    wrap(model, sgd(model), settings("set", freezing=0.0, sparsity__dense_layers="first+classifier"))


# blocks, state


def test_blocks_of_ones_own() -> None:
    model = network()
    mine = [Block("both", ("0", "1"))]
    sparse = wrap(model, sgd(model), settings(freezing__share=1.0), blocks=mine)
    for epoch in epochs(model, sparse, range(EPOCHS)):
        frozen = bool(sparse.plan.schedule.counts[epoch])
        assert [p.requires_grad for stage in list(model)[:3] for p in stage.parameters()] == [not frozen] * 8 + [
            True
        ] * 4
    assert sparse.frozen_blocks == 1


def test_state_goes_through_a_file_without_pickled_code() -> None:
    model, file = network(), io.BytesIO()
    sparse = wrap(model, sgd(model))
    for _ in epochs(model, sparse, range(4)):
        pass
    assert sparse.frozen_blocks
    parts = {"model": model, "optimizer": sparse.optimizer, "sparse": sparse}
    torch.save({name: part.state_dict() for name, part in parts.items()}, file)
    for _ in epochs(model, sparse, range(4, EPOCHS)):
        pass

    file.seek(0)
    state = torch.load(file, weights_only=True)
    other = network()
    again = wrap(other, sgd(other))
    other.load_state_dict(state["model"])
    again.optimizer.load_state_dict(state["optimizer"])
    again.load_state_dict(state["sparse"])
    for _ in epochs(other, again, range(again.begun, EPOCHS)):
        pass
    assert same(model.state_dict(), other.state_dict()) and again.trace().equals(sparse.trace())


# torchvision's ResNet-18 on CIFAR-100


def tiny_cifar100(folder: Path) -> DataInfo:
    """CIFAR-100's parquet layout with one random image a class."""
    folder.mkdir()
    pixels = np.random.default_rng(0)

    def png() -> bytes:
        buffer = io.BytesIO()
        Image.fromarray(pixels.integers(0, 256, (32, 32, 3), dtype=np.uint8)).save(buffer, "png")
        return buffer.getvalue()

    for part, samples in (("train", 100), ("test", 10)):
        images = pa.array([{"bytes": png(), "path": None} for _ in range(samples)])
        labels = np.arange(samples) % 100
        table = pa.table({"img": images, "fine_label": pa.array(labels), "coarse_label": pa.array(labels // 5)})
        parquet.write_table(table, folder / f"{part}-00000-of-00001.parquet")
    return DataInfo("cifar100", 100, 3, 32, 100, 10, CIFAR100.mean, CIFAR100.std)


@pytest.mark.parametrize("which", ["made here", "SPFDE_TEST_DATA"])
def test_resnet18_on_cifar100_parquet(tmp_path: Path, which: str) -> None:
    root, info = tmp_path, CIFAR100
    if which == "made here":
        info = tiny_cifar100(tmp_path / "cifar100")
    elif "SPFDE_TEST_DATA" not in os.environ:
        pytest.skip("SPFDE_TEST_DATA names no folder with cifar100/train-*.parquet")
    else:
        root = Path(os.environ["SPFDE_TEST_DATA"])
    train = read_parquet(info, parquet_files(root / "cifar100")["train"][:1])
    images = (train.images[:100].float() / 255 - torch.tensor(info.mean).view(3, 1, 1)) / torch.tensor(info.std).view(
        3, 1, 1
    )
    data = Indexed(TensorDataset(images, train.labels[:100]))

    torch.manual_seed(0)
    model = resnet18(num_classes=100)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
    chosen = settings_for(epochs=4, batch_size=40, sparsity=0.9, freezing=0.1, sieving=0.2, interval=1)
    sparse = SparseTraining(model, optimizer, chosen, input_shape=(3, 32, 32), samples=100)
    losses: list[float] = []
    frozen: dict[str, Tensor] = {}
    for epoch in range(4):
        sparse.begin_epoch(epoch)
        model.train()
        for positions, batch, labels in DataLoader(data, batch_size=40, sampler=sparse.sampler):
            logits = model(batch)
            loss = F.cross_entropy(logits, labels)
            loss.backward()
            optimizer.step()
            optimizer.zero_grad()
            sparse.observe(positions, logits, labels)
            losses.append(loss.item())
        now = {name: value.clone() for name, value in model.state_dict().items() if name in frozen or not epoch}
        assert not epoch or same(now, frozen)
        inside = tuple(f"{module}." for block in sparse.blocks[: sparse.frozen_blocks] for module in block.modules)
        frozen = {name: value.clone() for name, value in model.state_dict().items() if name.startswith(inside)}
    assert [block.name for block in sparse.blocks] == [f"layer{i}.{j}" for i in (1, 2, 3, 4) for j in (0, 1)]
    assert sparse.blocks[0].modules[0] == "conv1" and "conv1.weight" in frozen
    assert sparse.history.samples.tolist() == [80] * 4 and sparse.sieve.updates > 0
    assert sparse.masks.overlap_first() < 1 and all(np.isfinite(losses))
    sparse.finish()
    assert sparse.masks.sparsity == pytest.approx(0.9, abs=1e-4)
    plain = resnet18(num_classes=100)
    plain.load_state_dict(model.state_dict())
    zeros = sum(int((plain.get_submodule(layer.name).weight == 0).sum()) for layer in sparse.masks)
    assert zeros == sum(int((~layer.active).sum()) for layer in sparse.masks)
