"""SparseTraining around models of somebody else: its settings, what is refused and why, blocks, state, ResNet-18."""

import io
import os
import warnings
from collections.abc import Callable, Iterator
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
from spfde.errors import SpfdeError, SpfdeWarning
from spfde.experiments.resolve import OF_THE_COMMAND, resolve
from spfde.models import Block, build
from spfde.settings import RunSettings, TrainingSettings

SAMPLES, EPOCHS = 40, 6
DATA = TensorDataset(
    torch.randn(SAMPLES, 1, 6, 6, generator=torch.Generator().manual_seed(3)), torch.arange(SAMPLES) % 4
)
ALONE = (
    r"the last batch of epoch {} would have one sample, .* unless a loader of your own drops it .*; set another train"
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
        for indices, images, labels in loader:
            sparse.observe(indices, step(model, sparse.optimizer, images, labels), labels)
        yield epoch


def same(one: dict[str, Tensor], two: dict[str, Tensor]) -> bool:
    return one.keys() == two.keys() and all(torch.equal(one[name], two[name]) for name in one)


# settings


def test_settings_have_the_methods_defaults_unless_told() -> None:
    spfde = settings_for(epochs=10, batch_size=32)
    assert (spfde.scale, spfde.sparsity.method, spfde.sparsity.target) == ("custom", "spfde", 0.9)
    assert (spfde.freezing.flops_reduction, spfde.sieving.removed) == (0.2, 0.2)
    told = settings_for(
        "set", epochs=10, batch_size=32, sieving=0.1, options={"drop_fraction": 0.5}, sparsity__distribution="erk"
    )
    assert (told.freezing.flops_reduction, told.sieving.removed) == (0.0, 0.1)
    assert (told.sparsity.options, told.sparsity.distribution) == ({"drop_fraction": 0.5}, "erk")
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
        ({"training__lr": 0.3}, "setting training.lr is for `spfde train`, and SparseTraining does not read it; give"),
        ({"training": {"lr": 0.3}}, "setting training.lr is for `spfde train`"),
        ({"training.weight_decay": 0.1}, "does not read it; give it to the optimizer"),
        ({"training__momentum": 0.0}, "does not read it; give it to the optimizer"),
        ({"training__nesterov": True}, "does not read it; give it to the optimizer"),
        ({"training__label_smoothing": 0.1}, "does not read it; give it to the loss function"),
        ({"training__snapshots": 2}, "does not read it; save the model's weights in the loop"),
        ({"precision": "bf16"}, "does not read it; run the forward pass under torch.autocast"),
        ({"threads": 2}, "does not read it; call torch.set_num_threads"),
        ({"data__flip": False}, "does not read it; transform the images in the data set"),
        ({"data__padding": 0}, "does not read it; transform the images in the data set"),
    ],
)
def test_settings_are_checked_at_once(told: dict[str, Any], message: str) -> None:
    with pytest.raises(SpfdeError) as raised:
        settings_for(**{"epochs": 10, "batch_size": 32, **told})
    assert message in str(raised.value)


def test_every_setting_of_training_is_read_or_refused() -> None:
    """What `settings_for` accepts changes what happens: the rates of a block, its epochs, or the steps of a plan."""
    read = {"epochs", "batch_size", "lr_min", "schedule", "milestones", "gamma", "warmup_epochs"}
    refused = {key.removeprefix("training.") for key in OF_THE_COMMAND if key.startswith("training.")}
    assert read | refused == set(TrainingSettings.model_fields) and not read & refused


# what cannot work


