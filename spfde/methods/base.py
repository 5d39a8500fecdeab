"""What a method is: a small class that says how dense each layer is over time, and what its mask updates drop and grow.

A method plans (densities by epoch, known before training) and acts (on masks, at boundary events). To add one: derive
from `Method` or `DropAndGrow`, override what differs, and decorate the class with `@register`. It then appears in
settings, tables and `spfde methods`.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal, TypeVar

import numpy as np
import torch
from pydantic import Field
from torch import Tensor

from spfde.cost.profile import LayerProfile
from spfde.errors import SpfdeError, lookup
from spfde.methods.run import Run
from spfde.rounding import half_up
from spfde.settings import RunSettings, Section, SparsitySettings, parse
from spfde.sparsity.masks import SparseLayer
from spfde.sparsity.schemes import scheme

PAPER_STEPS = 160 * 782  # steps of the paper's CIFAR runs; intervals in steps refer to runs of that length


@dataclass(frozen=True)
class MethodPlan:
    """What a method knows before training starts.

    Attributes:
        settings: the run's settings.
        densities: density of each sparse layer at the end of training, by name, in model order.
        steps_per_epoch: steps of an epoch over the whole training set.
        shapes: weight shape of each sparse layer, by name.
        steps: steps of the whole training; where data are sieved, fewer than over the whole training set.
        classes: classes that the network tells apart.
        first_steps: number of each epoch's first step, and of the step after the last; by default all epochs are over
            the whole training set.
    """

    settings: RunSettings
    densities: Mapping[str, float]
    steps_per_epoch: int = 1
    shapes: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    steps: int = 1
    classes: int = 1
    first_steps: Sequence[int] = ()

    @property
    def epochs(self) -> int:
        return self.settings.training.epochs

    def steps_of(self, epoch: int) -> range:
        """The steps of an epoch, counted from the first one of training."""
        first = self.first_steps or range(0, self.whole_steps + 1, self.steps_per_epoch)
        return range(first[epoch], first[epoch + 1])

    def step_interval(self, steps: int, of: int = PAPER_STEPS, scaled: bool = True) -> int:
        """An interval in optimizer steps.

        Args:
            steps: the interval in a training of `of` steps.
            of: total steps of the training for which the method's authors state the interval.
            scaled: if true, the interval is the same share of all steps here, but at least 10 steps; if false, it is
                the same number of steps in a training of any length.

        All steps are counted over the whole training set, so sieving does not change intervals.
        """
        return max(10, half_up(steps * self.whole_steps / of)) if scaled else steps

    @property
    def whole_steps(self) -> int:
        """Steps that the whole training would have without sieving."""
        return self.epochs * self.steps_per_epoch

    def epoch_at(self, share: float) -> int:
        """The epoch at a share of training, rounded down to the grid of the update interval."""
        interval = self.settings.sparsity.interval
        return int(share * self.epochs + 1e-9) // interval * interval


class Options(Section):
    """Options of a method; each has a default and a description, which its card and `spfde methods` show."""


AROUND_STEPS = {"before_step", "after_step", "needs_dense_gradient_at", "attach"}  # what a recording may not know of


class Method:
    """Base of all methods: a fixed mask, random unless `initial_mask` says otherwise."""

    name: ClassVar[str]
    title: ClassVar[str]
    paper: ClassVar[str]
    year: ClassVar[int | None] = None
    kind: ClassVar[Literal["dense", "static", "before training", "dynamic", "iterative", "sparse and dense"]]
    scope: ClassVar[Literal["none", "layer", "global"]] = "layer"
    needs_dense_gradient: ClassVar[bool] = False
    dense_kernels: ClassVar[str] = ""  # the reason, for a method that cannot train on kernels that skip the zeros
    dense_masters: ClassVar[bool] = False  # True: all weights train; masks say which of them the forward pass uses
    sparse: ClassVar[bool] = True  # False: no layer is masked
    uses_target: ClassVar[bool] = True  # False: the target has no meaning and is 0
    uses_interval: ClassVar[bool] = False  # True: masks change every `sparsity.interval` epochs
    decays: ClassVar[bool] = True  # False: sparse weights get no weight decay
    mask_of_weights: ClassVar[bool] = False  # True: the first mask is chosen by the weights that start to train
    unplannable: bool = False  # True: densities, and so costs, depend on weights and data; a record has them
    structured: ClassVar[bool] = False  # True: masks can have any scheme; False: only unstructured ones
    calls_layers: ClassVar[bool] = False  # True: acts in the calls of layers, so none may be used by its weight alone
    scores_classes: ClassVar[bool] = False  # True: takes the cross-entropy of samples that `fetch` gives
    Options: ClassVar[type[Options]] = Options
    defaults: ClassVar[dict[str, Any]] = {}  # this method's own defaults, nested; what a user sets wins

    def __init__(self, plan: MethodPlan, options: Any) -> None:
        self.plan = plan
        self.options = options

    @classmethod
    def adjust(cls, settings: RunSettings) -> RunSettings:
        """The resolved settings, changed where the method sets one of them itself."""
        return settings

    @classmethod
    def warn(cls, settings: RunSettings) -> None:
        """Warns of resolved settings with which the method would not do what its name says."""

    @property
    def rounds(self) -> int:
        """How many times the whole training is run; all rounds but the last count as extra work."""
        return 1

    # planning: pure functions of epoch and step

    def densities(self, epoch: int) -> dict[str, float]:
        """Density of the forward weights that training is planned to see in an epoch, by sparse layer."""
        return dict(self.plan.densities)

    def weight_grad_density(self, density: np.ndarray, steps: range) -> np.ndarray:
        """Share of weight positions whose gradient these steps need, as a mean over them, shape (layers,)."""
        return density

    def activation_density(self, density: np.ndarray) -> np.ndarray:
        """Share of the saved activations that the weight gradient is planned to use, shape (layers,)."""
        return np.ones_like(density)

    def extra_macs(self, epoch: int, layers: Sequence[LayerProfile], samples: int) -> np.ndarray:
        """MACs outside ordinary steps (scoring, earlier rounds, extra batches) of an epoch, shape (layers,).

        Args:
            epoch: the epoch.
            layers: all layers of the model, dense ones too.
            samples: samples of the epoch's ordinary steps.
        """
        return np.zeros(len(layers))

    def executed_extra_macs(self, epoch: int, layers: Sequence[LayerProfile], samples: int) -> np.ndarray:
        """The MACs that masked dense kernels run for this work."""
        return self.extra_macs(epoch, layers, samples)

    def mask_updates(self, epoch: int, steps: range) -> int:
        """Mask updates per sparse layer that trains, in an epoch with these steps."""
        return int(self.uses_interval and epoch % self.plan.settings.sparsity.interval == 0)

    def scored_samples(self, epoch: int, layers: Sequence[LayerProfile], samples: int) -> int:
        """How many samples' activations are kept at once if the epoch begins with scoring the dense network."""
        return 0

    def peak_density(self, density: np.ndarray) -> np.ndarray:
        """Density of weights and gradients at their most, earlier rounds included, shape (layers,)."""
        return density

    def earlier_density(self, layers: Sequence[LayerProfile]) -> np.ndarray:
        """Each layer's density summed over the rounds before the last one, shape (layers,)."""
        return np.zeros(len(layers))

    def earlier_executed(self, layers: Sequence[LayerProfile]) -> np.ndarray:
        """Share of each dense pass that was run, summed over the rounds before the last one, shape (epochs, layers).

        A plan knows no hardware, so it assumes dense kernels.
        """
        return np.full((self.plan.epochs, len(layers)), self.rounds - 1.0)

    # acting: boundary events

    def attach(self, run: Run) -> None:
        """Called once when training is set up, resumed or not; for methods that change the forward pass of a layer."""

    def detach(self) -> None:
        """Called once when training ends, before `finish`, or is given up: undoes what `attach` did to the model."""

    def initial_mask(self, layer: SparseLayer, generator: torch.Generator) -> Tensor:
        shape = tuple(layer.weight.shape)
        return layer.scheme.random(shape, self.densities(0)[layer.name], generator)

    def start(self, run: Run) -> None:
        """Puts the first masks in place, before the first epoch."""
        for layer in run.masks:
            layer.start(self.initial_mask(layer, run.generator("masks", "start", layer.name)))

    def update(self, run: Run, epoch: int, layers: list[SparseLayer]) -> None:
        """Updates the masks of the layers that train, before an epoch on the grid of the interval."""

    def settle(self, run: Run, layer: SparseLayer) -> None:
        """A layer about to freeze is pruned to its final density and not grown."""
        kept = layer.scheme.keep(layer.active, self.drop_score(layer), layer.density)
        layer.set_mask(kept, kept, run.optimizer)

    def needs_dense_gradient_at(self, step: int) -> bool:
        """Whether `before_step` of this step looks at gradients outside the masks, in whatever batches it gathers."""
        return False

    def before_step(self, run: Run, step: int) -> bool:
        """Called when the dense gradients are there. If it returns False, the optimizer leaves out this step."""
        return True

    def after_step(self, run: Run, step: int) -> None:
        """Called after the optimizer's step, when the masks have been applied."""

    def take_activations(self) -> np.ndarray | None:
        """Activations that weight gradients used since the last call, and of how many, by sparse layer.

        Called once per step; must not wait for the device.

        Returns:
            (layers, 2) whole numbers, both 0 for a layer without a weight gradient; none where all are used.
        """
        return None

    def step_is_alike(self, step: int) -> bool:
        """Whether what this method does around a step is the same for all such steps of an epoch, on the device alone.

        A GPU replays such steps from a recording of one of them. It is asked only where it is known: a class that
        overrides one of `AROUND_STEPS` and not this has no such steps, also where it derives from one that has.
        """
        return True

    def replays(self, step: int) -> bool:
        """Whether a step can be replayed: `step_is_alike`, unless a hook is newer than what that says."""
        for each in type(self).__mro__:
            if "step_is_alike" in vars(each):
                return self.step_is_alike(step)
            if not AROUND_STEPS.isdisjoint(vars(each)):
                return False
        return False

    def next_round(self, run: Run) -> None:
        """Called between the rounds of a method that trains more than once."""

    def finish(self, run: Run) -> None:
        """Called after the last epoch: leaves plain weights with exact zeros behind."""

    def drop_score(self, layer: SparseLayer) -> Tensor:
        """Scores of the weights; those with the lowest are dropped first."""
        return layer.weight.detach().abs()

    # resuming

    def state_dict(self) -> dict[str, Tensor]:
        """What the method needs beside masks, weights and step number to go on as if nothing had happened."""
        return {}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Restores what `state_dict` returned."""


DROP_FRACTION = "share of the active weights that an update drops and grows"
INTERVAL = "steps between updates at the length of training of the method's authors"
SCALE_INTERVAL = (
    "the interval is the same share of all steps at any length of training, at least 10; false: as many steps at any "
    "length, for an interval that comes from the noise of optimisation"
)
Regrown = Literal["zero", "keep", "exclude"]
REGROWN = (
    "a weight dropped and regrown in one update: starts at 0, keeps its value, or is no candidate where others are left"
)


class DropAndGrowOptions(Options):
    regrown: Regrown = Field("zero", description=REGROWN)


class DropAndGrow(Method):
    """Dynamic sparse training: every update drops the weights with the lowest scores and grows others."""

    kind = "dynamic"
    structured = True
    Options: ClassVar[type[Options]] = DropAndGrowOptions

    def grow_score(self, layer: SparseLayer, generator: torch.Generator) -> Tensor:
        """Scores of the places to grow at, the highest first; random by default."""
        shape = layer.weight.shape
        return torch.rand(shape, generator=generator).to(layer.weight.device)

    def drop_and_grow(self, run: Run, layer: SparseLayer, lower: float, upper: float, *key: object) -> None:
        """One update of a layer: prune to density `lower`, then grow to density `upper`."""
        old = layer.active
        kept = layer.scheme.keep(old, self.drop_score(layer), lower)
        exclude = self.options.regrown == "exclude"
        score = self.grow_score(layer, run.generator("method", *key, layer.name))
        new = layer.scheme.grow(kept, score, upper, ~old if exclude else ~kept)
        if exclude:  # where nothing else is left to grow, counts stay exact by what was dropped
            new = layer.scheme.grow(new, score, upper, ~new)
        layer.set_mask(new, new & old if self.options.regrown == "keep" else kept, run.optimizer)


METHODS: dict[str, type[Method]] = {}
M = TypeVar("M", bound=type[Method])


def scoring_macs(layers: Sequence[LayerProfile], samples: float) -> np.ndarray:
    """MACs of a forward and a backward pass of so many samples through the dense network, shape (layers,)."""
    return np.array([samples * layer.macs * (1 + (layer.input_block >= 0) + (layer.block >= 0)) for layer in layers])


def register(method: M) -> M:
    """Class decorator: makes a method known by its name."""
    METHODS[method.name] = method
    return method


def make(plan: MethodPlan) -> Method:
    """The method that the settings name, with its options and its scheme checked."""
    check_scheme(plan.settings.sparsity)
    method = lookup("method", plan.settings.sparsity.method, METHODS)
    return method(plan, parse(method.Options, plan.settings.sparsity.options, "sparsity.options"))


def check_scheme(sparsity: SparsitySettings) -> None:
    """Refuses an unknown scheme, one that the method cannot have, and one that cannot have the target."""
    wanted = scheme(sparsity.scheme)
    method = lookup("method", sparsity.method, METHODS)
    if not method.sparse:
        return
    if sparsity.scheme != "unstructured" and not method.structured:
        able = ", ".join(name for name, other in METHODS.items() if other.structured)
        cause = f"method {sparsity.method} chooses single weights and cannot have the scheme {sparsity.scheme}"
        raise SpfdeError(cause, f"use a method that drops and grows by layer ({able}), or leave sparsity.scheme")
    wanted.check(sparsity)
