"""The masks of a model's sparse layers, and what every change of a mask does to weights and momentum."""

from collections.abc import Callable, Iterable, Iterator

import numpy as np
import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.utils.hooks import RemovableHandle

from spfde.sparsity.schemes import Scheme

INTEGERS = {1: torch.int8, 2: torch.int16, 4: torch.int32, 8: torch.int64}  # by bytes of a number
NO_MOMENTUM = {"step_size"}  # Rprop's; whatever else an optimizer keeps for each weight gathers gradients or weights


class SparseLayer:
    """One sparse layer: its weight, its mask, and the union of all the masks it has had.

    `mask` is a tensor of the weight's shape and dtype that holds 0 and 1. `bits` is the same mask for the training
    step: an integer with all bits set where the mask is 1. A bitwise AND with it makes exact zeros of everything
    outside the mask, even of a gradient that overflowed, where a product would give NaN; and it takes no longer than a
    product. `density` is the layer's density at the end of training. With `dense_master` all weights are trained, and
    the mask only says which of them the forward pass uses; it sets no weight to 0. `changes` counts the masks that the
    layer has had; by it, kernels that skip the zeros notice a new mask.
    """

    def __init__(
        self,
        name: str,
        weight: nn.Parameter,
        density: float,
        block: int,
        scheme: Scheme,
        dense_master: bool = False,
    ) -> None:
        self.name = name
        self.weight = weight
        self.density = density
        self.block = block
        self.scheme = scheme
        self.dense_master = dense_master
        self.changes = 0
        self.mask = torch.ones_like(weight, requires_grad=False)
        self.bits = torch.full_like(weight, -1, dtype=INTEGERS[weight.element_size()], requires_grad=False)
        self.first, self.explored = self.active, self.active
        # The number of active weights; and, summed over mask changes, how many were active before and how many of those
        # stayed. Once the layer is one of `Masks`, both are views of the counts of all layers.
        self.count = torch.tensor(weight.numel(), device=weight.device)
        self.stayed = torch.zeros(2, dtype=torch.int64, device=weight.device)

    @property
    def active(self) -> Tensor:
        """The mask as booleans."""
        return self.mask.bool()

    def set_mask(self, mask: Tensor, survive: Tensor | None, optimizer: Optimizer | None = None) -> None:
        """Puts a new boolean mask in place.

        Weights and optimizer state outside `survive` (default: the mask) become exactly 0: dropped weights leave
        nothing behind, grown ones start at 0 with momentum 0.
        """
        mask = mask.to(self.mask.device)
        survive = mask if survive is None else survive.to(mask.device) & mask
        self.stayed += torch.stack([self.count, (self.active & mask).sum()])
        self._put(mask)
        self.explored = self.explored | mask
        self.count.copy_(mask.sum())
        if not self.dense_master:
            self.clear_outside(survive, optimizer)

    def _put(self, mask: Tensor) -> None:
        self.changes += 1
        self.mask.copy_(mask)
        self.bits.copy_(mask).neg_()  # 1 becomes -1, which has all bits set

    @torch.no_grad()
    def clear_outside(self, survive: Tensor, optimizer: Optimizer | None = None) -> None:
        """Weights, and what the optimizer keeps for each of them, become exactly 0 outside `survive`.

        Step sizes (Rprop) are left as they are: a step size of 0 would stop the weight for ever.
        """
        outside = ~survive
        self.weight.masked_fill_(outside, 0)
        for name, value in optimizer.state.get(self.weight, {}).items() if optimizer else ():
            if isinstance(value, Tensor) and value.shape == self.weight.shape and name not in NO_MOMENTUM:
                value.masked_fill_(outside, 0)

    def start(self, mask: Tensor) -> None:
        """Declares the present mask the first one: `explored` and the overlaps are counted from here on."""
        mask = mask.to(self.mask.device)
        self.set_mask(mask, None)
        self.first, self.explored = mask.clone(), mask.clone()
        self.stayed.zero_()


