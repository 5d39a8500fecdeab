"""GSE: guided stochastic exploration, with three ways to draw the connections whose gradient is looked at."""

import copy
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, cast

import numpy as np
import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from spfde.cost.profile import LayerProfile
from spfde.errors import SpfdeError
from spfde.methods.base import DROP_FRACTION, INTERVAL, SCALE_INTERVAL, Method, MethodPlan, Options, Run, register
from spfde.rounding import up
from spfde.sparsity.layers import layers as find_layers
from spfde.sparsity.masks import SparseLayer
from spfde.sparsity.schemes import Layout, top

WHOLE = 0.5  # a layer at this density or a higher one offers all its positions
GSE_STEPS = 200 * 391  # steps of GSE's CIFAR runs (200 epochs, batch 128), where its interval is stated


class GseOptions(Options):
    renamed: ClassVar[dict[str, str]] = {"alpha": "drop_fraction", "interval": "interval_steps"}

    scope: Literal["global", "layer"] = Field(
        "global",
        description="grow and prune over all layers together (the authors' code), or layer by layer (their text)",
    )
    gamma: float = Field(1.0, gt=0, description="positions drawn of a layer, as a multiple of its active weights")
    drop_fraction: float = Field(
        0.2, gt=0, lt=1, description=f"{DROP_FRACTION}, were it at the start of training; alpha of the paper"
    )
    interval_steps: int = Field(1000, ge=1, description=f"{INTERVAL}; T of the paper")
    scale_interval: bool = Field(True, description=SCALE_INTERVAL)
    end: float = Field(0.6, gt=0, le=1, description="share of training after which masks stay")
    per_class: int = Field(
        10, ge=1, description="training samples a class that gradients are taken from, in whole ordinary batches"
    )


@dataclass
class Mass:
    """What the positions (output, unit) of a layer are drawn by: in proportion to outputs x units.

    A unit is an input of the layer's im2col view: (input channel, kernel position).

    Attributes:
        outputs: shape (out,).
        units: shape (groups, in / groups x kernel): each group of outputs reads units of its own.
    """

    outputs: Tensor
    units: Tensor

    @classmethod
    def even(cls, layer: SparseLayer, groups: int = 1, value: float = 1.0) -> "Mass":
        rows, columns = len(layer.weight), layer.weight[0].numel()
        device = layer.weight.device
        return cls(torch.full((rows,), value, device=device), torch.full((groups, columns), value, device=device))

    def draw(self, count: int, generator: torch.Generator) -> Tensor:
        """Flat positions in the weight, (count,) int64, drawn with replacement by inverting cumulative sums."""
        first, second = torch.rand(2, count, generator=generator).double().to(self.outputs.device)
        rows = torch.searchsorted(_cumulative(self.outputs[None])[0], first, right=True)
        groups, columns = self.units.shape
        group = rows // (len(self.outputs) // groups)
        every = (_cumulative(self.units) + torch.arange(groups, device=rows.device)[:, None]).flatten()
        place = torch.searchsorted(every, group + second, right=True)
        return rows * columns + (place - group * columns)


def _cumulative(mass: Tensor) -> Tensor:
    """Cumulative shares along the rows, ending at exactly 1; even ones for a row without any mass."""
    mass = mass.double().abs()
    sums = torch.where(mass.sum(1, keepdim=True) > 0, mass, torch.ones_like(mass)).cumsum(1)
    return sums / sums[:, -1:]


