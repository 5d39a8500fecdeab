"""SWAT: sparse weights and activations in training, dense master weights (Raihan and Aamodt, NeurIPS 2020)."""

import dataclasses
import math
import warnings
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import numpy as np
import torch
from pydantic import Field
from torch import Tensor
from torch.optim import Optimizer

from spfde.errors import SpfdeError, SpfdeWarning
from spfde.methods.base import SCALE_INTERVAL, Method, MethodPlan, Options, register
from spfde.methods.run import Run
from spfde.rounding import up
from spfde.sparsity.masks import SparseLayer
from spfde.sparsity.topk import TopKForward, kth_largest

FULL = 0.99  # SWAT-M: a layer with a larger share of its weights becomes dense


class SwatOptions(Options):
    renamed: ClassVar[dict[str, str]] = {"period": "interval_steps"}

    interval_steps: int = Field(
        10,
        ge=1,
        description="steps between exact top-k thresholds at the paper's length of training, cached between; SWAT's "
        "top-k period",
    )
    scale_interval: bool = Field(True, description=SCALE_INTERVAL)


@register
class Swat(Method):
    """A layer computes with its k largest weights, and all of them learn; all layers but the first are equally sparse.

    Forward and input gradient use the weights at or above the magnitude of the k-th largest, k = ceil((1 - s) size);
    the weight gradient is dense and uses the activations at or above that of their own k-th largest, over the whole
    batch, with the layer's s. Both thresholds are exact every `period` steps and kept between, so the numbers in use
    move: little where steps are small, but a scaled period has at least 10 steps, and in a run of 120 steps (scale
    digits, 90 %) a layer had up to 5.2 times its planned weights, all layers together up to 1.4 times. The trace has
    what was used, activations too. A step is planned to cost (1 - s) + (1 - s) + (1 - s) thirds of a dense one; zeros
    behind a ReLU are never used, so the last third is less at low sparsity.
    The first convolution stays dense in weights and activations. At the end the weights outside an exact top-k are 0.
    """

    name = "swat-u"
    title = "SWAT-U"
    paper = "Raihan and Aamodt, NeurIPS"
    year = 2020
    kind = "sparse and dense"
    needs_dense_gradient = True
    dense_kernels = "the weights outside its masks are trained too"
    dense_masters = True
    mask_of_weights = True
    calls_layers = True
    Options: ClassVar[type[Options]] = SwatOptions

    def __init__(self, plan: MethodPlan, options: Any) -> None:
        sizes = {name: math.prod(shape) for name, shape in plan.shapes.items()}
        self.shares = dict(plan.densities)  # the share of each layer's activations that the weight gradient uses
        self.counts = {name: up(density * sizes[name]) for name, density in plan.densities.items()}
        exact = {name: count / sizes[name] for name, count in self.counts.items()}
        super().__init__(dataclasses.replace(plan, densities=exact), options)
        self.period = plan.step_interval(options.interval_steps, scaled=options.scale_interval)
        self.forwards: dict[str, TopKForward] = {}

    # planning

    def weight_grad_density(self, density: np.ndarray, steps: range) -> np.ndarray:
        return np.ones_like(density)

    def activation_density(self, density: np.ndarray) -> np.ndarray:
        return density

    def mask_updates(self, epoch: int, steps: range) -> int:
        """One per step, because every step chooses its weights anew."""
        return len(steps)

    # acting

    def attach(self, run: Run) -> None:
        self.forwards = {
            layer.name: TopKForward(
                run.model.get_submodule(layer.name), layer, self.counts[layer.name], self.shares[layer.name]
            )
            for layer in run.masks
        }

    def detach(self) -> None:
        for forward in self.forwards.values():
            forward.detach()

    def initial_mask(self, layer: SparseLayer, generator: torch.Generator) -> Tensor:
        return layer.weight.detach().abs() >= kth_largest(layer.weight, self.counts[layer.name])

    def take_activations(self) -> np.ndarray:
        return np.array([forward.take_counts() for forward in self.forwards.values()])

    def after_step(self, run: Run, step: int) -> None:
        """Selects the weights of the next step: by exact thresholds as it begins, or by those that are kept."""
        exact = (step + 1) % self.period == 0
        if exact:
            self.share_out(run)
        for layer in run.masks.trained:
            forward = self.forwards[layer.name]
            forward.exact, forward.wanted, forward.share = exact, self.counts[layer.name], self.shares[layer.name]
            if not exact:
                forward.select_weights()

    def share_out(self, run: Run) -> None:
        """Decides again how many weights each layer has; only SWAT-M does this."""

    def settle(self, run: Run, layer: SparseLayer) -> None:
        """Sets the weights outside the mask to 0 in a layer that is about to freeze."""
        forward = self.forwards[layer.name]
        self.counts[layer.name] = forward.wanted = forward.count
        self._fold(layer, run.optimizer)
        forward.find_weights()

    def finish(self, run: Run) -> None:
        for layer in run.masks:
            self._fold(layer, run.optimizer)

    def _fold(self, layer: SparseLayer, optimizer: Optimizer) -> None:
        density = self.forwards[layer.name].count / layer.weight.numel()
        mask = layer.scheme.keep(torch.ones_like(layer.active), layer.weight.detach().abs(), density)
        layer.set_mask(mask, None)
        layer.clear_outside(mask, optimizer)

    # resuming

    def state_dict(self) -> dict[str, Tensor]:
        state = {}
        for name, forward in self.forwards.items():
            state[f"counts.{name}"] = torch.tensor([forward.count, forward.wanted])
            state[f"used.{name}"] = torch.tensor([forward.kept, forward.seen])
            state[f"exact.{name}"] = torch.tensor(forward.exact)
            state[f"share.{name}"] = torch.tensor(forward.share, dtype=torch.float64)
            state[f"weights.{name}"], state[f"activations.{name}"] = forward.weight_threshold, forward.threshold
        return state

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Restores what `state_dict` returned.

        Warns of a state that an earlier version made: it did not count the activations that weight gradients used, so
        the trace has the planned shares in the epochs that were over by then.
        """
        if state.keys().isdisjoint(f"used.{name}" for name in self.forwards):
            told = (
                f"the checkpoint is of an earlier version, which did not count the activations that {self.name} used: "
                "until here the record has the planned shares; train the run anew for its real costs"
            )
            warnings.warn(told, SpfdeWarning, stacklevel=2)
        for name, forward in self.forwards.items():
            forward.count, forward.wanted = state[f"counts.{name}"].tolist()
            forward.kept, forward.seen = state[f"used.{name}"].tolist() if f"used.{name}" in state else (0, 0)
            self.counts[name] = forward.wanted
            self.shares[name] = forward.share = float(state[f"share.{name}"])
            forward.exact = bool(state[f"exact.{name}"])
            forward.weight_threshold = state[f"weights.{name}"]
            forward.threshold = state[f"activations.{name}"]


@register
class SwatErk(Swat):
    """SWAT with RigL's Erdos-Renyi-kernel densities; the first layer is sparse too."""

    name = "swat-erk"
    title = "SWAT-ERK"
    defaults: ClassVar[dict[str, Any]] = {"sparsity": {"distribution": "erk", "dense_layers": "none"}}


