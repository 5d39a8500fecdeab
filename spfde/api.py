"""`SparseTraining`: sparse training with freezing and sieving around any model and optimizer.

    sparse = SparseTraining(model, optimizer, settings, input_shape=(3, 32, 32), samples=len(train_set))
    for epoch in range(settings.training.epochs):
        sparse.begin_epoch(epoch)
        for indices, images, labels in batches(sparse.sampler):
            logits = model(images)
            cross_entropy(logits, labels).backward()
            optimizer.step()
            optimizer.zero_grad()
            sparse.observe(indices, logits, labels)
    sparse.finish()

docs/own_model.md has longer examples, and says what goes together with it: mixed precision, compilation, accumulated
gradients, schedulers. Boundary events happen in `begin_epoch`: mask update, sieving update, freezing, learning rates,
in this order. Between them the step is static; gradients and weights are masked by hooks around `optimizer.step`.
"""

from collections.abc import Callable
from dataclasses import replace
from typing import Any, Literal, cast

import pandas as pd
import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from spfde import rng
from spfde.compatibility import check_alone, check_decay, check_schedulers, check_weights, training_set, unwrapped
from spfde.cost.profile import Profile, profile
from spfde.errors import SpfdeError
from spfde.freezing import FrozenBlock, GradientCriterion, blocks_of_parameters
from spfde.history import History
from spfde.models import Block
from spfde.models import blocks as find_blocks
from spfde.planning import Plan, plan_run
from spfde.settings import RunSettings
from spfde.sieving import SCHEDULES, PartialSetSampler, Sieve, update_epochs
from spfde.sparsity.layers import layers
from spfde.sparsity.masks import Masks, SparseLayer
from spfde.sparsity.schemes import scheme