@register
class GseUniform(Method):
    """Grows where |gradient| is largest in a random sample of connections: Heddes et al. 2024, Algorithm 2.

    Of each layer ceil(gamma |A|) positions are drawn with replacement; those that are not active are the sample S. A
    layer of which half or more is active offers all its positions, as in the authors' code. The
    k = min(ceil(alpha_t |A|), |S|) of largest |gradient| grow and the k smallest |w| of those active before go, so what
    has just grown is safe. alpha_t falls by a cosine to 0 at the end of the updates.

    Gradients come from extra batches after an ordinary step, on a copy of the network that leaves BatchNorm statistics
    alone, and are looked at on S only. An update costs (2 + gamma) f_S on these samples, or a little less: |S| counts.
    The trace has the real |A| and |S|. An interval is the same share of all steps as in the authors' own runs.
    """

    name = "gse-uniform"
    title = "GSE (uniform)"
    paper = "Heddes et al."
    year = 2024
    kind = "dynamic"
    scope = "global"
    Options: ClassVar[type[Options]] = GseOptions
    defaults: ClassVar[dict[str, Any]] = {"sparsity": {"distribution": "er", "dense_layers": "none"}}

    def __init__(self, plan: MethodPlan, options: Any) -> None:
        super().__init__(plan, options)
        self.columns = {name: column for column, name in enumerate(plan.densities)}
        shape = (plan.epochs, len(self.columns))
        # What happened: sums over an epoch's updates of |A| and |S|, by layer; updates and frozen blocks by epoch.
        self.active, self.sampled = np.zeros(shape, np.int64), np.zeros(shape, np.int64)
        self.updates, self.frozen_blocks = np.zeros(plan.epochs, np.int64), np.zeros(plan.epochs, np.int64)

    def is_update(self, step: int) -> bool:
        """Whether masks change after a step."""
        interval = self.plan.step_interval(self.options.interval_steps, GSE_STEPS, self.options.scale_interval)
        return (step + 1) % interval == 0 and step + 1 < self.options.end * self.plan.steps

    def drop_fraction(self, step: int) -> float:
        """alpha_t: share of the active weights that the update after a step replaces."""
        done = (step + 1) / (self.options.end * self.plan.steps)
        return float(self.options.drop_fraction / 2 * (1 + math.cos(math.pi * done)))

    def after_step(self, run: Run, step: int) -> None:
        layers = run.masks.trained
        if not layers or not self.is_update(step):
            return
        gradients, masses = self.gradients(run, layers, step)
        samples = []
        for layer, mass in zip(layers, masses, strict=True):
            active = int(layer.count)
            if active >= WHOLE * layer.weight.numel():
                samples.append(~layer.active)
                continue
            positions = mass.draw(self.draws(active), run.generator("method", "sample", step, layer.name))
            chosen = torch.zeros_like(layer.active).flatten()
            chosen[positions] = True
            samples.append(chosen.view_as(layer.weight) & ~layer.active)
        self._record(run, layers, samples)
        triples = list(zip(layers, samples, gradients, strict=True))
        for part in [triples] if self.options.scope == "global" else [[triple] for triple in triples]:
            self._replace(run, part, self.drop_fraction(step))

    def draws(self, active: int) -> int:
        """Positions to draw of a layer with so many active weights."""
        return up(self.options.gamma * active)

    def _replace(self, run: Run, part: Sequence[tuple[SparseLayer, Tensor, Tensor]], share: float) -> None:
        """Grows the largest gradients of the samples, prunes the smallest weights, over these layers together."""
        sizes = [layer.weight.numel() for layer, _, _ in part]
        active = torch.cat([layer.active.flatten() for layer, _, _ in part])
        sample = torch.cat([sample.flatten() for _, sample, _ in part])
        gradient = torch.cat([gradient.abs().flatten() for _, _, gradient in part])
        magnitude = torch.cat([self.drop_score(layer).flatten() for layer, _, _ in part])
        total = int(active.sum())
        count = min(up(share * total), int(sample.sum()))
        kept = top(magnitude, active, total - count)
        new = kept | top(gradient, sample, count)
        for (layer, _, _), mask, stay in zip(part, new.split(sizes), kept.split(sizes), strict=True):
            layer.set_mask(mask.view_as(layer.weight), stay.view_as(layer.weight), run.optimizer)

    def gradients(self, run: Run, layers: Sequence[SparseLayer], step: int) -> tuple[list[Tensor], list[Mass]]:
        """Gradients of the extra batches by each layer's weight, and what its positions are to be drawn by."""
        network = copy.deepcopy(run.model)
        modules = [network.get_submodule(layer.name) for layer in layers]
        weights = [cast(Tensor, module.weight) for module in modules]
        draws = torch.Generator(weights[0].device)
        draws.manual_seed(run.generator("method", "signs", step).initial_seed())
        masses = [self.watch(layer, module, draws) for layer, module in zip(layers, modules, strict=True)]
        totals = [torch.zeros_like(weight) for weight in weights]

        training = self.plan.settings.training
        member = run.partial_set
        able = torch.arange(run.samples) if member is None else member.cpu().nonzero().flatten()
        order = able[torch.randperm(len(able), generator=run.generator("method", "batches", step))]
        outputs = len(list(find_layers(network).values())[-1].weight)
        chosen = order[: self.samples(outputs, len(able))]
        with torch.enable_grad(), torch.random.fork_rng([weights[0].device] if weights[0].is_cuda else []):
            for indices in chosen.split(training.batch_size):
                images, labels = run.fetch(indices)
                loss = F.cross_entropy(network(images), labels, label_smoothing=training.label_smoothing)
                part = torch.autograd.grad(loss * (len(indices) / len(chosen)), weights, materialize_grads=True)
                torch._foreach_add_(totals, list(part))
        return totals, masses

    def samples(self, classes: int, available: int) -> int:
        """Samples that gradients are taken from: whole batches, if the training set has as many."""
        batch = self.plan.settings.training.batch_size
        return min(available, math.ceil(self.options.per_class * classes / batch) * batch)

    def watch(self, layer: SparseLayer, module: nn.Module, draws: torch.Generator) -> Mass:
        """What the layer's positions are drawn by, complete once the extra batches have gone through."""
        return Mass.even(layer)

    def settle(self, run: Run, layer: SparseLayer) -> None:
        """A layer freezes with the weights it has: the total is at its target already."""

    # accounting

    def _record(self, run: Run, layers: Sequence[SparseLayer], samples: Sequence[Tensor]) -> None:
        self.updates[run.epoch] += 1
        self.frozen_blocks[run.epoch] = run.frozen_blocks
        self.active[run.epoch] += run.masks.counts.cpu().numpy()
        for layer, sample in zip(layers, samples, strict=True):
            self.sampled[run.epoch, self.columns[layer.name]] += int(sample.sum())

    def extra_macs(self, epoch: int, layers: Sequence[LayerProfile], samples: int) -> np.ndarray:
        """Forward and input gradient at the density, weight gradient on S, for the extra batches of an epoch's updates.

        Before they have happened, |S| is its expectation under even draws: (1 - d) (1 - exp(-gamma d)) of all positions
        at density d.
        """
        happened, updates = self.updates[epoch] > 0, self._updates(epoch, samples)
        macs = np.zeros(len(layers))
        for index, layer in enumerate(layers):
            density, sampled = 1.0, 0.0  # of a dense layer
            if updates and layer.name in self.columns:
                density = self.plan.densities[layer.name]
                drawn = 1.0 if density >= WHOLE else -math.expm1(-self.options.gamma * density)
                sampled = (1 - density) * drawn
                if happened:
                    column = self.columns[layer.name]
                    density = self.active[epoch, column] / layer.weights / updates
                    sampled = self.sampled[epoch, column] / layer.weights / updates
            propagates = layer.input_block >= self.frozen_blocks[epoch]
            sketching = self.sketching(layer) if self._trains(layer, epoch) else 0.0
            macs[index] = density * (1 + propagates) + sampled + sketching
        return macs * [layer.macs for layer in layers] * updates * self.samples(layers[-1].output_elements, samples)

    def executed_extra_macs(self, epoch: int, layers: Sequence[LayerProfile], samples: int) -> np.ndarray:
        """Dense forward and backward passes; the weight gradients of layers that train alone."""
        macs = np.zeros(len(layers))
        for index, layer in enumerate(layers):
            propagates, trains = layer.input_block >= self.frozen_blocks[epoch], self._trains(layer, epoch)
            macs[index] = layer.macs * (1 + propagates + (1 + self.sketching(layer) if trains else 0.0))
        return macs * self._updates(epoch, samples) * self.samples(layers[-1].output_elements, samples)

    def mask_updates(self, epoch: int, steps: range) -> int:
        return int(self.updates[epoch]) or sum(map(self.is_update, steps))

    def _updates(self, epoch: int, samples: int) -> int:
        steps = math.ceil(samples / self.plan.settings.training.batch_size)
        return self.mask_updates(epoch, range(epoch * steps, (epoch + 1) * steps))

    def _trains(self, layer: LayerProfile, epoch: int) -> bool:
        return layer.name in self.columns and layer.block >= self.frozen_blocks[epoch]

    def sketching(self, layer: LayerProfile) -> float:
        """Work of making the layer's mass, as a share of its forward MACs."""
        return 0.0

    def state_dict(self) -> dict[str, Tensor]:
        return {name: torch.from_numpy(getattr(self, name).copy()) for name in RECORDED}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        for name in RECORDED:
            setattr(self, name, state[name].cpu().numpy().copy())


