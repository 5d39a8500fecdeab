"""Checkpoints that no run can go on from: another run's, damaged ones, those of another version."""

import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from spfde.errors import SpfdeError, Stopped
from spfde.experiments.resolve import resolve
from spfde.training import checkpoint
from tests.training.test_loop import SMALL, EveryStep, run


def test_a_checkpoint_of_another_run_is_refused(tmp_path: Path) -> None:
    mine, other = resolve("smoke", SMALL), resolve("smoke", SMALL, seed=2)
    with pytest.raises(Stopped):
        run(other, tmp_path, EveryStep(2))
    path = checkpoint.path_of(tmp_path, mine.run_id)
    shutil.copy(checkpoint.path_of(tmp_path, other.run_id), path)
    with pytest.raises(SpfdeError, match=f"belongs to {other.run_id}, not to {mine.run_id}; remove"):
        run(mine, tmp_path)
    assert path.exists()


@pytest.mark.parametrize("keep", [0, 7, 1000])
def test_a_damaged_checkpoint_is_refused(tmp_path: Path, keep: int) -> None:
    settings = resolve("smoke", SMALL)
    with pytest.raises(Stopped):
        run(settings, tmp_path, EveryStep(2))
    path = checkpoint.path_of(tmp_path, settings.run_id)
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(SpfdeError, match="is damaged"):
        run(settings, tmp_path)


def test_a_checkpoint_without_text_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "c.safetensors"
    save_file({"x": torch.zeros(1)}, path)
    with pytest.raises(SpfdeError, match="belongs to no run of this project"):
        checkpoint.load(path, "mine")


def test_a_checkpoint_of_another_version_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "c.safetensors"
    with monkeypatch.context() as patch:
        patch.setattr(checkpoint, "FORMAT", "1")
        checkpoint.save(path, "mine", {"x": torch.zeros(1)}, {})
    with pytest.raises(SpfdeError, match=r"written by another version of spfde; remove .* to train"):
        checkpoint.load(path, "mine")
