"""What a run is going to do, known before it trains: its layers, blocks, densities, freezing schedule and trace.

Training uses the same plan, so what is planned and what happens differ only where a method's choice depends on data.
"""

import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from typing import cast

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike
from torch import nn

from spfde import freezing
from spfde.cost.flops import flops, paper_flops
from spfde.cost.memory import Memory, memory
from spfde.cost.profile import Profile
from spfde.cost.trace import make_trace, matrix
from spfde.errors import SpfdeError
from spfde.methods import Method, MethodPlan, make
from spfde.settings import RunSettings, SievingSettings
from spfde.sieving import samples_by_epoch
from spfde.sparsity.distributions import densities
from spfde.sparsity.layers import dense_layers, layers
from spfde.sparsity.masks import Masks, SparseLayer
from spfde.sparsity.schemes import Scheme, scheme


@dataclass(frozen=True)
class Plan:
    """The plan of one run.

    Attributes:
        settings: the run's settings.
        profile: costs and blocks of the model's layers.
        method: the method, with its options.
        shapes: weight shapes of the sparse layers, by name, in model order.
        schedule: frozen blocks by epoch.
        samples: samples in each epoch, shape (epochs,): the whole set, or the partial set where data are sieved.
        first_steps: number of each epoch's first step, counted over all epochs, shape (epochs + 1,).
        forward: planned density of the forward weights without freezing, shape (epochs, layers).
        settled: density of each layer once frozen, shape (layers,).
        momentum: buffers of a weight's size that the optimizer keeps for it; what the settings' momentum needs unless
            told.
        sieving: the sieving settings, with the share that is really removed where that follows from equal FLOPs.
    """

    settings: RunSettings
    profile: Profile
    method: Method
    shapes: dict[str, tuple[int, ...]]
    schedule: freezing.Schedule
    samples: np.ndarray
    first_steps: np.ndarray
    forward: np.ndarray
    settled: np.ndarray
    momentum: int | None = None
    sieving: SievingSettings = field(default_factory=SievingSettings)

    def trace(
        self,
        forward: np.ndarray | None = None,
        samples: np.ndarray | None = None,
        overlaps: Mapping[str, np.ndarray] | None = None,
        executed: ArrayLike = np.nan,
        activations: ArrayLike = np.nan,
    ) -> pd.DataFrame:
        """The trace of the plan, or of what happened.

        Args:
            forward: density of the forward weights that training saw, shape (epochs, layers).
            samples: samples that it saw, shape (epochs,).
            overlaps: the columns that `spfde.cost.trace.OVERLAPS` names, each of shape (epochs, layers).
            executed: share of each dense pass that was run where it was run at all, shape (epochs, layers).
            activations: share of its input's values that each layer's weight gradient used, shape (epochs, layers); not
                a number where that was not counted, and the method's formula stands in.
        """
        forward = self.densities if forward is None else forward
        samples = self.samples if samples is None else samples
        epochs, layers = range(self.settings.training.epochs), self.profile.rows
        weight_grad = np.stack([self.weight_grad(epoch, forward[epoch]) for epoch in epochs])
        formula = np.stack([self.method.activation_density(forward[epoch]) for epoch in epochs])
        activation = np.where(np.isnan(activations), formula, activations)
        seen = [(epoch, layers, int(samples[epoch])) for epoch in epochs]
        extra = np.stack([self.method.extra_macs(*values) for values in seen])
        extra_run = np.stack([self.method.executed_extra_macs(*values) for values in seen])
        sparse = np.array([layer.name in self.shapes for layer in layers])
        updates = np.array([self.method.mask_updates(epoch, self._steps(epoch)) for epoch in epochs])
        trace = make_trace(
            self.profile,
            forward,
            samples,
            self.schedule.counts,
            weight_grad,
            activation,
            extra_macs=extra + self._earlier_macs(samples, self.method.earlier_density(layers)),
            executed_extra_macs=extra_run + self._earlier_macs(samples, self.method.earlier_executed(layers)),
            mask_updates=updates[:, None] * sparse,
            scored_samples=[self.method.scored_samples(*values) for values in seen],
            peak_density=np.stack([self.method.peak_density(forward[epoch]) for epoch in epochs]),
            executed=executed,
        )
        return trace.assign(**{name: values.ravel() for name, values in (overlaps or {}).items()})

    def _earlier_macs(self, samples: np.ndarray, share: np.ndarray) -> np.ndarray:
        """MACs of the rounds before the last one, shape (epochs, layers); those rounds freeze and sieve like the last.

        `share` is that of each dense pass, summed over these rounds, shape (layers,) or (epochs, layers).
        """
        layers = self.profile.rows
        macs = self.profile.macs * share
        input_blocks = np.array([layer.input_block for layer in layers])
        propagates = input_blocks[None, :] >= np.array(self.schedule.counts)[:, None]
        return samples[:, None] * macs * (1.0 + propagates + ~self.frozen)

    @property
    def frozen(self) -> np.ndarray:
        """Which layer is frozen in which epoch, shape (epochs, layers)."""
        blocks = np.array([layer.block for layer in self.profile.rows])
        return blocks[None, :] < np.array(self.schedule.counts)[:, None]

    @property
    def densities(self) -> np.ndarray:
        """Planned density of the forward weights where blocks freeze as scheduled, shape (epochs, layers)."""
        return np.where(self.at_target, self.settled, self.forward)

    @property
    def at_target(self) -> np.ndarray:
        """Which layer has its final density in which epoch because it is or was frozen, shape (epochs, layers)."""
        settled = self.schedule.settled(self.profile.blocks, self.settings.sparsity.interval)
        return settled[:, [layer.block for layer in self.profile.rows]]

    @property
    def ledger(self) -> freezing.Ledger:
        """What freezing schedules save in this run."""
        epochs = range(self.settings.training.epochs)
        work = [
            self.weight_grad(epoch, self.forward[epoch]) * self.method.activation_density(self.forward[epoch])
            for epoch in epochs
        ]
        interval = self.settings.sparsity.interval
        return freezing.Ledger(interval, self.profile, self.forward, np.stack(work), self.settled)

    def candidates(self) -> list[freezing.Schedule]:
        """The freezing schedules among which training chooses; only the planned one if freezing is not adaptive."""
        if self.settings.freezing.scheme != "adaptive" or self.schedule.t_frz is None:
            return [self.schedule]
        return freezing.candidates(self.settings.freezing, self.ledger, self.settings.seed, self.schedule)

    def weight_grad(self, epoch: int, density: np.ndarray) -> np.ndarray:
        """Share of the weight positions whose gradient is needed in an epoch, shape (layers,)."""
        return self.method.weight_grad_density(density, self._steps(epoch))

    def _steps(self, epoch: int) -> range:
        return range(int(self.first_steps[epoch]), int(self.first_steps[epoch + 1]))

    def saved_by_freezing(self, trace: pd.DataFrame) -> float:
        """Share of the training FLOPs (paper column, before sieving) that freezing saved in a trace of this plan.

        The trace is compared with the same trace without freezing. There, a layer that was pruned to its final density
        because it is or was frozen would have had a higher density, by the factor that the plan gives for the pruning,
        and a frozen layer would have used as large a share of its activations as in the last epoch that trained it.
        """
        layers = len(self.profile.rows)
        forward, weight_grad, activation = (
            matrix(trace, name, layers) for name in ("forward_density", "weight_grad_density", "activation_density")
        )
        grown = np.divide(self.forward, self.settled, out=np.ones_like(self.forward), where=self.settled > 0)
        free = np.where(self.at_target, np.minimum(1.0, forward * grown), forward)
        trained = np.maximum.accumulate(np.where(self.frozen, 0, np.arange(len(free))[:, None]))
        used = np.take_along_axis(activation, trained, axis=0)
        work = used * np.stack([self.weight_grad(epoch, row) for epoch, row in enumerate(free)])
        macs, ones = self.profile.paper_macs, np.ones((len(free), 1))
        never = np.array([layer.block < 0 for layer in self.profile.rows]) & np.ones_like(self.frozen)
        without = paper_flops(macs, ones, free, never, work)
        return 1 - paper_flops(macs, ones, forward, self.frozen, weight_grad * activation) / without

    def masks(self, model: nn.Module) -> Masks:
        """Masks of the model's sparse layers, all of their weights still active."""
        block_of = {layer.name: layer.block for layer in self.profile.rows}
        form, found, dense = scheme(self.settings.sparsity.scheme), layers(model), self.method.dense_masters
        return Masks(
            SparseLayer(
                name, cast(nn.Parameter, found[name].weight), density, block_of[name], form.of(found[name]), dense
            )
            for name, density in self.method.plan.densities.items()
        )

    def costs(self, trace: pd.DataFrame) -> tuple[dict[str, float], Memory]:
        """FLOPs by column and memory in bytes of a trace."""
        training = self.settings.training
        momentum = int(training.momentum > 0) if self.momentum is None else self.momentum
        ledger = memory(self.profile, trace, training.batch_size, momentum, self.method.dense_masters)
        return flops(self.profile, trace), ledger