RECORDED = ("active", "sampled", "updates", "frozen_blocks")


class Guided(GseUniform):
    """Draws by the extra batches' activations h and output gradients delta, each summed over samples and positions.

    Two sums a layer, of its units and of its outputs: linear in the width where all gradients would be quadratic.
    """

    def term(self, values: Tensor) -> Tensor:
        """What of h and delta is summed up."""
        return values

    def signs(self, like: Tensor, draws: torch.Generator) -> Tensor:
        """Factor of every sample and position, of the shape of one output channel."""
        return torch.ones_like(like)

    def attach(self, run: Run) -> None:
        for layer in run.masks:
            if Layout.of(run.model.get_submodule(layer.name)).transposed:
                cause = f"method {self.name} sums up what a weight reads, and {layer.name} is a transposed convolution"
                raise SpfdeError(cause, "use gse-uniform")

    def watch(self, layer: SparseLayer, module: nn.Module, draws: torch.Generator) -> Mass:
        mass = Mass.even(layer, int(getattr(module, "groups", 1)), 0.0)
        channel = channel_axis(module)

        def forward(_: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
            signs = self.signs(output.detach().narrow(channel, 0, 1), draws)
            mass.units += unit_sums(module, self.term(inputs[0].detach()), signs)

            def backward(delta: Tensor) -> None:
                mass.outputs += (self.term(delta) * signs).movedim(channel, 0).flatten(1).sum(1)

            output.register_hook(backward)

        module.register_forward_hook(forward)
        return mass

    def sketching(self, layer: LayerProfile) -> float:
        shape = self.plan.shapes[layer.name]
        return 1 / shape[0] + 1 / math.prod(shape[1:])


@register
class GseGraBo(Guided):
    """GSE with draws by |h|_1 of the units and |delta|_1 of the outputs, whose product bounds every |gradient|."""

    name = "gse-grabo"
    title = "GSE (GraBo)"

    def term(self, values: Tensor) -> Tensor:
        return values.abs()


@register
class GseGraEst(Guided):
    """GSE with draws by random-sign sketches of h and delta, whose product is the gradient in expectation.

    Sample and position carry one random sign in both sums (AMS sketch, Alon et al. 1996).
    """

    name = "gse-graest"
    title = "GSE (GraEst)"

    def signs(self, like: Tensor, draws: torch.Generator) -> Tensor:
        return torch.randint(2, like.shape, generator=draws, device=like.device).to(like.dtype) * 2 - 1


def unit_sums(module: nn.Module, inputs: Tensor, factors: Tensor) -> Tensor:
    """Sum over samples and positions of factors x each unit of the im2col view, shape (groups, units).

    It is the weight gradient of a layer with one output a group, so no im2col view is ever made.

    Args:
        module: a convolution or linear layer.
        inputs: its input.
        factors: of the shape of one output channel.
    """
    with torch.enable_grad():
        groups = int(getattr(module, "groups", 1))
        weight = cast(Tensor, module.weight)
        probe = torch.zeros(groups, *weight.shape[1:], dtype=inputs.dtype, device=inputs.device, requires_grad=True)
        apply = F.linear if isinstance(module, nn.Linear) else cast(Callable[..., Tensor], module._conv_forward)
        spread = factors.repeat_interleave(groups, channel_axis(module))
        (sums,) = torch.autograd.grad(apply(inputs, probe, None), probe, spread)
    return sums.flatten(1)


def channel_axis(module: nn.Module) -> int:
    """Where the outputs are in a layer's output."""
    return -1 if isinstance(module, nn.Linear) else 1
