"""GSE: guided stochastic exploration, with three ways to draw the connections whose gradients are evaluated."""

import copy
import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, ClassVar, Literal

import numpy as np
import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from spfde.cost.profile import LayerProfile
from spfde.errors import SpfdeError
from spfde.methods.base import DROP_FRACTION, INTERVAL, SCALE_INTERVAL, Method, MethodPlan, Options, register
from spfde.methods.gse_mass import LayerWatcher, Mass
from spfde.methods.run import Run
from spfde.rounding import up
from spfde.sparsity.masks import SparseLayer
from spfde.sparsity.schemes import Layout, top

WHOLE = 0.5  # in a layer of this density or more, all positions are candidates
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
        10, ge=1, description="training samples per class that gradients are taken from, in whole ordinary batches"
    )


@contextmanager
def statistics_kept(network: nn.Module) -> Iterator[None]:
    """A context after which the buffers of a network (BatchNorm's statistics) are what they were before it."""
    buffers = list(network.buffers())
    before = [buffer.clone() for buffer in buffers]
    try:
        yield
    finally:
        with torch.no_grad():
            for buffer, value in zip(buffers, before, strict=True):
                buffer.copy_(value)


@contextmanager
def weights_fixed(network: nn.Module) -> Iterator[None]:
    """A context in which no gradient of a parameter is computed."""
    trained = [parameter for parameter in network.parameters() if parameter.requires_grad]
    for parameter in trained:
        parameter.requires_grad_(False)
    try:
        yield
    finally:
        for parameter in trained:
            parameter.requires_grad_(True)