class Tied(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.one, self.two, self.three, self.four = (nn.Linear(6, 6) for _ in range(4))
        self.three.weight = self.two.weight

    def forward(self, x: Tensor) -> Tensor:
        return self.four(self.three(self.two(self.one(x.mean(dim=(1, 2))))))


def test_a_known_data_set_gives_its_shape_and_size() -> None:
    model = build("resnet8", classes=10, channels=1, size=8, width=0.5)
    known = resolve("smoke", {"data.train_limit": 100})
    sparse = SparseTraining(model, sgd(model), known)
    assert sparse.samples == 100 and sparse.plan.samples.tolist() == [100] * known.training.epochs
    with pytest.raises(SpfdeError, match=r"give SparseTraining input_shape=.* and samples="):
        SparseTraining(model, sgd(model), settings(), samples=40)


def test_what_would_leave_nothing_to_train_is_refused_at_once() -> None:
    """Own blocks that hold the classifier too: all of them frozen would leave no gradient."""
    model = network()
    every = [Block(name, (name,)) for name in "0125"]
    with pytest.raises(
        SpfdeError, match=r"4 of 4 freezing blocks are frozen, and nothing else trains; lower freezing.share"
    ):
        wrap(model, sgd(model), settings(freezing=0.3, interval=1, freezing__share=1.0), blocks=every)
    sparse = wrap(model, sgd(model), settings(freezing=0.3, interval=1, freezing__share=0.75), blocks=every)
    assert max(sparse.plan.schedule.counts) == 3
    with pytest.raises(SpfdeError, match=r"the network has no freezing block; .*flops_reduction=0"):
        wrap(model, sgd(model), settings(), blocks=[])
    wrap(model, sgd(model), settings(freezing=0.0), blocks=[])


def test_freezing_is_planned_around_what_is_fixed() -> None:
    """A stem that does not train saves nothing when it freezes: what is saved comes from the blocks after it."""
    model = network()
    model[0].requires_grad_(False)
    chosen = settings(sieving=0.0, freezing=0.15, interval=1, sparsity__dense_layers="first")
    with pytest.warns(SpfdeWarning, match="nothing in block 0 requires a gradient: freezing it saves nothing"):
        sparse = wrap(model, sgd(model), chosen, blocks=(every := [Block(name, (name,)) for name in "012"]))
    with warnings.catch_warnings(action="error"):
        other = wrap(model, sgd(model), chosen, blocks=every[1:])
    for plan in (sparse.plan, other.plan):
        assert plan.saved_by_freezing(plan.trace()) == pytest.approx(plan.schedule.achieved)
        assert plan.schedule.achieved >= 0.15
    assert sparse.plan.schedule.t_frz < other.plan.schedule.t_frz


def test_a_last_batch_of_one_sample_is_warned_of_where_batch_norm_cannot_have_it() -> None:
    """40 samples in batches of 13 leave one; so do 31 of them in batches of 10, once a fourth is sieved out."""
    flat = nn.Sequential(nn.Flatten(), nn.Linear(36, 6), nn.BatchNorm1d(6), nn.ReLU(), nn.Linear(6, 4))
    chosen = settings("set", sieving=0.0, freezing=0.0, batch_size=13)
    with pytest.warns(SpfdeWarning, match=ALONE.format(0)) as said:
        sparse = wrap(flat, sgd(flat), chosen)
    assert len(said) == 1
    sparse.begin_epoch(0)
    with pytest.raises(ValueError, match="more than 1 value per channel"):
        flat(torch.zeros(1, 1, 6, 6))
    sparse.detach()
    once = {"sieving": 0.225, "sieving__schedule": "once", "sieving__start": 0.5, "interval": 3}
    with pytest.warns(SpfdeWarning, match=ALONE.format(3)):
        wrap(flat, sgd(flat), settings("set", freezing=0.0, **once))
    with warnings.catch_warnings(action="error"):
        wrap(flat, sgd(flat), settings("set", sieving=0.0, freezing=0.0))
        wrap(wide := network(), sgd(wide), chosen)  # 36 pixels of one sample are enough
        without = nn.Sequential(nn.Flatten(), nn.Linear(36, 6), nn.LayerNorm(6), nn.Linear(6, 4))
        wrap(without, sgd(without), chosen)


def test_what_cannot_work_is_refused_with_the_reason() -> None:
    chosen = settings("set", freezing=0.0)
    with pytest.raises(SpfdeError, match=r"one weight is shared by two\.weight and three\.weight"):
        wrap(tied := Tied(), sgd(tied), chosen)
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
        for indices, batch, labels in DataLoader(data, batch_size=40, sampler=sparse.sampler):
            logits = model(batch)
            loss = F.cross_entropy(logits, labels)
            loss.backward()
            optimizer.step()
            optimizer.zero_grad()
            sparse.observe(indices, logits, labels)
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
