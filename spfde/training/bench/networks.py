"""Networks with an optimizer and random images, ready to step: the dense ones as a researcher writes them."""

import contextlib
import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from spfde.api import SparseTraining
from spfde.cost.profile import Profile, profile
from spfde.execution import Wanted
from spfde.experiments.resolve import nested
from spfde.freezing import FrozenBlock, freezing_together
from spfde.models import blocks, build
from spfde.settings import RunSettings, parse

BATCH, CLASSES, SAMPLES = 64, 100, 50_000  # for CIFAR-100, as the paper trains it
LAST = torch.channels_last
DENSE_LAYERS = "first+shortcut+classifier"


@dataclass(frozen=True)
class Network:
    """A network by name, and the size of its images."""

    name: str
    size: int = 32

    def build(self) -> nn.Module:
        """The network with new weights."""
        torch.manual_seed(0)
        if self.name == "torchvision resnet18":
            from torchvision.models import resnet18

            return resnet18(num_classes=CLASSES)
        return build(self.name, CLASSES, 3, self.size, 1.0)

    def images(self, batch: int = BATCH) -> Tensor:
        return torch.randn(batch, 3, self.size, self.size, generator=torch.Generator().manual_seed(1))


def stepper(
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    images: Tensor,
    bf16: bool = False,
    classes: int = CLASSES,
    training: SparseTraining | None = None,
) -> Callable[[], Any]:
    """One whole training step: forward, backward, optimizer. It keeps the training whose masks are on the model."""
    wanted = torch.arange(len(images)) % classes

    def step() -> SparseTraining | None:
        with torch.autocast("cpu", torch.bfloat16) if bf16 else contextlib.nullcontext():
            loss = F.cross_entropy(model(images), wanted)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        return training

    return step


def masked_stepper(sparse: SparseTraining, images: Tensor, classes: int = CLASSES) -> Callable[[], Any]:
    """A step of a training: without it, masks, kernels and freezing would be gone from its model."""
    return stepper(sparse.model, sparse.optimizer, images, classes=classes, training=sparse)


def sgd(model: nn.Module) -> torch.optim.SGD:
    return torch.optim.SGD(model.parameters(), 0.01, 0.9, weight_decay=1e-4)


def dense_step(network: Network, frozen: int = 0, layout: torch.memory_format = LAST, bf16: bool = False) -> Any:
    """A step of dense training with torch alone; its first blocks may be frozen."""
    model = network.build().to(memory_format=layout)
    for together in freezing_together(model, blocks(model))[:frozen]:
        FrozenBlock(*together)
    return stepper(model.train(), sgd(model), network.images().to(memory_format=layout), bf16)


def begun(network: Network, settings: RunSettings, wanted: Wanted = "sparse") -> SparseTraining:
    """A training through the public API whose first epoch has begun."""
    model, shape = network.build().train(), (3, network.size, network.size)
    told: dict[str, Any] = {"input_shape": shape, "samples": SAMPLES, "costs": known_profile(network)}
    sparse = SparseTraining(model, sgd(model), settings, **told, kernels=wanted)
    sparse.begin_epoch(0)
    return sparse


def fixed_masks(network: Network, sparsity: float, wanted: Wanted = "sparse", **more: Any) -> SparseTraining:
    """Settings with random masks that do not change, unless `more` settings (`__` for a dot) say otherwise."""
    told = {"sparsity__method": "static", "sparsity__dense_layers": DENSE_LAYERS, "training__batch_size": BATCH}
    told |= {"sparsity__target": sparsity, **more}
    settings = parse(RunSettings, nested({name.replace("__", "."): value for name, value in told.items()}))
    return begun(network, settings, wanted)


@functools.cache
def known_profile(network: Network) -> Profile:
    """A network's profile, made once, since it takes seconds."""
    return profile(network.build(), (3, network.size, network.size))


def sparse_step(network: Network, sparsity: float, frozen: int = 0, wanted: Wanted = "sparse") -> Any:
    """A step of such a training; its first blocks may be frozen."""
    sparse = fixed_masks(network, sparsity, wanted)
    sparse.freeze(frozen)
    return masked_stepper(sparse, network.images())


def evaluation(model: nn.Module, images: Tensor) -> Callable[[], Any]:
    """Forward passes as in evaluation; of a training's model, whoever wants its kernels keeps the training."""

    @torch.no_grad()
    def run() -> None:
        model.eval()
        model(images)
        model.train()

    return run