@register
class GseUniform(Method):
    """Grows where |gradient| is largest in a random sample of connections: Heddes et al. 2024, Algorithm 2.

    In each layer ceil(gamma |A|) positions are drawn with replacement; those that are not active are the sample S. In a
    layer of which at least half is active all positions are candidates, as in the authors' code. The
    k = min(ceil(alpha_t |A|), |S|) positions with the largest |gradient| grow, and of the weights that were active
    before, the k smallest go; what has just grown stays. alpha_t falls by a cosine to 0 at the end of the updates.

    Gradients come from extra batches after an ordinary step, on a copy of the network that leaves BatchNorm statistics
    alone, and are looked at on S only. An update costs (2 + gamma) f_S on these samples, or a little less: |S| counts.
    The trace has the real |A| and |S|. An interval is the same share of all steps as in the authors' own runs.
    """

    name = "gse-uniform"
    title = "GSE (uniform)"
    paper = "Heddes et al."
    year = 2024
    kind = "dynamic"
    scores_classes = True
    scope = "global"
    unplannable = True  # with the scope `layer` too: an update looks at a sample whose size is drawn
    Options: ClassVar[type[Options]] = GseOptions
    defaults: ClassVar[dict[str, Any]] = {"sparsity": {"distribution": "er", "dense_layers": "none"}}
    sums_first: ClassVar[bool] = False  # draws take a pass of their own where kernels skip the zeros

    def __init__(self, plan: MethodPlan, options: Any) -> None:
        super().__init__(plan, options)
        self.columns = {name: column for column, name in enumerate(plan.densities)}
        shape = (plan.epochs, len(self.columns))
        # What happened: sums over an epoch's updates of |A| and |S|, by layer; updates and frozen blocks by epoch.
        self.active, self.sampled = np.zeros(shape, np.int64), np.zeros(shape, np.int64)
        self.skipped = np.zeros(shape, np.int64)  # updates for which the layer's kernels skipped the zeros
        self.updates, self.frozen_blocks = np.zeros(plan.epochs, np.int64), np.zeros(plan.epochs, np.int64)
        self.stepped = np.zeros(plan.epochs, np.int64)  # by epoch, not counting steps that a GPU replayed

    def is_update(self, step: int) -> bool:
        """Whether masks change after a step."""
        interval = self.plan.step_interval(self.options.interval_steps, GSE_STEPS, self.options.scale_interval)
        return (step + 1) % interval == 0 and step + 1 < self.options.end * self.plan.steps

    def step_is_alike(self, step: int) -> bool:
        return not self.is_update(step)

    def drop_fraction(self, step: int) -> float:
        """alpha_t: the share of the active weights that the update after a step replaces."""
        done = (step + 1) / (self.options.end * self.plan.steps)
        return float(self.options.drop_fraction / 2 * (1 + math.cos(math.pi * done)))

    def after_step(self, run: Run, step: int) -> None:
        self.stepped[run.epoch] += 1
        layers = run.masks.trained
        if not layers or not self.is_update(step):
            return
        if run.execution.skips_zeros:  # no gradient is computed that is not looked at
            samples = self.sample(run, layers, self.masses(run, layers, step), step)
            gradients = self.sampled_gradients(run, layers, samples, step)
        else:
            gradients, masses = self.gradients(run, layers, step)
            samples = self.sample(run, layers, masses, step)
        self._record(run, layers, samples)
        triples = list(zip(layers, samples, gradients, strict=True))
        for part in [triples] if self.options.scope == "global" else [[triple] for triple in triples]:
            self._replace(run, part, self.drop_fraction(step))

    def sample(self, run: Run, layers: Sequence[SparseLayer], masses: Sequence[Mass], step: int) -> list[Tensor]:
        """S of each layer, as booleans of the weight's shape."""
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
        return samples

    def draws(self, active: int) -> int:
        """How many positions to draw in a layer with so many active weights."""
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
        masses = self.masses_of(run, network, layers, step)
        weights = [network.get_parameter(f"{layer.name}.weight") for layer in layers]
        return self._over_batches(run, network, weights, step), masses

    def masses_of(self, run: Run, network: nn.Module, layers: Sequence[SparseLayer], step: int) -> list[Mass]:
        """What positions are to be drawn by, complete once the extra batches have gone through this copy."""
        return [Mass.even(layer) for layer in layers]

    def masses(self, run: Run, layers: Sequence[SparseLayer], step: int) -> list[Mass]:
        """What positions are to be drawn by, without any gradient of a weight."""
        return [Mass.even(layer) for layer in layers]

    def sampled_gradients(
        self, run: Run, layers: Sequence[SparseLayer], samples: Sequence[Tensor], step: int
    ) -> list[Tensor]:
        """Gradients of the extra batches inside the masks and at the samples alone, 0 elsewhere."""
        extra = {layer.name: sample for layer, sample in zip(layers, samples, strict=True)}
        with run.execution.sample(extra), statistics_kept(run.model):
            found = self._over_batches(run, run.model, [layer.weight for layer in layers], step)
        for layer in layers:
            self.skipped[run.epoch, self.columns[layer.name]] += layer.name in run.execution.executed_layers
        return found

    def _over_batches(self, run: Run, network: nn.Module, by: Sequence[Tensor], step: int) -> list[Tensor]:
        """Mean gradient of the extra batches by each of these tensors; by the images themselves, unsummed, if none."""
        training, member = self.plan.settings.training, run.partial_set
        able = torch.arange(run.samples) if member is None else member.cpu().nonzero().flatten()
        order = able[torch.randperm(len(able), generator=run.generator("method", "batches", step))]
        chosen = order[: self.samples(len(able))]
        totals = [torch.zeros_like(tensor) for tensor in by]
        device = next(network.parameters()).device
        with torch.enable_grad(), torch.random.fork_rng([device] if device.type == "cuda" else []):
            for indices in chosen.split(training.batch_size):
                images, labels = run.fetch(indices)
                inputs = list(by) or [images.requires_grad_()]
                loss = F.cross_entropy(network(images), labels, label_smoothing=training.label_smoothing)
                part = torch.autograd.grad(loss * (len(indices) / len(chosen)), inputs, materialize_grads=True)
                if by:
                    torch._foreach_add_(totals, list(part))
        return totals

    def samples(self, available: int) -> int:
        """Samples that gradients are taken from: whole batches, if the training set has as many."""
        batch = self.plan.settings.training.batch_size
        return min(available, math.ceil(self.options.per_class * self.plan.classes / batch) * batch)

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
        happened, updates = self.updates[epoch] > 0, self._updates(epoch)
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
        return macs * [layer.macs for layer in layers] * updates * self.samples(samples)

    def executed_extra_macs(self, epoch: int, layers: Sequence[LayerProfile], samples: int) -> np.ndarray:
        """Dense forward and backward passes, with the weight gradients of layers that train alone.

        Where kernels skipped the zeros, forward and input gradient at the density, the weight gradient also on S.
        """
        macs, updates = np.zeros(len(layers)), self._updates(epoch)
        for index, layer in enumerate(layers):
            propagates, trains = layer.input_block >= self.frozen_blocks[epoch], self._trains(layer, epoch)
            dense, skipped, ran = 1.0 + propagates + trains, 0, 0.0
            if trains and self.updates[epoch]:
                column = self.columns[layer.name]
                density, sampled = (
                    counts[epoch, column] / layer.weights / updates for counts in (self.active, self.sampled)
                )
                skipped, ran = self.skipped[epoch, column], density * (2 + propagates) + sampled
                ran += density * (1 + propagates) * self.sums_first
            sketches = self.sketching(layer) * updates if trains else 0.0
            macs[index] = layer.macs * ((updates - skipped) * dense + skipped * ran + sketches)
        return macs * self.samples(samples)

    def mask_updates(self, epoch: int, steps: range) -> int:
        """Those that happened; where an epoch has had no step yet, those that its steps will make."""
        happened = int(self.updates[epoch])
        return happened if happened or self.stepped[epoch] else sum(map(self.is_update, steps))

    def _updates(self, epoch: int) -> int:
        return self.mask_updates(epoch, self.plan.steps_of(epoch))

    def _trains(self, layer: LayerProfile, epoch: int) -> bool:
        return layer.name in self.columns and layer.block >= self.frozen_blocks[epoch]

    def sketching(self, layer: LayerProfile) -> float:
        """Work of making the layer's mass, as a share of its forward MACs."""
        return 0.0

    def state_dict(self) -> dict[str, Tensor]:
        return {name: torch.from_numpy(getattr(self, name).copy()) for name in RECORDED}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        for name in RECORDED & state.keys():  # a checkpoint of an earlier version has no steps
            setattr(self, name, state[name].cpu().numpy().copy())