@register
class SwatM(Swat):
    """SWAT whose layers get weights in proportion to the mean |momentum| of their active weights.

    The weights are shared out again before every exact threshold, over the layers that still train. Training starts
    with uniform layers, the first one sparse too. Sharing out waits for the device, because the counts depend on it.
    """

    name = "swat-m"
    title = "SWAT-M"
    scope = "global"
    unplannable = True
    defaults: ClassVar[dict[str, Any]] = {"sparsity": {"dense_layers": "none"}}

    def __init__(self, plan: MethodPlan, options: Any) -> None:
        super().__init__(plan, options)
        self.budget = sum(self.counts.values())
        if not plan.settings.training.momentum:
            raise SpfdeError(
                "swat-m shares weights out by momentum, and training.momentum is 0", "raise it or use swat-u"
            )

    def attach(self, run: Run) -> None:
        """Refuses an optimizer whose momentum cannot be read: weights would never be shared out.

        Raises:
            SpfdeError: naming the optimizers that it knows.
        """
        shared = {layer.weight for layer in run.masks}
        for group in run.optimizer.param_groups:
            if not shared.isdisjoint(group["params"]) and not _has_momentum(run.optimizer, group):
                name = type(run.optimizer).__name__
                cause = f"swat-m shares weights out by momentum, and {name} keeps none that it knows"
                raise SpfdeError(cause, "use SGD with momentum, Adam or AdamW; or method swat-u")
        super().attach(run)

    def share_out(self, run: Run) -> None:
        layers = run.masks.trained
        means = [_mean_momentum(layer, run.optimizer) for layer in layers]
        if not layers or any(mean is None for mean in means):
            return
        momentum = torch.stack([mean for mean in means if mean is not None]).tolist()
        if sum(momentum) > 0:
            trained = {layer.name for layer in layers}
            budget = self.budget - sum(count for name, count in self.counts.items() if name not in trained)
            counts = shares(momentum, [layer.weight.numel() for layer in layers], budget)
            self.counts |= {layer.name: count for layer, count in zip(layers, counts, strict=True)}
            self.shares |= {layer.name: self.counts[layer.name] / layer.weight.numel() for layer in layers}


def _has_momentum(optimizer: Optimizer, group: Mapping[str, Any]) -> bool:
    """Whether the optimizer keeps, of these parameters, a momentum that `_mean_momentum` reads."""
    if isinstance(optimizer, torch.optim.SGD):
        return bool(group["momentum"])
    return isinstance(optimizer, torch.optim.Adam) and bool(group["betas"][0])  # AdamW is an Adam


def _mean_momentum(layer: SparseLayer, optimizer: Optimizer) -> Tensor | None:
    """Mean |momentum| of the active weights, on the device; none where the optimizer has no momentum of the layer."""
    state: Mapping[str, Any] = optimizer.state.get(layer.weight, {})
    if "exp_avg" in state:
        momentum = state["exp_avg"] / (state["exp_avg_sq"].sqrt() + 1e-8)
    else:
        momentum = state.get("momentum_buffer")
    return None if momentum is None else (momentum.abs() * layer.mask).sum() / layer.mask.sum()


def shares(momentum: Sequence[float], sizes: Sequence[int], budget: int) -> list[int]:
    """Active weights of each layer: in proportion to `momentum`, `budget` in all.

    A layer above 99 % of its size becomes dense, and what it has too many or too few is split equally among the
    others. Every layer has at least one weight. Whole numbers by the largest remainder.
    """
    size = np.array(sizes)
    wanted = budget * np.array(momentum) / sum(momentum)
    full = np.zeros(len(size), dtype=bool)
    while (over := ~full & (wanted > FULL * size)).any():
        excess = (wanted - size)[over].sum()
        wanted[over] = size[over]
        full |= over
        if not full.all():
            wanted[~full] += excess / (~full).sum()
    wanted = np.clip(wanted, 1, size)
    counts = np.floor(wanted).astype(int)
    counts[np.argsort(counts - wanted, kind="stable")[: max(0, budget - counts.sum())]] += 1
    while counts.sum() > budget:  # layers that got one weight though their share was less
        counts[counts.argmax()] -= 1
    return counts.tolist()
