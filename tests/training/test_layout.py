"""Channels last: which networks get it, that images arrive so, and that masks and momentum follow the weights."""

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from spfde.api import SparseTraining
from spfde.cost.profile import profile
from spfde.experiments.resolve import nested, resolve
from spfde.models import build
from spfde.settings import RunSettings, parse
from spfde.training import checkpoint
from spfde.training.bench.random_data import random_splits
from spfde.training.clock import Clock
from spfde.training.layout import memory_format
from spfde.training.loop import evaluate, step
from spfde.training.run import Training

COSTS = profile(build("resnet8", 4, 3, 8, 0.5), (3, 8, 8))


class Viewing(nn.Module):
    """Reshapes by `view`, which needs the layout that torch has by default."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3)
        self.classifier = nn.Linear(4 * 6 * 6, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv(x)
        return self.classifier(x.view(len(x), -1))


def test_networks_that_take_channels_last_get_it() -> None:
    assert memory_format(build("resnet8", 10, 3, 8, 1.0), (3, 8, 8)) == torch.channels_last
    assert memory_format(Viewing(), (3, 8, 8)) == torch.contiguous_format
    assert memory_format(nn.Sequential(nn.Flatten(), nn.Linear(192, 5)), (3, 8, 8)) == torch.contiguous_format


def test_in_fp32_a_gpu_keeps_the_default_layout() -> None:
    network = build("resnet8", 10, 3, 8, 1.0)
    layouts = {p: memory_format(network, (3, 8, 8), "cuda", p) for p in ("fp32", "tf32", "bf16")}
    assert layouts == {
        "fp32": torch.contiguous_format,
        "tf32": torch.channels_last,
        "bf16": torch.channels_last,
    }


def test_images_and_activations_are_laid_out_so_in_training_and_evaluation() -> None:
    settings = resolve("smoke", {"sparsity.method": "static", "training.batch_size": 8})
    run = Training(settings, random_splits("smoke", 16), torch.device("cpu"), Clock())
    strides: list[tuple[bool, int, int]] = []
    run.model.conv1.register_forward_hook(
        lambda module, images, out: strides.append((module.training, images[0].stride(1), out.stride(1)))
    )
    run.begin(0)
    step(run, *next(run.batches()))
    evaluate(run, run.test)
    assert {(True, 1, 1), (False, 1, 1)} == set(strides)


@pytest.mark.parametrize("method", ["spfde", "rigl", "gse-graest", "deepr", "swat-u"])
def test_training_a_model_in_channels_last_is_the_same_training(method: str) -> None:
    def trained(layout: torch.memory_format, interrupted: bool) -> tuple[nn.Module, SparseTraining]:
        def make() -> tuple[nn.Module, torch.optim.SGD, SparseTraining]:
            torch.manual_seed(0)
            model = build("resnet8", 4, 3, 8, 0.5).to(memory_format=layout)
            optimizer = torch.optim.SGD(model.parameters(), 0.1, 0.9)
            values = {"sparsity.method": method, "training.epochs": 4, "training.batch_size": 8, "sparsity.interval": 1}
            settings = parse(RunSettings, nested({**values, "sparsity.target": 0.8}))
            fetch = lambda indices: (images[indices], labels[indices])  # noqa: E731
            shape = {"input_shape": (3, 8, 8), "samples": len(images), "fetch": fetch, "costs": COSTS}
            return model, optimizer, SparseTraining(model, optimizer, settings, **shape)

        images = torch.randn(96, 3, 8, 8, generator=torch.Generator().manual_seed(1))
        labels = torch.arange(96) % 4
        model, optimizer, sparse = make()
        for epoch in range(2):
            if epoch == 1 and interrupted:
                saved = copy.deepcopy((model.state_dict(), sparse.state_dict()))
                momentum = checkpoint.optimizer_tensors(optimizer)
                momentum = {name: value.contiguous().clone() for name, value in momentum.items()}
                model, optimizer, sparse = make()
                model.load_state_dict(saved[0])
                checkpoint.load_optimizer(optimizer, momentum)
                sparse.load_state_dict(saved[1])
            sparse.begin_epoch(epoch)
            for batch in torch.arange(96).split(8):
                F.cross_entropy(model(images[batch]), labels[batch]).backward()
                optimizer.step()
                optimizer.zero_grad()
                sparse.count(batch)
        for layer in sparse.masks:
            buffer = optimizer.state[layer.weight]["momentum_buffer"]
            assert _order(layer.mask) == _order(layer.weight) == _order(buffer)
        return model, sparse

    plain, _ = trained(torch.contiguous_format, False)
    model, sparse = trained(torch.channels_last, False)
    assert model.layer1[0].conv1.weight.stride(1) == 1
    for (name, value), other in zip(plain.state_dict().items(), model.state_dict().values(), strict=True):
        assert torch.allclose(value, other, rtol=1e-2, atol=1e-3), name
    resumed, again = trained(torch.channels_last, True)
    for name, value in model.state_dict().items():
        assert torch.equal(value, resumed.state_dict()[name]), name
    assert all(torch.equal(layer.mask, other.mask) for layer, other in zip(sparse.masks, again.masks, strict=True))


def _order(values: Tensor) -> list[int]:
    """Strides of the dimensions that have more than one entry."""
    return [stride for stride, size in zip(values.stride(), values.shape, strict=True) if size > 1]