RECORDED = {"active", "sampled", "skipped", "updates", "frozen_blocks", "stepped"}


class Guided(GseUniform):
    """Draws by the extra batches' activations h and output gradients delta, each summed over samples and positions.

    There are two sums per layer, one over its units and one over its outputs. Their cost is linear in the layer's
    width, where that of all gradients would be quadratic.
    """

    sums_first = True
    calls_layers = True

    def term(self, values: Tensor) -> Tensor:
        """The values of h and delta that are summed up."""
        return values

    def signs(self, shape: Sequence[int], like: Tensor, draws: torch.Generator) -> Tensor:
        """Factor of every sample and position; the shape is that of one output channel."""
        return like.new_ones(shape)

    def attach(self, run: Run) -> None:
        for layer in run.masks:
            if Layout.of(run.model.get_submodule(layer.name)).transposed:
                cause = f"method {self.name} sums up what a weight reads, and {layer.name} is a transposed convolution"
                raise SpfdeError(cause, "use gse-uniform")

    step_is_alike = GseUniform.step_is_alike  # said again, because `attach` is newer

    def masses_of(self, run: Run, network: nn.Module, layers: Sequence[SparseLayer], step: int) -> list[Mass]:
        watchers = self._watchers(run, network, layers, step)
        for name, watcher in watchers.items():
            network.get_submodule(name).register_forward_hook(watcher.hook)
        return [watcher.mass for watcher in watchers.values()]

    def masses(self, run: Run, layers: Sequence[SparseLayer], step: int) -> list[Mass]:
        """By a forward pass and the input gradients, on the network itself, whose kernels skip the zeros."""
        watchers = self._watchers(run, run.model, layers, step)
        with run.execution.watch(watchers), statistics_kept(run.model), weights_fixed(run.model):
            self._over_batches(run, run.model, (), step)
        return [watcher.mass for watcher in watchers.values()]

    def _watchers(
        self, run: Run, network: nn.Module, layers: Sequence[SparseLayer], step: int
    ) -> dict[str, LayerWatcher]:
        draws = {layer.name: torch.Generator(layer.weight.device) for layer in layers}
        for name, generator in draws.items():
            generator.manual_seed(run.generator("method", "signs", step, name).initial_seed())
        return {
            layer.name: LayerWatcher(self, layer, network.get_submodule(layer.name), draws[layer.name])
            for layer in layers
        }

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

    def signs(self, shape: Sequence[int], like: Tensor, draws: torch.Generator) -> Tensor:
        return torch.randint(2, tuple(shape), generator=draws, device=like.device).to(like.dtype) * 2 - 1
