"""DeepR: active weights move under noise; one that would change its sign is dropped, and another is grown for it."""

import math
from collections.abc import Sequence
from typing import Any, ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor

from spfde.methods.base import Method, MethodPlan, Options, register
from spfde.methods.run import Run
from spfde.rounding import up
from spfde.sparsity.masks import SparseLayer

TEMPERATURES = (
    (0.0, 1e-5),
    (0.125, 1e-8),
    (0.4, 1e-12),
    (0.7, 1e-15),
)  # (from this share of training on, T)
START = 1e-12  # theta of a connection that wakes; above 0, otherwise it would be dormant again at once


class DeeprOptions(Options):
    scope: Literal["layer", "global"] = Field(
        "layer", description="the number of connections is constant in each layer, or over all layers together"
    )
    l1: float = Field(1e-5, ge=0, description="alpha, the pull of every connection towards 0")
    end: float = Field(0.95, gt=0, le=1, description="share of training after which masks stay")


@register
class Deepr(Method):
    """Deep rewiring: w = s theta with a sign s fixed for every connection (Bellec et al. 2018, Algorithm 1).

    After the optimizer's own step, each step adds -lr alpha + sqrt(2 lr T) noise to every active theta. A connection
    whose theta falls below 0 becomes dormant, and as many dormant ones, drawn evenly, become active; their total never
    changes. After the last rewiring the masks stay, and a weight that would change its sign is held at 0. Sparse
    weights have no weight decay.

    Rewiring happens in every step, so all of it stays on the device: counts are tensors, and the noise is drawn there.
    """

    name = "deepr"
    title = "DeepR"
    paper = "Bellec et al., ICLR"
    year = 2018
    kind = "dynamic"
    decays = False
    Options: ClassVar[type[Options]] = DeeprOptions

    def __init__(self, plan: MethodPlan, options: Any) -> None:
        super().__init__(plan, options)
        self.unplannable = options.scope == "global"
        self.signs: dict[str, Tensor] = {}  # of each connection, by layer, once training has begun

    def start(self, run: Run) -> None:
        self.signs = {layer.name: self._sign(run, layer) for layer in run.masks}
        super().start(run)

    def _sign(self, run: Run, layer: SparseLayer) -> Tensor:
        """The sign of each initial weight; a random one where training starts from an exact zero."""
        weight = layer.weight.detach()
        drawn = torch.randint(2, weight.shape, generator=run.generator("method", "signs", layer.name)).to(weight)
        return torch.where(weight == 0, 2 * drawn - 1, weight.sign())

    def temperature(self, step: int) -> float:
        return [heat for share, heat in TEMPERATURES if step >= share * self.plan.steps][-1]

    def mask_updates(self, epoch: int, steps: range) -> int:
        """Every step rewires, until the end of rewiring."""
        return max(0, min(steps.stop, up(self.options.end * self.plan.steps)) - steps.start)

    @torch.no_grad()
    def after_step(self, run: Run, step: int) -> None:
        layers = run.masks.trained
        if not layers:
            return
        rates = {id(p): float(group["lr"]) for group in run.optimizer.param_groups for p in group["params"]}
        draws = torch.Generator(layers[0].weight.device)
        draws.manual_seed(run.generator("method", "noise", step).initial_seed())
        for layer in layers:
            lr = rates[id(layer.weight)]
            noise = torch.randn(layer.weight.shape, generator=draws, device=layer.weight.device)
            move = math.sqrt(2 * lr * self.temperature(step)) * noise - lr * self.options.l1
            layer.weight.add_(layer.mask * self.signs[layer.name] * move)
        if step >= self.options.end * self.plan.steps:
            for layer in layers:
                layer.weight.masked_fill_(self._below(layer), 0.0)
            return
        for part in [layers] if self.options.scope == "global" else [[layer] for layer in layers]:
            self._rewire(run, part, draws)

    def _below(self, layer: SparseLayer) -> Tensor:
        """Where theta is below 0."""
        return self.signs[layer.name] * layer.weight < 0

    def _rewire(self, run: Run, layers: Sequence[SparseLayer], draws: torch.Generator) -> None:
        """Makes the connections below 0 dormant, and wakes as many of those that are dormant then."""
        kept = torch.cat([(layer.active & ~self._below(layer)).flatten() for layer in layers])
        before = torch.cat([layer.active.flatten() for layer in layers]).sum()
        woken = pick(~kept, before - kept.sum(), draws)
        sizes = [layer.weight.numel() for layer in layers]
        for layer, stay, wake in zip(layers, kept.split(sizes), woken.split(sizes), strict=True):
            stay, wake = stay.view_as(layer.weight), wake.view_as(layer.weight)
            layer.set_mask(stay | wake, stay, run.optimizer)
            layer.weight.add_(START * wake * self.signs[layer.name])

    def settle(self, run: Run, layer: SparseLayer) -> None:
        """A layer freezes with the connections that it has, since the total has its target already."""

    def state_dict(self) -> dict[str, Tensor]:
        return self.signs

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        self.signs = state


def pick(candidates: Tensor, count: Tensor, draws: torch.Generator) -> Tensor:
    """`count` of the candidates at random, as booleans of shape (n,); `count` may be a tensor on the device."""
    order = torch.rand(candidates.shape, generator=draws, device=candidates.device).masked_fill_(~candidates, 2.0)
    places = torch.arange(len(candidates), device=candidates.device)
    return torch.zeros_like(candidates).scatter_(0, order.argsort(), places < count)
