"""Timing kernels for a training: on copies that no hook, no random stream and no stored activation hears of."""

import random
import threading
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from spfde import execution, kernels
from spfde.api import SparseTraining
from spfde.execution import Execution
from spfde.experiments.resolve import settings_for
from spfde.kernels.table import Table, Times
from spfde.models import build


class Noted(nn.Module):
    """A network that keeps its last output, and draws from the global streams of Python and numpy."""

    def __init__(self) -> None:
        super().__init__()
        self.net = build("resnet8", 4, 3, 8, 0.5)
        self.last: list[Tensor] = []

    def forward(self, x: Tensor) -> Tensor:
        y = self.net(x)
        self.last = [y * (1 + 0 * random.random() * numpy.random.random())]  # noqa: NPY002
        return y


def timed(
    monkeypatch: pytest.MonkeyPatch,
    model: nn.Module,
    table: Path,
    before: Callable[[int, SparseTraining], object] = lambda *_: None,
) -> Execution:
    """The kernels of a training whose masks move every second epoch; timing runs everything and tells its own times."""
    if not kernels.available():
        pytest.skip("no sparse kernels")

    def compare(pair: Callable[[], tuple[float, float]]) -> Times:
        pair()
        return Times(1.0, 2.0)

    monkeypatch.setattr(execution, "compare", compare)
    monkeypatch.setattr(execution, "_said", set())
    monkeypatch.delenv("SPFDE_KERNELS", raising=False)
    settings = settings_for("set", sparsity=0.75, epochs=4, batch_size=8, interval=2)
    optimizer = torch.optim.SGD(model.parameters(), 0.1, 0.9)
    told: Any = {"input_shape": (3, 8, 8), "samples": 8, "kernels": "auto"}
    sparse = SparseTraining(model, optimizer, settings, **told)
    sparse.execution._table = Table({"machine": "fake"}, table)
    for epoch in range(4):
        before(epoch, sparse)
        sparse.begin_epoch(epoch)
        F.cross_entropy(model(torch.randn(8, 3, 8, 8)), torch.arange(8) % 4).backward()
        optimizer.step()
        optimizer.zero_grad()
        sparse.count(torch.arange(8))
    return sparse.execution


def test_lone_layers_are_timed_as_they_train(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def network() -> nn.Module:
        layers = [nn.Conv2d(3, 8, 3, padding=1), nn.GELU(), nn.Conv2d(8, 8, 3, padding=1), nn.GELU(), nn.Flatten()]
        return nn.Sequential(*layers, nn.Linear(512, 32), nn.GELU(), nn.Linear(32, 4))

    decided = timed(monkeypatch, network(), tmp_path / "one")._decided
    assert decided and not any(work.endswith(", frozen") for work in decided)
    later = network()
    found = timed(monkeypatch, later, tmp_path / "two")
    later.get_submodule("2").requires_grad_(False)
    found.begin(4)
    works = {
        unit.name: found._work(unit, still) for unit, still in zip(found._handle.units, found._frozen, strict=True)
    }
    assert [name for name, work in works.items() if work.endswith(", frozen")] == ["2"]
    assert set(works.values()) <= set(found._decided)


def again(tmp_path: Path) -> Callable[[int, SparseTraining], None]:
    """Makes the third epoch time everything once more."""

    def forget(epoch: int, sparse: SparseTraining) -> None:
        if epoch == 2:
            sparse.execution._decided.clear()
            sparse.execution._table = Table({"machine": "another"}, tmp_path)

    return forget


def test_a_model_that_keeps_an_activation_is_timed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    model = Noted()
    choices = timed(monkeypatch, model, tmp_path, again(tmp_path)).choices
    assert model.last[0].grad_fn is not None and "sparse" in choices.values()


def test_a_copy_for_which_there_are_more_kernels(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A weight that is a view of a larger tensor runs dense; its copy has memory of its own."""
    model = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.GELU(), nn.Conv2d(8, 8, 3, padding=1), nn.Flatten())
    model.append(nn.Linear(512, 4))
    model[2].weight = nn.Parameter(torch.randn(8, 16, 3, 3)[:, :8])
    with warnings.catch_warnings(action="error"):
        choices = timed(monkeypatch, model, tmp_path).choices
    assert choices == {"4": "sparse"}


@pytest.mark.parametrize("first", [0, 2])
def test_a_model_that_cannot_be_copied_is_not_timed_and_says_so(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, first: int
) -> None:
    def lock(epoch: int, sparse: SparseTraining) -> None:
        again(tmp_path)(epoch, sparse)
        if epoch == first:
            vars(sparse.model)["lock"] = threading.Lock()

    with pytest.warns(UserWarning, match=r"dense kernels: the model cannot be timed: cannot be copied \(TypeError"):
        found = timed(monkeypatch, Noted(), tmp_path, lock)
    assert set(found.choices.values()) <= {"dense"}


def test_timing_goes_unnoticed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No hook hears of it, and a cold table leaves all random streams where a warm one does."""
    drawn, heard = [], []
    for _ in ("cold", "warm"):
        torch.manual_seed(0)
        random.seed(0)
        numpy.random.seed(0)  # noqa: NPY002
        model, calls = Noted(), [0]

        def hook(*_: Any, calls: list[int] = calls) -> None:
            calls[0] += 1

        for name in ("", "net.layer1", "net.layer2.0.conv1", "net.classifier"):
            model.get_submodule(name).register_forward_hook(hook)
        with warnings.catch_warnings(action="ignore"):
            timed(monkeypatch, model, tmp_path)
        drawn.append((random.random(), numpy.random.random(), float(torch.rand(()))))  # noqa: NPY002
        heard.append(calls[0])
    assert drawn[0] == drawn[1]
    assert heard[0] == heard[1]
