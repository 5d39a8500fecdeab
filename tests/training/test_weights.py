"""Weights that training starts from: they are what SNIP scores and what a lottery ticket rewinds to."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from spfde.data import load
from spfde.errors import SpfdeError
from spfde.experiments.resolve import resolve
from spfde.models import build
from spfde.training.clock import Clock
from spfde.training.loop import step
from spfde.training.run import Training
from spfde.training.weights import load_weights

COMMON = {"training.epochs": 3, "training.batch_size": 32, "data.train_limit": 128, "sparsity.target": 0.5}


@pytest.fixture
def given(tmp_path: Path) -> tuple[Path, dict[str, torch.Tensor]]:
    """A file with weights of the smoke scale's network, and what is in it."""
    torch.manual_seed(99)
    state = build("resnet8", 10, 1, 8, 0.5).state_dict()
    save_file(state, tmp_path / "given.safetensors")
    return tmp_path / "given.safetensors", state


def training(method: str, path: Path, **settings: object) -> Training:
    told = {**COMMON, "sparsity.method": method, "model.weights": str(path), **settings}
    run = resolve("smoke", told)
    return Training(run, load(run.data, None, None), torch.device("cpu"), Clock())


@pytest.mark.parametrize("method", ["static", "snip", "lottery"])
def test_training_starts_from_the_files_weights(method: str, given: tuple[Path, dict[str, torch.Tensor]]) -> None:
    path, state = given
    run = training(method, path)
    run.sparse.begin_epoch(0)
    masks = {f"{layer.name}.weight": layer.mask for layer in run.sparse.masks}
    for name, value in run.model.state_dict().items():
        assert torch.equal(value, state[name] * masks[name] if name in masks else state[name])


def test_the_files_weights_are_the_scored_ones(given: tuple[Path, dict[str, torch.Tensor]]) -> None:
    """Weights that are 0 in the file score 0 in SNIP, so they go first."""
    path, state = given
    name = "layer2.0.conv2.weight"
    state[name][:, : state[name].shape[1] // 2] = 0
    save_file(state, path)
    run = training("snip", path, **{"sparsity.target": 0.2})
    run.sparse.begin_epoch(0)
    assert not run.sparse.masks["layer2.0.conv2"].active[:, : state[name].shape[1] // 2].any()


def test_a_lottery_ticket_rewinds_to_the_files_weights(given: tuple[Path, dict[str, torch.Tensor]]) -> None:
    path, state = given
    run = training("lottery", path)
    for epoch in range(4):  # the fourth is the first of the second round
        run.sparse.begin_epoch(epoch)
        if epoch < 3:
            step(run, *next(iter(run.batches())))
    masks = {f"{layer.name}.weight": layer.mask for layer in run.sparse.masks}
    assert run.sparse.masks.sparsity == pytest.approx(0.2, abs=1e-4)
    for name, value in run.model.state_dict().items():
        assert torch.equal(value, state[name] * masks[name] if name in masks else state[name])


def test_the_path_is_no_part_of_the_run_but_the_contents_are(
    tmp_path: Path, given: tuple[Path, dict[str, torch.Tensor]]
) -> None:
    path, state = given
    copy = tmp_path / "copy.safetensors"
    copy.write_bytes(path.read_bytes())
    first, second = (resolve("smoke", {**COMMON, "model.weights": str(each)}) for each in (path, copy))
    assert first.run_id == second.run_id
    save_file({name: value + 1 for name, value in state.items()}, copy)
    assert resolve("smoke", {**COMMON, "model.weights": str(copy)}).run_id != first.run_id


@pytest.mark.parametrize("content", ["another network", "no safetensors", "nothing"])
def test_a_wrong_file_is_refused_in_one_line(tmp_path: Path, content: str) -> None:
    path = tmp_path / "wrong.safetensors"
    if content == "another network":
        save_file(build("resnet8", 10, 1, 8, 1.0).state_dict(), path)
    elif content == "no safetensors":
        path.write_text("weights")
    with pytest.raises(SpfdeError) as error:
        load_weights(build("resnet8", 10, 1, 8, 0.5), str(path))
    assert str(path) in error.value.cause and error.value.remedy and "\n" not in str(error.value)


def test_a_missing_file_is_refused_when_settings_are_resolved(tmp_path: Path) -> None:
    with pytest.raises(SpfdeError, match=r"model\.weights = .*gone\.safetensors cannot be read"):
        resolve("smoke", {**COMMON, "model.weights": str(tmp_path / "gone.safetensors")})
