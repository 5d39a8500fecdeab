"""Analyses of a run's snapshots: hand-made masks, gradients by hand, a whole run."""

import shutil
from pathlib import Path

import pandas as pd
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from spfde import analysis
from spfde.analysis.gradients import gradient_norms
from spfde.analysis.similarity import similarity
from spfde.analysis.snapshots import Snapshots, numbers
from spfde.data import Splits, load
from spfde.errors import SpfdeError
from spfde.experiments.resolve import resolve
from spfde.models import build
from spfde.training.loop import train

SMALL = {
    "sparsity.method": "set",
    "training.epochs": 6,
    "training.batch_size": 32,
    "training.snapshots": 2,
    "data.train_limit": 256,
}


def test_similarity_counts_the_largest_half_of_the_non_zero_weights() -> None:
    weight = torch.tensor([0.0, -4.0, 3.0, 2.0, -1.0, 0.0])
    assert similarity(weight, torch.tensor([5.0, 0.0, 0.1, 0.0, 7.0, 0.0])) == 0.5  # of -4 and 3, 3 is there
    assert similarity(weight, torch.tensor([0.0, 1.0, -1.0, 0.0, 0.0, 0.0])) == 1
    assert similarity(weight, torch.tensor([1.0, 0.0, 0.0, 1.0, 1.0, 1.0])) == 0
    assert similarity(weight, weight) == 1


def test_similarity_rounds_half_a_weight_up_and_knows_no_empty_layer() -> None:
    assert similarity(torch.tensor([3.0, 2.0, 1.0]), torch.tensor([0.0, 1.0, 0.0])) == 0.5
    assert similarity(torch.zeros(3), torch.ones(3)) != similarity(torch.zeros(3), torch.ones(3))


def test_layers_are_numbered_as_in_the_papers() -> None:
    found = numbers(build("resnet32_2x", 100))
    assert list(found.values()) == list(range(1, 33))
    assert found["conv1"] == 1 and found["classifier"] == 32
    assert not any("shortcut" in name for name in found)


def test_gradient_norms_by_hand() -> None:
    """d CE / d W = mean over samples of (softmax - one-hot) x^T, zero where a sparse weight is zero."""
    model = nn.Sequential(nn.Flatten(), nn.Linear(3, 2, bias=False))
    weight = torch.tensor([[0.5, 0.0, -1.0], [0.2, 0.3, 0.0]])
    model[1].weight.data = weight.clone()
    images = torch.tensor([[1.0, 2.0, 3.0], [0.5, -1.0, 0.0], [0.0, 1.0, 1.0]])
    labels = torch.tensor([0, 1, 1])
    error = F.softmax(images @ weight.T, dim=1) - F.one_hot(labels, 2)
    gradient = error.T @ images / 3
    batches = [(images[:2], labels[:2]), (images[2:], labels[2:])]
    assert gradient_norms(model, batches, ["1"], set()) == pytest.approx([float(gradient.norm())])
    assert gradient_norms(model, batches, ["1"], {"1"}) == pytest.approx([float((gradient * (weight != 0)).norm())])


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Splits]:
    settings = resolve("smoke", SMALL)
    splits = load(settings.data, None, None)
    return train(settings, splits, tmp_path_factory.mktemp("runs")), splits


def test_a_run_keeps_its_snapshots(run: tuple[Path, Splits]) -> None:
    folder, _ = run
    snapshots = Snapshots.of(folder)
    assert snapshots.epochs == (0, 2, 4, 6)
    assert [epoch for epoch, _ in snapshots.trained()] == [2, 4, 6]
    for epoch, state in snapshots.trained():
        zeros = {name: float((state[f"{name}.weight"] == 0).float().mean()) for name in snapshots.masked}
        assert all(share == pytest.approx(0.9, abs=0.02) for share in zeros.values()), epoch


def test_the_final_network_is_like_itself(run: tuple[Path, Splits]) -> None:
    folder, splits = run
    structure = analysis.structure(folder)
    assert list(structure.columns) == ["epoch", "layer", "number", "similarity"]
    assert (structure[structure.epoch == 6].similarity == 1).all()
    assert structure.similarity.between(0, 1).all() and structure.similarity.min() < 1
    assert "conv1" not in set(structure.layer)  # dense: it has no structure
    cka = analysis.representations(folder, splits, samples=64, batch=32)
    assert len(cka) == 3 * 8 and cka.cka.between(-0.1, 1 + 1e-9).all()
    assert cka[cka.epoch == 6].cka.to_numpy() == pytest.approx(1)
    assert (cka[cka.epoch == 2].cka < 0.9999).any()


def test_gradients_of_a_run(run: tuple[Path, Splits]) -> None:
    folder, splits = run
    frame = analysis.gradients(folder, splits, samples=64)
    assert (frame.norm > 0).all() and sorted(set(frame.epoch)) == [2, 4, 6]
    table = frame.pivot(index="epoch", columns="layer", values="norm")
    changes = frame.pivot(index="epoch", columns="layer", values="difference")
    pd.testing.assert_frame_equal(changes, table.diff())


def test_a_record_without_snapshots_is_refused(run: tuple[Path, Splits], tmp_path: Path) -> None:
    with pytest.raises(SpfdeError, match="not a record"):
        analysis.structure(tmp_path)
    bare = tmp_path / "bare"
    shutil.copytree(run[0], bare, ignore=shutil.ignore_patterns("snapshots"))
    with pytest.raises(SpfdeError, match=r"no snapshots.*training\.snapshots"):
        analysis.structure(bare)


def test_too_few_samples_for_a_minibatch_are_refused(run: tuple[Path, Splits]) -> None:
    with pytest.raises(SpfdeError, match="no minibatch of 1000"):
        analysis.representations(*run, batch=1000)