def plan_run(
    settings: RunSettings, model: nn.Module, samples: int, costs: Profile, dense: Collection[str] = ()
) -> Plan:
    """Plans a run of any model.

    Args:
        settings: the run's settings.
        model: the network; it is left as it is.
        samples: size of the training set.
        costs: the model's profile.
        dense: qualified names of modules whose layers stay dense beside those of `sparsity.dense_layers`.

    Raises:
        SpfdeError: no layer can become sparse, freezing cannot save the wanted share of FLOPs or leaves nothing to
            train, or the method's options are wrong.
    """
    found = layers(model)
    epochs, batch = settings.training.epochs, settings.training.batch_size
    sparse = settings.sparsity
    base = make(MethodPlan(settings, {}))
    stay = dense_layers(model, sparse.dense_layers, dense) if base.sparse else set(found)
    shapes = {name: tuple(module.weight.shape) for name, module in found.items() if name not in stay}
    if base.sparse and not shapes:
        rule = f"sparsity.dense_layers = {sparse.dense_layers}"
        kept = f"keeps all {len(found)} of them dense ({rule})" if found else "has none of them"
        cause = f"method {base.name} makes convolutions and linear layers sparse, and this network {kept}"
        raise SpfdeError(cause, "set sparsity.dense_layers=none, or train it with method dense")
    sieving = settings.sieving
    if sieving.equal_flops:
        sieving = _equal_to_freezing(settings, model, samples, costs, dense)
    seen = samples_by_epoch(sieving, sparse.interval, epochs, samples)
    first_steps = np.concatenate([[0], np.cumsum(-(-seen // batch))])
    forms = {name: scheme(sparse.scheme).of(found[name]) for name in shapes}
    targets = densities(
        sparse.distribution, {name: forms[name].layout.shape(shape) for name, shape in shapes.items()}, sparse.target
    )
    begins = first_steps.tolist()
    method = make(MethodPlan(settings, targets, math.ceil(samples / batch), shapes, begins[-1], costs.classes, begins))
    exact = {name: _Exact(forms[name], shape) for name, shape in shapes.items()}
    names = [layer.name for layer in costs.rows]
    forward = np.ones((epochs, len(names)))
    for epoch in range(epochs):
        planned = method.densities(epoch)
        forward[epoch] = [exact[name](planned[name]) if name in planned else 1.0 for name in names]
    settled = np.array([exact[name](targets[name]) if name in targets else 1.0 for name in names])

    draft = Plan(
        settings,
        costs,
        method,
        shapes,
        freezing.Schedule((0,) * epochs),
        seen,
        first_steps,
        forward,
        settled,
        sieving=sieving,
    )
    if not settings.freezing.flops_reduction:
        return draft
    schedule = freezing.solve(settings.freezing, draft.ledger, settings.seed)
    if not costs.trainable[max(schedule.counts)]:
        cause = (
            f"in the end {max(schedule.counts)} of {costs.blocks} freezing blocks are frozen, and nothing else trains"
        )
        raise SpfdeError(cause, "lower freezing.share, or leave the last layers out of the blocks")
    return replace(draft, schedule=schedule)


def _equal_to_freezing(
    settings: RunSettings, model: nn.Module, samples: int, costs: Profile, dense: Collection[str]
) -> SievingSettings:
    """The sieving settings with the share to remove at which the run costs what freezing alone does (`paper` column).

    Freezing and sieving are to leave (1 - x)(1 - y) of the FLOPs. Freezing alone, asked for as much, saves a little
    more on its grid, and so does the freezing of this run; sieving takes what is then left to take.
    """
    freeze, sieving = settings.freezing, settings.sieving
    off = {
        "freezing": freeze.model_copy(update={"flops_reduction": 0.0}),
        "sieving": sieving.model_copy(update={"removed": 0.0, "equal_flops": False}),
    }
    ledger = plan_run(settings.model_copy(update=off), model, samples, costs, dense).ledger

    def left(wanted: float) -> float:
        alone = freeze.model_copy(update={"flops_reduction": wanted})
        return 1 - freezing.solve(alone, ledger, settings.seed).achieved

    both = 1 - (1 - freeze.flops_reduction) * (1 - sieving.removed)
    return sieving.model_copy(update={"removed": 1 - left(both) / left(freeze.flops_reduction)})


class _Exact:
    """The density that a layer really gets, because a scheme keeps whole units only."""

    def __init__(self, form: Scheme, shape: tuple[int, ...]) -> None:
        self.scheme, self.shape = form, shape
        self.known: dict[float, float] = {}

    def __call__(self, density: float) -> float:
        if density not in self.known:
            self.known[density] = self.scheme.weight_count(self.shape, density) / math.prod(self.shape)
        return self.known[density]
