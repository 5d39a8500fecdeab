"""Loops that would train something else than what the trace says."""

from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from spfde import SparseTraining, settings_for
from spfde.lightning import SparseCallback
from tests.refusals.own_models import wrap
from tests.refusals.table import refusal
from tests.test_guards import Detached, TwoParts
from tests.test_own_model import DATA, SAMPLES, network, plain_step, sgd

INDICES, (IMAGES, LABELS) = torch.arange(SAMPLES), DATA.tensors
SIEVED = {"sieving": 0.25}


def train(sparse: SparseTraining, epochs: int, optimizer: torch.optim.Optimizer | None = None) -> SparseTraining:
    for epoch in range(sparse.begun, epochs):
        sparse.begin_epoch(epoch)
        plain_step(sparse.model, optimizer or sparse.optimizer, IMAGES, LABELS)
        sparse.count(INDICES)
    return sparse


@refusal("SAM, which steps in two parts")
def two_part_steps(_: Path) -> None:
    model = network()
    optimizer = TwoParts(model.parameters())
    sparse = wrap(model, optimizer=optimizer)
    sparse.begin_epoch(0)
    F.cross_entropy(model(IMAGES), LABELS).backward()
    optimizer.second_step()
    sparse.count(INDICES)
    sparse.begin_epoch(1)


@refusal("stepping another optimizer than the one given, in the last epoch")
def another_optimizer(_: Path) -> None:
    model = network()
    train(wrap(model), 1, sgd(model)).finish()


@refusal("forgetting `observe`")
def unobserved(_: Path) -> None:
    sparse = wrap()
    sparse.begin_epoch(0)
    plain_step(sparse.model, sparse.optimizer, IMAGES, LABELS)
    sparse.begin_epoch(1)


@refusal("a part of the model that is cut off from the loss")
def no_gradient(_: Path) -> None:
    model = Detached()
    sparse = train(wrap(model), 1)
    model.cut = True
    train(sparse, 3)


@refusal("changing weights outside their masks (averages, another optimizer)")
def weights_outside(_: Path) -> None:
    sparse = train(wrap(), 1)
    sparse.masks["1.0"].weight.data.add_(1.0)
    train(sparse, 2)


@refusal("a step before the first epoch")
def early_step(_: Path) -> None:
    sparse = wrap()
    plain_step(sparse.model, sparse.optimizer, IMAGES, LABELS)


@refusal("samples before the first epoch")
def early_samples(_: Path) -> None:
    wrap().count(INDICES)


@refusal("an epoch left out")
def skipped_epoch(_: Path) -> None:
    wrap().begin_epoch(1)


@refusal("more epochs than the settings plan")
def beyond_the_plan(_: Path) -> None:
    train(wrap(), 6).begin_epoch(6)


@refusal("an epoch after `finish`")
def after_finish(_: Path) -> None:
    sparse = train(wrap(), 2)
    sparse.finish()
    sparse.begin_epoch(2)


@refusal("samples after `finish` or `detach`")
def late_samples(_: Path) -> None:
    sparse = train(wrap(), 2)
    sparse.detach()
    sparse.count(INDICES)


@refusal("a second `SparseTraining` around a model that another one is training")
def second_training(_: Path) -> None:
    first = train(wrap(), 2)
    wrap(first.model)


@refusal("training with the first of two that were made around one model")
def first_of_two(_: Path) -> None:
    first = wrap()
    wrap(first.model)
    first.begin_epoch(0)


@refusal("`finish` twice")
def finish_twice(_: Path) -> None:
    sparse = train(wrap(), 2)
    sparse.finish()
    sparse.finish()


@refusal("`finish` before the first epoch")
def finish_first(_: Path) -> None:
    wrap().finish()


@refusal("a scheduler beside SparseTraining's learning rates")
def scheduler(_: Path) -> None:
    model = network()
    optimizer = sgd(model)
    torch.optim.lr_scheduler.StepLR(optimizer, 2)
    wrap(model, optimizer=optimizer)


@refusal("learning rates of an unknown kind")
def unknown_rates(_: Path) -> None:
    wrap(learning_rates="cosin")


@refusal("learning rates set by hand")
def rates_by_hand(_: Path) -> None:
    sparse = train(wrap(), 2)
    sparse.optimizer.param_groups[0]["lr"] = 0.05
    train(sparse, 3)


@refusal("a parameter group added later")
def added_group(_: Path) -> None:
    sparse = wrap()
    sparse.optimizer.add_param_group({"params": [nn.Parameter(torch.zeros(2))]})
    sparse.begin_epoch(0)


@refusal("sieving with one logit")
def one_logit(_: Path) -> None:
    sparse = wrap(told=SIEVED)
    sparse.begin_epoch(0)
    sparse.observe(torch.arange(3), torch.zeros(3, 1), torch.zeros(3))


