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

from collections.abc import Callable, Collection
from dataclasses import replace
from typing import Any, Literal

import pandas as pd
import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from spfde import compatibility, rng
from spfde.cost.profile import Profile, profile
from spfde.errors import SpfdeError
from spfde.execution import Execution, Wanted
from spfde.freezing import FrozenBlock, GradientCriterion, blocks_of_parameters, freezing_together
from spfde.guards import Guards, Served, check_alone, check_count, check_epoch, check_finish
from spfde.history import History
from spfde.hold import Hold, check_free, weakly
from spfde.learning_rates import BlockRates, check_schedulers
from spfde.models import Block
from spfde.models import blocks as find_blocks
from spfde.planning import Plan, plan_run
from spfde.settings import RunSettings
from spfde.sieving import SCHEDULES, PartialSetSampler, Sieve, update_epochs, warn_of_single_looks
from spfde.sparsity.initialization import draw_by_fan_in, scale_to_fan_in
from spfde.stepping import AroundSteps, momentum_buffers


class SparseTraining:
    """Masks, freezing and sieving of one run.

    Args:
        model: any module with convolutions or linear layers, on the device that it trains on; what `torch.compile` or
            DistributedDataParallel returned for it works as well.
        optimizer: holds the model's parameters; its groups are split by freezing block here, once, and afterwards only
            their `lr` changes.
        settings: the run's settings, e.g. from `spfde.settings_for`; of `training` the epochs, the batch size (samples
            per optimizer step) and the learning rates' end and warm-up are used.
        input_shape: shape of one input, (channels, height, width); by default that of the data set that the settings
            name.
        samples: size of the training set; by default that of the same data set.
        blocks: freezing blocks in forward order; by default those found in the model.
        dense: names of layers, or of modules that hold layers, that stay dense beside `sparsity.dense_layers`.
        fetch: gives images and labels at indices (int64) of the training set; methods that score data need it
            (SNIP, GraSP, GSE).
        learning_rates: "cosine" makes each block's rate follow its own cosine, from the optimizer's `lr` on (SpFDE,
            progressive layer freezing); "own" leaves rates and groups to the caller and the caller's scheduler.
        costs: the model's profile, if it is known already.
        kernels: "dense" runs torch's kernels under masks; "sparse", on a CPU, such as skip the zeros; "auto" takes for
            each layer or block what is faster here.

    Attributes:
        epochs: epochs to train: the settings', times the rounds of a method that trains more than once.
        begun: how many of them have begun.
        epoch: the present epoch, within its round.

    Raises:
        SpfdeError: the settings cannot work with this model or optimizer.
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
        dense: Collection[str] = (),
        fetch: Callable[[Tensor], tuple[Tensor, Tensor]] | None = None,
        learning_rates: Literal["cosine", "own"] = "cosine",
        costs: Profile | None = None,
        kernels: Wanted = "auto",
    ) -> None:
        self.model = model = compatibility.unwrapped(model, settings)
        check_free(model)
        compatibility.check_optimizer(optimizer)
        compatibility.check_rates(learning_rates, settings.training)
        if learning_rates == "cosine":
            check_schedulers(optimizer)
        self.optimizer, self._device = optimizer, next(model.parameters()).device
        self.settings = settings
        input_shape, self.samples = compatibility.training_set(settings, input_shape, samples)
        self.blocks = find_blocks(model) if blocks is None else blocks
        compatibility.check_blocks(model, self.blocks)
        if settings.freezing.flops_reduction:
            compatibility.warn_of_fixed(model, self.blocks)
        costs = costs or profile(model, input_shape, self.blocks)
        compatibility.check_order(self.blocks, costs, settings.freezing.flops_reduction > 0, own=blocks is not None)
        plan = plan_run(settings, model, self.samples, costs, dense)
        self.plan: Plan = replace(plan, momentum=momentum_buffers(optimizer))
        self.method = self.plan.method
        compatibility.check_head(self.method, costs)
        block_of = blocks_of_parameters(model, self.blocks)
        self._criterion = GradientCriterion(self.plan.candidates(), settings.sparsity.interval, costs.blocks, block_of)
        self.epochs = settings.training.epochs * self.method.rounds
        self._fetch = fetch
        self.begun = 0
        self.finished = False
        self.epoch = -1
        self.frozen_blocks = 0
        self._frozen: dict[int, FrozenBlock] = {}
        self._together = freezing_together(model, self.blocks)
        if self.plan.sieving.removed:
            warn_of_single_looks(self.plan.sieving, settings.sparsity.interval, settings.training.epochs)

        compatibility.check_weights(model, optimizer, self.method, costs)
        batch = settings.training.batch_size
        compatibility.warn_of_single_samples(model, input_shape, self.plan.samples.tolist(), batch)
        self.masks = self.plan.masks(model)
        self._start_round()
        undecayed = set() if self.method.decays else {layer.weight for layer in self.masks}
        if learning_rates == "own":
            compatibility.check_decay(optimizer, self.method.name, undecayed)
        names, idle = [block.name for block in self.blocks], {model.get_parameter(name) for name in costs.idle}
        self._guards = Guards(optimizer, block_of, names, idle)
        self._served = Served(batch)
        self.execution = Execution(model, self.masks, self.method, kernels, batch, input_shape)
        self.method.attach(self)
        # From here on nothing is refused, so that a refusal leaves model and optimizer as they were.
        self._rates: BlockRates | None = None
        if learning_rates == "cosine":
            self._rates = BlockRates(optimizer, settings.training, block_of, len(self.blocks), undecayed)
        arrivals = self.masks.mask_on_arrival(weakly(self._masks_arrivals))
        begins, prepare, after = map(weakly, (self._begin_step, self._prepare_gradients, self._after_step))
        steps = AroundSteps(optimizer, begins, prepare, after)
        rates = [self._rates] if self._rates else []
        self.hold = Hold(self, [*arrivals, steps, *rates], self.execution, self.method, self._frozen)

    # what a training loop calls

    def begin_epoch(self, epoch: int) -> None:
        """Boundary events before an epoch: mask update, sieving update, freezing, learning rates.

        Raises:
            SpfdeError: the epoch is not the next one or beyond the plan, or something went wrong in the one before
                (`spfde.guards`) or with the learning rates.
        """
        check_epoch(epoch, self.begun, self.epochs, self._ended)
        if self._rates:
            self._rates.check()
        if epoch:
            self._end_epoch()
        self.begun += 1
        self.epoch = epoch % self.settings.training.epochs
        if epoch == 0:
            compatibility.check_steps(self.optimizer)
            self._start()
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
        self._begin_steps(frozen)

    def _start(self) -> None:
        """The first masks, and initial weights by their fan-in where the settings want these."""
        by_fan_in = self.settings.sparsity.initialization == "fan-in"
        modules = [self.model.get_submodule(layer.name) for layer in self.masks] if by_fan_in else []
        for layer, module in zip(self.masks, modules, strict=False):
            draw_by_fan_in(layer, module, self.generator("init", "fan-in", layer.name))
        self.method.start(self)
        for layer, module in zip(self.masks, [] if self.method.mask_of_weights else modules, strict=False):
            scale_to_fan_in(layer, module)

    def observe(self, indices: Tensor, logits: Tensor, labels: Tensor) -> None:
        """Tells sieving how the samples of a step fared; never waits for the device.

        Args:
            indices: (batch,) indices in the training set.
            logits: (batch, classes) of the training step itself.
            labels: (batch,) classes.

        Raises:
            SpfdeError: training has not begun or has ended; or, while data are sieved, several processes train
                together, and this one would count its own samples alone, or logits and labels are not of classes.
        """
        if not self.sieve:
            return self.count(indices)
        check_alone()
        compatibility.check_classes(indices, logits, labels)
        self.count(indices, logits.detach().argmax(dim=1) == labels)

    def count(self, indices: Tensor, correct: Tensor | None = None) -> None:
        """As `observe`, where the caller knows which predictions were right: for heads without one logit per class.

        Where several processes share a step's samples, each of them makes the same call for the whole batch.

        Args:
            indices: (batch,) indices in the training set, of the whole batch.
            correct: (batch,) booleans, whose samples the training step itself predicted; needed where data are sieved.

        Raises:
            SpfdeError: training has not begun or has ended; or data are sieved, and `correct` is missing or not
                (batch,) booleans, or `indices` are not positions in the training set.
        """
        check_count(self.begun, self._ended)
        if self.sieve:
            indices = compatibility.checked_indices(indices, self.samples).to(self._device)
            self.sieve.observe(indices, compatibility.checked_correct(indices, correct))
        self._served.saw(indices)
        self.history.samples[self.epoch] += len(indices)

    @property
    def steps_alike(self) -> bool:
        """Whether the next step can be replayed: it does what all others of this epoch do for which this holds."""
        return self.method.replays(self.step)

    def count_replayed(self, samples: int) -> None:
        """Counts a step that was replayed from a recording of one like it, without the hooks around it.

        Args:
            samples: of the step's batch.
        """
        self.history.samples[self.epoch] += samples
        self.history.steps[self.epoch] += 1
        self.step += 1

    def finish(self) -> None:
        """After the last epoch: thaws what is frozen, lets go of the optimizer, leaves plain weights with zeros.

        Raises:
            SpfdeError: no epoch has begun, `finish` or `detach` was called before, or something went wrong in the last
                epoch.
        """
        check_finish(self.begun, self._ended)
        self._end_epoch()
        self.finished = True
        self.detach()
        self.method.finish(self)
        self.masks.mask_weights()
        self.history.close(self.epoch)  # SWAT's last masks are made as it finishes

    def detach(self) -> None:
        """Lets go of model and optimizer where training ends early: thaws what is frozen, leaves weights as they are.

        Nothing can be trained with this object afterwards, and the optimizer has the learning rates and weight decays
        with which it came. `finish` does this by itself; so does losing the object.
        """
        self.freeze(0)
        self.hold.release()

    @property
    def _ended(self) -> str:
        """By what training has ended; nothing while it goes on."""
        return "finish()" if self.finished else "detach()" if self.hold.released else ""

    def fetch(self, indices: Tensor) -> tuple[Tensor, Tensor]:
        """Images and labels at indices of the training set, for methods that score data."""
        if self._fetch is None:
            cause = f"method {self.method.name} scores samples of the training set"
            raise SpfdeError(cause, "give SparseTraining a function fetch(indices) -> (images, labels)")
        images, labels = self._fetch(indices)
        return images.to(self._device), labels.to(self._device)

    @property
    def partial_set(self) -> Tensor | None:
        """Membership of the partial set, (samples,) booleans; none where data are not sieved."""
        return self.sieve.partial if self.sieve else None

    @property
    def sampler(self) -> PartialSetSampler:
        """Shuffled indices of the partial set, for a DataLoader whose data set also gives each sample's index."""
        return PartialSetSampler(self.plan.samples, lambda: self)

    def trace(self) -> pd.DataFrame:
        """What happened, by epoch and layer (columns: `spfde.cost.trace`)."""
        return self.history.trace(self.plan)

    def generator(self, *key: object) -> torch.Generator:
        """The run's random stream for `key`."""
        return rng.generator(self.settings.seed, *key)

    # masks around the optimizer's step

    def _begin_step(self) -> None:
        if not self.begun:
            raise SpfdeError("a step before the first epoch began", "call begin_epoch(0) first")

    def _masks_arrivals(self) -> bool:
        return not self.method.needs_dense_gradient_at(self.step)

    def _prepare_gradients(self) -> None:
        self._guards.look()
        self._served.step()
        if not self.method.before_step(self, self.step):
            for group in self.optimizer.param_groups:
                for parameter in group["params"]:
                    parameter.grad = None  # a parameter without gradient is left alone by every optimizer
        self.masks.mask_gradients()
        self._criterion.observe()

    def _after_step(self) -> None:
        self.masks.mask_weights()
        # Before the method turns to the next step.
        self.history.step(self.epoch, self.execution.executed, self.method.take_activations())
        self.method.after_step(self, self.step)
        self.step += 1
        self.execution.prepare(self.step)

    # boundary events

    def _end_epoch(self) -> None:
        steps, samples = int(self.history.steps[self.epoch]), int(self.history.samples[self.epoch])
        self._guards.check(self.begun - 1, steps, samples, self.masks)
        self._served.check(self.begun - 1, steps, samples, int(self.plan.samples[self.epoch]))
        self.history.close(self.epoch)

    def _start_round(self) -> None:
        epochs, sieving = self.settings.training.epochs, self.plan.sieving
        self.step = 0
        self.masks.stayed.zero_()
        self.history = History(epochs, self.masks)
        self.sieve: Sieve | None = None
        if sieving.removed:
            self.sieve = SCHEDULES[sieving.schedule](self.samples, sieving, self.settings.seed, self._device)
            self._sieve_epochs = update_epochs(sieving, self.settings.sparsity.interval, epochs)

    def _update_masks(self, frozen: int) -> None:
        for layer in self.masks.trained:
            if layer.block < frozen:
                self.method.settle(self, layer)
        if self.method.uses_interval and self.epoch % self.settings.sparsity.interval == 0:
            self.method.update(self, self.epoch, [layer for layer in self.masks if layer.block >= frozen])

    def _begin_steps(self, frozen: int) -> None:
        """Sets what the steps of an epoch run under: frozen prefix, guards, learning rates, kernels."""
        self.freeze(frozen)
        self._guards.begin(frozen)
        self._served.begin(self.partial_set)
        if self._rates:
            self._rates.set(self.plan.schedule, self.epoch)
        self.execution.begin(self.step)

    def freeze(self, frozen: int) -> None:
        """Makes the first `frozen` blocks the frozen prefix, thawing or freezing what differs."""
        for index in [index for index in self._frozen if index >= frozen]:
            self._frozen.pop(index).thaw(self.model.training)
        for index in range(self.frozen_blocks, frozen):
            self._frozen[index] = FrozenBlock(*self._together[index], self.settings.freezing.batch_norm)
        self.frozen_blocks = frozen
        self.masks.select(frozen)

    # resuming

    @property
    def _parts(self) -> dict[str, Any]:
        """What has a state of its own, by the first part of its tensors' names."""
        parts = {"masks": self.masks, "method": self.method, "sieve": self.sieve, "freezing": self._criterion}
        parts |= {"history": self.history, "kernels": self.execution}
        return {name: part for name, part in parts.items() if part is not None}

    def state_dict(self) -> dict[str, Tensor]:
        """Everything beside model and optimizer that training needs to go on, as a flat dict of tensors."""
        state = {f"{part}.{name}": value for part, of in self._parts.items() for name, value in of.state_dict().items()}
        state["progress"] = torch.tensor([self.begun, self.step])
        state["settings"] = torch.frombuffer(bytearray(self.settings.identity.encode()), dtype=torch.uint8)
        return state

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Goes back to where `state_dict` was called; model and optimizer must have been loaded by the caller.

        Raises:
            SpfdeError: the state is of other settings or of another network.
        """
        compatibility.check_state(state, self.masks.state_dict(), self.settings)
        for part, of in self._parts.items():
            own = {k.removeprefix(f"{part}."): v.to(self._device) for k, v in state.items() if k.startswith(f"{part}.")}
            of.load_state_dict(own)
        self.plan = replace(self.plan, schedule=self._criterion.schedule)
        self.begun, self.step = state["progress"].tolist()
        if self.begun:
            self.epoch = (self.begun - 1) % self.settings.training.epochs
            self._begin_steps(self.plan.schedule.counts[self.epoch])
