"""A run without data: one or more weight tensors under a method's hands."""

import math
from collections.abc import Callable
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from spfde import rng
from spfde.experiments.resolve import nested
from spfde.methods import Method, MethodPlan, make
from spfde.settings import RunSettings, parse
from spfde.sparsity.masks import Masks, SparseLayer
from spfde.sparsity.schemes import scheme


class Parallel(nn.Module):
    """The layers `l0`, `l1`, ... side by side, each on its own view of the same values; their outputs add up."""

    def __init__(self, shapes: list[tuple[int, ...]]) -> None:
        super().__init__()
        for index, (out, units, *kernel) in enumerate(shapes):
            layer = nn.Conv2d(units, out, kernel, bias=False) if kernel else nn.Linear(units, out, bias=False)
            draws = torch.Generator().manual_seed(7)
            layer.weight = nn.Parameter(torch.randn((out, units, *kernel), generator=draws))
            self.add_module(f"l{index}", layer)

    def forward(self, values: torch.Tensor) -> torch.Tensor:
        total = values.new_zeros(len(values), 3)
        for layer in self.children():
            sides = [side + 1 for side in layer.weight.shape[2:]]  # two positions a side
            shape = [layer.weight.shape[1], *sides]
            output = layer(values[:, : math.prod(shape)].unflatten(1, shape)).flatten(2 if sides else 1)
            output = output.square().mean(-1) if sides else output
            mix = torch.randn(output.shape[1], 3, generator=torch.Generator().manual_seed(8))
            total = total + output @ mix
        return total


class FakeRun:
    """What a method sees of a training: layers of the given shapes, 64 samples of random values in three classes."""

    samples = 64
    partial_set = None
    epoch = 0
    frozen_blocks = 0
    execution = SimpleNamespace(skips_zeros=False)

    def __init__(self, method: Method, shapes: list[tuple[int, ...]]) -> None:
        self.model = Parallel(shapes)
        weights = list(self.model.parameters())
        widest = max(math.prod([shape[1], *(side + 1 for side in shape[2:])]) for shape in shapes)
        self.values = torch.randn(self.samples, widest, generator=torch.Generator().manual_seed(9))
        self.labels = torch.arange(self.samples) % 3
        self.optimizer = torch.optim.SGD(weights, lr=0.1, momentum=0.9, weight_decay=1e-4)
        densities = method.plan.densities
        shape = scheme(method.plan.settings.sparsity.scheme)
        self.masks = Masks(
            SparseLayer(name, weight, densities[name], index, shape, method.dense_masters)
            for index, (name, weight) in enumerate(zip(densities, weights, strict=True))
        )
        self.method = method

    def generator(self, *key: object) -> torch.Generator:
        return rng.generator(1, *key)

    def fetch(self, indices: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return self.values[indices], self.labels[indices]

    def step(self, number: int, seed: int = 0) -> None:
        """One training step with random gradients."""
        draws = torch.Generator().manual_seed(1000 * seed + number)
        for layer in self.masks:
            layer.weight.grad = torch.randn(layer.weight.shape, generator=draws)
        if not self.method.before_step(self, number):
            self.optimizer.zero_grad()
        self.masks.mask_gradients()
        self.optimizer.step()
        self.masks.mask_weights()
        self.method.after_step(self, number)


@pytest.fixture
def build() -> Callable[..., tuple[Method, FakeRun]]:
    """Builds (method, run): settings by dotted name, `shapes` of the layers, `steps` an epoch."""

    def build_run(
        name: str, shapes: list[tuple[int, ...]] | None = None, steps: int = 10, target: float = 0.9, **settings: object
    ) -> tuple[Method, FakeRun]:
        shapes = shapes or [(20, 10)]
        dotted = {key.replace("__", "."): value for key, value in settings.items()}
        values = nested({"sparsity.method": name, "sparsity.target": target, **dotted})
        densities = {f"l{index}": 1 - target for index in range(len(shapes))}
        sizes = {f"l{index}": shape for index, shape in enumerate(shapes)}
        run_settings = parse(RunSettings, values)
        method = make(MethodPlan(run_settings, densities, steps, sizes, steps * run_settings.training.epochs, 3))
        run = FakeRun(method, shapes)
        method.start(run)
        return method, run

    return build_run