class Masks:
    """All sparse layers of a model, by name, in the order of the model.

    `counts` are the layers' active weights, int64, kept on the device so that changing a mask never waits for it;
    `sizes` are all their weights. `stayed`, shape (layers, 2), sums over mask changes the weights active before, and
    those of them active after.
    """

    def __init__(self, layers: Iterable[SparseLayer]) -> None:
        self.layers = {layer.name: layer for layer in layers}
        self.sizes = np.array([layer.weight.numel() for layer in self], dtype=np.int64)
        device = next((layer.weight.device for layer in self), None)
        self.counts = torch.from_numpy(self.sizes.copy()).to(device)
        self.stayed = torch.zeros(len(self), 2, dtype=torch.int64, device=device)
        for layer, count, stayed in zip(self, self.counts, self.stayed, strict=True):
            layer.count, layer.stayed = count, stayed
        self.select(0)

    def __iter__(self) -> Iterator[SparseLayer]:
        return iter(self.layers.values())

    def __len__(self) -> int:
        return len(self.layers)

    def __getitem__(self, name: str) -> SparseLayer:
        return self.layers[name]

    def select(self, frozen_blocks: int) -> None:
        """Selects the layers outside the frozen prefix; the step masks those of them without dense master weights."""
        self.trained = [layer for layer in self if layer.block >= frozen_blocks]
        masked = [layer for layer in self.trained if not layer.dense_master]
        self._masked: list[tuple[Tensor, Tensor]] = [(layer.weight, layer.bits) for layer in masked]

    def mask_on_arrival(self, wanted: Callable[[], bool]) -> list[RemovableHandle]:
        """Zeroes the gradients of masked weights as soon as they are there, so that whoever clips or unscales them
        before the optimizer's step sees what the step will use.

        Args:
            wanted: whether the gradients of the step in hand are to be masked.

        Returns:
            what to remove so that it ends.
        """

        def watch(layer: SparseLayer) -> RemovableHandle:
            def mask(weight: Tensor) -> None:
                if wanted() and weight.grad is not None:
                    weight.grad.view(layer.bits.dtype).bitwise_and_(layer.bits)

            return layer.weight.register_post_accumulate_grad_hook(mask)

        return [watch(layer) for layer in self if not layer.dense_master]

    @torch.no_grad()
    def mask_gradients(self) -> None:
        """Zeroes the gradients of masked weights, so that momentum never gathers there."""
        for weight, bits in self._masked:
            if weight.grad is not None:
                weight.grad.view(bits.dtype).bitwise_and_(bits)

    @torch.no_grad()
    def mask_weights(self) -> None:
        """Zeroes masked weights, whatever the optimizer did to them."""
        for weight, bits in self._masked:
            weight.view(bits.dtype).bitwise_and_(bits)

    def moved_outside(self) -> list[str]:
        """Names of the layers with weights outside their masks that are not 0; waits for the device."""
        layers = [layer for layer in self if not layer.dense_master]
        if not layers:
            return []
        moved = torch.stack([((layer.weight.detach() != 0) & ~layer.active).any() for layer in layers]).tolist()
        return [layer.name for layer, any_of_it in zip(layers, moved, strict=True) if any_of_it]

    @property
    def densities(self) -> np.ndarray:
        """Density of each layer, shape (layers,); waits for the device."""
        return self.counts.cpu().numpy() / self.sizes

    @property
    def sparsity(self) -> float:
        """Share of zeros over all sparse layers together; waits for the device."""
        return 1 - int(self.counts.sum()) / int(self.sizes.sum()) if len(self) else 0.0

    def explored(self) -> float:
        """Share of maskable weights that were active at any time, first mask included: R_s of ITOP, Liu et al. 2021."""
        return _share(sum(layer.explored.sum() for layer in self), sum(layer.weight.numel() for layer in self))

    def overlap_first(self) -> float:
        """Share of the first mask's weights that are active now; 1 for a fixed mask."""
        both = sum((layer.first & layer.active).sum() for layer in self)
        return _share(both, sum(layer.first.sum() for layer in self))

    def overlap_updates(self) -> float:
        """Share of the weights active before a mask change that stay, over all changes; 1 where there was none."""
        before, after = self.stayed.sum(dim=0)
        return _share(after, before)

    def moves(self) -> Tensor:
        """How far each mask has moved, int64 of shape (layers, 5), without waiting for the device.

        The columns count the weights that were active at any time, in the first mask, and in both the first and the
        present one; the last two are `stayed`.
        """
        if not len(self):
            return torch.zeros(0, 5, dtype=torch.int64)
        far = [(layer.explored.sum(), layer.first.sum(), (layer.first & layer.active).sum()) for layer in self]
        return torch.cat([torch.stack([torch.stack(counts) for counts in far]), self.stayed], dim=1)

    def state_dict(self) -> dict[str, Tensor]:
        state = {}
        for layer in self:
            state[f"{layer.name}.mask"] = layer.active
            state[f"{layer.name}.first"] = layer.first
            state[f"{layer.name}.explored"] = layer.explored
            state[f"{layer.name}.stayed"] = layer.stayed.clone()
        return state

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        for layer in self:
            device = layer.mask.device
            layer._put(state[f"{layer.name}.mask"])
            layer.first = state[f"{layer.name}.first"].to(device).clone()
            layer.explored = state[f"{layer.name}.explored"].to(device).clone()
            layer.count.copy_(layer.mask.count_nonzero())
            layer.stayed.copy_(state[f"{layer.name}.stayed"])


def _share(part: Tensor | int, whole: Tensor | int) -> float:
    return float(part) / float(whole) if float(whole) else 1.0