class SparseTraining:
    """Masks, freezing and sieving of one run.

    Args:
        model: any module with convolutions or linear layers, on the device that it trains on; what `torch.compile` or
            DistributedDataParallel made of it will do as well.
        optimizer: holds the model's parameters; its groups are split by freezing block here, once, and afterwards only
            their `lr` changes.
        settings: the run's settings, e.g. from `spfde.settings_for`; of `training` the epochs, the batch size (samples
            an optimizer step) and the learning rates' end and warm-up are used.
        input_shape: shape of one input, (channels, height, width); of the data set that the settings name unless given.
        samples: size of the training set; of the same unless given.
        blocks: freezing blocks in forward order; found in the model unless given.
        fetch: gives images and labels at positions (int64) of the training set; methods that score data need it
            (SNIP, GraSP, GSE).
        learning_rates: "cosine" makes each block's rate follow its own cosine, from the optimizer's `lr` on (SpFDE,
            Sec. 3.2); "own" leaves rates and groups to the caller and his scheduler.
        costs: the model's profile, where it is known already.

    Attributes:
        epochs: epochs to train: the settings', times the rounds of a method that trains more than once.
        begun: how many of them have begun.
        epoch: the epoch in hand, within its round.

    Raises:
        SpfdeError: the settings cannot be had with this model or optimizer.
    """

    def __init__(
        self,
        model: nn.Module,
        optimizer: Optimizer,
        settings: RunSettings,
        *,
        input_shape: tuple[int, ...] | None = None,
        samples: int | None = None,
        blocks: list[Block] | None = None,
        fetch: Callable[[Tensor], tuple[Tensor, Tensor]] | None = None,
        learning_rates: Literal["cosine", "own"] = "cosine",
        costs: Profile | None = None,
    ) -> None:
        self.model = model = unwrapped(model, settings)
        self.optimizer = optimizer
        self.settings = settings
        input_shape, self.samples = training_set(settings, input_shape, samples)
        self.blocks = find_blocks(model) if blocks is None else blocks
        costs = costs or profile(model, input_shape, self.blocks)
        self.plan: Plan = plan_run(settings, model, self.samples, costs)
        self.method = self.plan.method
        self._criterion = GradientCriterion(
            self.plan.candidates(), settings.sparsity.interval, costs.blocks, blocks_of_parameters(model, self.blocks)
        )
        self.epochs = settings.training.epochs * self.method.rounds
        self._fetch = fetch
        self.begun = 0
        self.epoch = -1
        self.frozen_blocks = 0
        self._frozen: dict[int, FrozenBlock] = {}

        check_weights(model, optimizer, self.method.plan.densities)
        block_of = {layer.name: layer.block for layer in self.plan.profile.layers}
        found = layers(model)
        self.masks = Masks(
            SparseLayer(
                name,
                cast(nn.Parameter, found[name].weight),
                density,
                block_of[name],
                scheme(settings.sparsity.scheme),
                self.method.dense_masters,
            )
            for name, density in self.method.plan.densities.items()
        )
        self._start_round()
        self._rates: list[tuple[int, float]] | None = None  # block and initial learning rate of each group
        if learning_rates == "cosine":
            check_schedulers(optimizer)
            self._rates = self._split_groups()
        elif not self.method.decays:
            check_decay(optimizer, self.method.name, {layer.weight for layer in self.masks})
        self.method.attach(self)
        self._hooks = (
            optimizer.register_step_pre_hook(self._before_step),
            optimizer.register_step_post_hook(self._after_step),
        )

    # what a training loop calls

    def begin_epoch(self, epoch: int) -> None:
        """Boundary events before an epoch: mask update, sieving update, freezing, learning rates."""
        if epoch != self.begun:
            raise SpfdeError(f"epoch {epoch} where epoch {self.begun} is next", "begin the epochs in order, each once")
        if epoch:
            self.history.close(self.epoch)
        self.begun += 1
        self.epoch = epoch % self.settings.training.epochs
        if epoch == 0:
            self.method.start(self)
            for layer in self.masks:  # an optimizer may have gathered momentum before
                if not layer.dense_master:
                    layer.clear_outside(layer.active, self.optimizer)
        elif self.epoch == 0:
            self.method.next_round(self)
            self._start_round()
        self._criterion.decide(self.epoch)
        self.plan = replace(self.plan, schedule=self._criterion.schedule)
        frozen = self.plan.schedule.counts[self.epoch]
        self._update_masks(frozen)
        if self.sieve and self.epoch in self._sieve_epochs:
            self.sieve.update(self.epoch)
        self.freeze(frozen)
        self._set_learning_rates()

    def observe(self, indices: Tensor, logits: Tensor, labels: Tensor) -> None:
        """Tells sieving how the samples of a step fared; never waits for the device.

        Args:
            indices: (batch,) positions in the training set.
            logits: (batch, classes) of the training step itself.
            labels: (batch,) classes.

        Raises:
            SpfdeError: several processes train together, and this one would count its own samples alone.
        """
        if self.sieve:
            check_alone()
        self.count(indices, logits.detach().argmax(dim=1) == labels)

    def count(self, indices: Tensor, correct: Tensor) -> None:
        """As `observe`, for a step whose samples several processes shared: the same call in each of them.

        Args:
            indices: (batch,) positions in the training set, of the whole batch.
            correct: (batch,) booleans, whose class the training step itself predicted.
        """
        self.history.samples[self.epoch] += len(indices)
        if self.sieve:
            self.sieve.observe(indices, correct)

    def finish(self) -> None:
        """After the last epoch: thaws what is frozen, lets go of the optimizer, leaves plain weights with zeros."""
        for hook in self._hooks:
            hook.remove()
        self.freeze(0)
        self.method.finish(self)
        self.masks.mask_weights()
        self.history.close(self.epoch)

    def fetch(self, indices: Tensor) -> tuple[Tensor, Tensor]:
        """Images and labels at positions of the training set, for methods that score data."""
        if self._fetch is None:
            cause = f"method {self.method.name} scores samples of the training set"
            raise SpfdeError(cause, "give SparseTraining a function fetch(indices) -> (images, labels)")
        images, labels = self._fetch(indices)
        device = next(self.model.parameters()).device
        return images.to(device), labels.to(device)

    @property
    def partial_set(self) -> Tensor | None:
        """Membership of the partial set, (samples,) booleans; none where data are not sieved."""
        return self.sieve.partial if self.sieve else None

    @property
    def sampler(self) -> PartialSetSampler:
        """Shuffled positions of the partial set, for a DataLoader whose data set also gives each sample's position."""
        return PartialSetSampler(self.plan.samples, lambda: self)

    def trace(self) -> pd.DataFrame:
        """What happened, by epoch and layer (columns: `spfde.cost.trace`)."""
        return self.history.trace(self.plan)

    def generator(self, *key: object) -> torch.Generator:
        """The run's random stream for `key`."""
        return rng.generator(self.settings.seed, *key)

    # masks around the optimizer's step

    def _before_step(
        self, _: Optimizer, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """Masks the gradients that the step uses: those that are there, or those that its closure will compute."""
        if not self.begun:
            raise SpfdeError("a step before the first epoch began", "call begin_epoch(0) first")
        me, closure, *rest = (*args, kwargs.get("closure")) if len(args) == 1 else args
        if closure is None:
            self._prepare_gradients()
            return args, kwargs

        def masked() -> Any:
            loss = closure()
            self._prepare_gradients()
            return loss

        return (me, masked, *rest), {name: value for name, value in kwargs.items() if name != "closure"}

    def _prepare_gradients(self) -> None:
        if not self.method.before_step(self, self.step):
            for group in self.optimizer.param_groups:
                for parameter in group["params"]:
                    parameter.grad = None  # a parameter without gradient is left alone by every optimizer
        self.masks.mask_gradients()
        self._criterion.observe()

    def _after_step(self, *_: object) -> None:
        self.masks.mask_weights()
        self.history.step(self.epoch)  # before the method turns to the next step
        self.method.after_step(self, self.step)
        self.step += 1

    # boundary events

    def _start_round(self) -> None:
        epochs, sieving = self.settings.training.epochs, self.settings.sieving
        device = next(self.model.parameters()).device
        self.step = 0
        self.masks.stayed.zero_()
        self.history = History(epochs, self.masks)
        self.sieve: Sieve | None = None
        if sieving.removed:
            self.sieve = SCHEDULES[sieving.schedule](self.samples, sieving, self.settings.seed, device)
            self._sieve_epochs = update_epochs(sieving, self.settings.sparsity.interval, epochs)

    def _update_masks(self, frozen: int) -> None:
        for layer in self.masks.trained:
            if layer.block < frozen:
                self.method.settle(self, layer)
        if self.method.uses_interval and self.epoch % self.settings.sparsity.interval == 0:
            self.method.update(self, self.epoch, [layer for layer in self.masks if layer.block >= frozen])

    def freeze(self, frozen: int) -> None:
        """Makes the first `frozen` blocks the frozen prefix, thawing or freezing what differs."""
        for index in [index for index in self._frozen if index >= frozen]:
            self._frozen.pop(index).thaw(self.model.training)
        for index in range(self.frozen_blocks, frozen):
            self._frozen[index] = FrozenBlock([self.model.get_submodule(name) for name in self.blocks[index].modules])
        self.frozen_blocks = frozen
        self.masks.select(frozen)

    def _split_groups(self) -> list[tuple[int, float]]:
        """Splits each of the optimizer's groups by block, so that every block can have its own learning rate.

        Sparse weights without weight decay, where the method has none, become groups of their own.
        """
        block_of = blocks_of_parameters(self.model, self.blocks)
        undecayed = set() if self.method.decays else {layer.weight for layer in self.masks}
        groups: list[dict[str, Any]] = []
        rates: list[tuple[int, float]] = []
        for group in self.optimizer.param_groups:
            parts: dict[tuple[int, bool], list[nn.Parameter]] = {}
            for parameter in group["params"]:
                part = block_of.get(parameter, len(self.blocks)), parameter in undecayed
                parts.setdefault(part, []).append(parameter)
            for (block, without), parameters in sorted(parts.items()):
                groups.append({**group, "params": parameters, **({"weight_decay": 0.0} if without else {})})
                rates.append((block, float(group["lr"])))
        self.optimizer.param_groups[:] = groups
        return rates

    def _set_learning_rates(self) -> None:
        if self._rates is None:
            return
        check_schedulers(self.optimizer)
        training, epoch = self.settings.training, self.epoch
        warm = min(1.0, (epoch + 1) / training.warmup_epochs) if training.warmup_epochs else 1.0
        for group, (block, lr) in zip(self.optimizer.param_groups, self._rates, strict=True):
            rates = self.plan.schedule.learning_rates(len(self.blocks), lr, min(lr, training.lr_min))
            group["lr"] = warm * float(rates[epoch, block])

    # resuming

    def state_dict(self) -> dict[str, Tensor]:
        """Everything beside model and optimizer that training needs to go on, as a flat dict of tensors."""
        state = {f"masks.{name}": value for name, value in self.masks.state_dict().items()}
        state |= {f"method.{name}": value for name, value in self.method.state_dict().items()}
        state |= {f"sieve.{name}": value for name, value in (self.sieve.state_dict() if self.sieve else {}).items()}
        state |= {f"freezing.{name}": value for name, value in self._criterion.state_dict().items()}
        state |= {f"history.{name}": value for name, value in self.history.state_dict().items()}
        state["progress"] = torch.tensor([self.begun, self.step])
        return state

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Goes back to where `state_dict` was called; model and optimizer must have been loaded by the caller."""
        parts: dict[str, dict[str, Tensor]] = {"masks": {}, "method": {}, "sieve": {}, "freezing": {}, "history": {}}
        for name, value in state.items():
            part, dot, rest = name.partition(".")
            if dot:
                parts[part][rest] = value
        self.masks.load_state_dict(parts["masks"])
        device = next(self.model.parameters()).device
        self.method.load_state_dict({name: value.to(device) for name, value in parts["method"].items()})
        if self.sieve:
            self.sieve.load_state_dict(parts["sieve"])
        self._criterion.load_state_dict(parts["freezing"])
        self.plan = replace(self.plan, schedule=self._criterion.schedule)
        self.begun, self.step = state["progress"].tolist()
        self.history.load_state_dict(parts["history"])
        if self.begun:
            self.epoch = (self.begun - 1) % self.settings.training.epochs
            self.freeze(self.plan.schedule.counts[self.epoch])
            self._set_learning_rates()