@refusal("sieving with labels of shape (batch, 1)")
def column_of_labels(_: Path) -> None:
    sparse = wrap(told=SIEVED)
    sparse.begin_epoch(0)
    sparse.observe(torch.arange(3), torch.zeros(3, 4), torch.zeros(3, 1, dtype=torch.int64))


@refusal("sieving with several outputs")
def several_outputs(_: Path) -> None:
    sparse = wrap(told=SIEVED)
    sparse.begin_epoch(0)
    two: Any = (torch.zeros(3, 4), torch.zeros(3, 4))
    sparse.observe(torch.arange(3), two, torch.zeros(3, dtype=torch.int64))


@refusal("sieving by `count` without predictions")
def no_predictions(_: Path) -> None:
    sparse = wrap(told=SIEVED)
    sparse.begin_epoch(0)
    sparse.count(torch.arange(3))


@refusal("forgetting `sampler=sparse.sampler` while data are sieved (`shuffle=True`)")
def forgotten_sampler(_: Path) -> None:
    sparse = wrap(told=SIEVED)
    for epoch in range(2):
        sparse.begin_epoch(epoch)
        for where in INDICES.split(10):
            sparse.observe(
                where, plain_step(sparse.model, sparse.optimizer, IMAGES[where], LABELS[where]), LABELS[where]
            )


@refusal("a data set whose index is a string, while data are sieved")
def names_for_indices(_: Path) -> None:
    sparse = wrap(told=SIEVED)
    sparse.begin_epoch(0)
    names: Any = ("a.png", "b.png", "c.png")
    sparse.observe(names, torch.zeros(3, 4), torch.zeros(3, dtype=torch.int64))


@refusal("indices that are no whole numbers, while data are sieved")
def fractional_indices(_: Path) -> None:
    sparse = wrap(told=SIEVED)
    sparse.begin_epoch(0)
    sparse.observe(torch.zeros(3), torch.zeros(3, 4), torch.zeros(3, dtype=torch.int64))


@refusal("an index beyond the training set, while data are sieved")
def index_beyond(_: Path) -> None:
    sparse = wrap(told=SIEVED)
    sparse.begin_epoch(0)
    sparse.count(torch.tensor([SAMPLES]), torch.tensor([True]))


@refusal("sieving that removes all samples")
def all_removed(_: Path) -> None:
    wrap(samples=2, told={"sieving": 0.9})


@refusal("a method that scores samples, without `fetch`")
def no_fetch(_: Path) -> None:
    wrap(method="snip").begin_epoch(0)


@refusal("a state of other settings")
def other_settings(_: Path) -> None:
    wrap(told={"sparsity": 0.75}).load_state_dict(wrap().state_dict())


@refusal("a state of another network")
def other_network(_: Path) -> None:
    wider = network()
    wider[2][0] = nn.Conv2d(6, 6, 5, padding=2)
    wrap(wider).load_state_dict(wrap().state_dict())


@refusal("a state that is none")
def no_state(_: Path) -> None:
    wrap().load_state_dict({"masks": torch.zeros(1)})


# Lightning


def callback(**more: Any) -> SparseCallback:
    return SparseCallback(settings_for("set", epochs=4, batch_size=8, interval=1), input_shape=(6,), samples=8, **more)


class Trainer:
    """What the callback asks of Lightning's trainer as fitting starts."""

    world_size, max_epochs, current_epoch = 1, 4, 0

    def __init__(self, model: nn.Module, **more: Any) -> None:
        self.optimizers = [sgd(model)]
        vars(self).update(more)


class Holder(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.model = nn.Sequential(nn.Linear(6, 8), nn.Linear(8, 4))


def start(found: SparseCallback, **more: Any) -> None:
    holder: Any = Holder()
    trainer: Any = Trainer(holder, **more)
    found.on_fit_start(trainer, holder)


@refusal("Lightning: a module whose network has another name")
def lightning_network(_: Path) -> None:
    start(callback(network="net"))


@refusal("Lightning: several processes")
def lightning_processes(_: Path) -> None:
    start(callback(), world_size=2)


@refusal("Lightning: two optimizers")
def lightning_optimizers(_: Path) -> None:
    start(callback(), optimizers=[None, None])


@refusal("Lightning: another number of epochs than the settings'")
def lightning_epochs(_: Path) -> None:
    start(callback(), max_epochs=5)


@refusal("Lightning: `training_step` returns the loss alone")
def lightning_logits(_: Path) -> None:
    callback().seen(torch.zeros(()), (INDICES, IMAGES, LABELS))


@refusal("Lightning: batches without indices")
def lightning_batch(_: Path) -> None:
    outputs: dict[str, Tensor] = {"loss": torch.zeros(()), "logits": torch.zeros(3, 4)}
    callback().seen(outputs, (IMAGES, LABELS))


@refusal("a sampler used before training begins")
def early_sampler(_: Path) -> None:
    list(callback().sampler)
