"""A run without data: one or more weight tensors under a method's hands."""

from collections.abc import Callable

import pytest
import torch
from torch import nn

from spfde import rng
from spfde.experiments import nested
from spfde.methods import Method, Plan, make
from spfde.settings import RunSettings, parse
from spfde.sparsity.masks import Masks, SparseLayer
from spfde.sparsity.schemes import scheme


class FakeRun:
    """What a method sees of a training: the layers `l0`, `l1`, ... of the given shapes."""

    def __init__(self, method: Method, shapes: list[tuple[int, ...]]) -> None:
        weights = [nn.Parameter(torch.randn(shape, generator=torch.Generator().manual_seed(7))) for shape in shapes]
        self.model = nn.Module()
        self.model.weights = nn.ParameterList(weights)
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
        method = make(Plan(parse(RunSettings, values), densities, steps, sizes))
        run = FakeRun(method, shapes)
        method.start(run)
        return method, run

    return build_run
