"""DSR: one magnitude threshold for all layers; weights move to the layers in which more weights survive it."""

from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from pydantic import Field
from torch import Tensor

from spfde.methods.base import DROP_FRACTION, REGROWN, Method, MethodPlan, Options, Regrown, register
from spfde.methods.run import Run
from spfde.sparsity.masks import SparseLayer
from spfde.sparsity.schemes import top


class DsrOptions(Options):
    renamed: ClassVar[dict[str, str]] = {"share": "drop_fraction"}

    threshold: float = Field(1e-3, gt=0, description="H of the first reallocation: smaller weights are pruned")
    drop_fraction: float = Field(0.1, gt=0, lt=1, description=f"{DROP_FRACTION}, as wanted; N_p of the paper")
    tolerance: float = Field(
        0.1, gt=0, lt=1, description="how far the pruned may be from N_p before H is halved or doubled"
    )
    regrown: Regrown = Field("exclude", description=REGROWN)


@register
class Dsr(Method):
    """Dynamic sparse reparameterization: Mostafa and Wang 2019, Algorithm 1.

    Prunes every weight below H, then grows as many at random, layer by layer in proportion to the survivors. H is
    halved when more than (1 + tolerance) N_p weights were pruned and doubled when fewer than (1 - tolerance) N_p were.
    Each layer keeps at least one weight; what a full layer cannot take goes to the others. The paper gives N_p as a
    number of weights for each network; here it is a share, which fits any network.

    The first reallocation comes before training and goes by initial weights: 1 to 3 % of the active ones, those below
    the first H, are replaced by others that start at 0, and H is doubled (measured on the networks of the scales).
    """

    name = "dsr"
    title = "DSR"
    paper = "Mostafa and Wang, ICML"
    year = 2019
    kind = "dynamic"
    scope = "global"
    unplannable = True
    uses_interval = True
    Options: ClassVar[type[Options]] = DsrOptions

    def __init__(self, plan: MethodPlan, options: Any) -> None:
        super().__init__(plan, options)
        self.threshold = options.threshold

    def update(self, run: Run, epoch: int, layers: list[SparseLayer]) -> None:
        old = [layer.active for layer in layers]
        kept = [self._survivors(layer) for layer in layers]
        survivors = [int(mask.sum()) for mask in kept]
        active = sum(int(mask.sum()) for mask in old)
        pruned = active - sum(survivors)

        outside = [mask.numel() - int(mask.sum()) for mask in old]
        exclude = self.options.regrown == "exclude" and pruned <= sum(outside)  # otherwise no layer could take the rest
        room = outside if exclude else [mask.numel() - count for mask, count in zip(kept, survivors, strict=True)]
        growth = share_out(pruned, survivors, room, run.generator("method", epoch, "remainder"))
        for layer, was, stay, count in zip(layers, old, kept, growth, strict=True):
            score = torch.rand(stay.shape, generator=run.generator("method", epoch, layer.name)).to(stay.device)
            new = stay | top(score, ~(was if exclude else stay), count)
            layer.set_mask(new, new & was if self.options.regrown == "keep" else stay, run.optimizer)

        wanted = self.options.drop_fraction * active
        if pruned > (1 + self.options.tolerance) * wanted:
            self.threshold /= 2
        elif pruned < (1 - self.options.tolerance) * wanted:
            self.threshold *= 2

    def _survivors(self, layer: SparseLayer) -> Tensor:
        """The active weights of at least H, or the largest weight if there is none."""
        score = self.drop_score(layer)
        above = int((layer.active & (score >= self.threshold)).sum())
        return top(score, layer.active, max(1, above))

    def settle(self, run: Run, layer: SparseLayer) -> None:
        """A layer freezes with the weights that it has, since the total has its target already."""

    def state_dict(self) -> dict[str, Tensor]:
        return {"threshold": torch.tensor(self.threshold, dtype=torch.float64)}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        self.threshold = float(state["threshold"])


def share_out(total: int, survivors: Sequence[int], room: Sequence[int], draws: torch.Generator) -> list[int]:
    """How many weights each layer grows: survivors / all survivors x total, rounded down, the rest to a random layer.

    What does not fit into a full layer is shared out again among the layers with room.
    """
    growth = [0] * len(room)
    while total and (open_layers := [index for index, most in enumerate(room) if growth[index] < most]):
        mass = max(1, sum(survivors[index] for index in open_layers))
        shares = [total * survivors[index] // mass for index in open_layers]
        shares[int(torch.randint(len(shares), (1,), generator=draws))] += total - sum(shares)
        for index, share in zip(open_layers, shares, strict=True):
            placed = min(share, room[index] - growth[index])
            growth[index] += placed
            total -= placed
    return growth
