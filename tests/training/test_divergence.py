"""Runs whose loss or weights become infinite or NaN: they stop, leave a record that says so, and count as done."""

import json
import sys
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest
import torch

from spfde import cli
from spfde.data import load
from spfde.errors import Diverged, Stopped
from spfde.experiments.resolve import resolve
from spfde.results import load as load_results
from spfde.results.account import account
from spfde.results.collect import record_folders
from spfde.results.material import Material
from spfde.training import checkpoint, loop
from spfde.training.clock import Clock
from spfde.training.run import Training
from spfde.training.trust import fault, is_whole

TOLD = {
    "sparsity.method": "spfde",
    "freezing.flops_reduction": 0.1,
    "training.epochs": 6,
    "training.batch_size": 64,
    "data.train_limit": 256,
    "training.snapshots": 2,
}
HIGH = {**TOLD, "training.lr": 1e30}


def diverged(out: Path, told: dict[str, object], clock: Clock | None = None, says: str = "the loss") -> Path:
    settings = resolve("smoke", told)
    with pytest.raises(
        Diverged, match=rf"diverged in epoch \d of 6 \({says} is not finite\); lower training.lr"
    ) as stop:
        loop.train(settings, load(settings.data, None, None), out, clock=clock)
    assert stop.value.exit_code == 1
    return out / settings.run_id


def test_a_cpu_stops_at_the_step(tmp_path: Path) -> None:
    folder = diverged(tmp_path, HIGH)
    summary, epochs = json.loads((folder / "summary.json").read_text()), pd.read_csv(folder / "epochs.csv")
    assert (summary["status"], summary["accuracy"]["test_last"], summary["epochs"]) == ("diverged", None, 1)
    assert epochs["samples"].tolist() == [128]  # of the first epoch two steps: the first makes the weights infinite
    assert epochs[["train_loss", "test_loss", "test_accuracy"]].isna().all(axis=None)
    assert not fault(folder) and is_whole(folder)
    assert account(folder)["flops"]["paper"] == summary["flops"]["paper"] > 0
    assert not list((tmp_path / ".checkpoints").iterdir())


def test_a_gpu_is_looked_at_when_an_epoch_ends(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The flag stays on the device: here the one step of the loss is hidden from the look at each step."""
    monkeypatch.setattr(Training, "_check_loss", _not_after_a_step)
    folder = diverged(tmp_path, HIGH)
    assert pd.read_csv(folder / "epochs.csv")["samples"].tolist() == [205]  # all steps of the epoch


def test_a_state_that_has_diverged_is_not_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Training, "_check_loss", _not_after_a_step)
    monkeypatch.setattr(Clock, "due", lambda clock: True)
    path = checkpoint.path_of(tmp_path, resolve("smoke", HIGH).run_id)
    saved: list[Path] = []
    monkeypatch.setattr(checkpoint, "save", lambda path, *_: saved.append(path))
    folder = diverged(tmp_path, HIGH, says="(a weight|the loss)")
    assert saved.count(path) <= 1 and pd.read_csv(folder / "epochs.csv")["samples"][0] <= 128


def _not_after_a_step(run: Training, look: Callable[[Training], None] = Training._check_loss) -> None:
    if sys._getframe(1).f_code.co_name != "count":
        look(run)


def test_a_weight_that_no_loss_shows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An infinite weight after the last step of an epoch."""
    count = Training.count

    def poison(run: Training, loss: torch.Tensor, correct: torch.Tensor) -> None:
        count(run, loss, correct)
        if (run.epoch, run.done) == (2, 4):
            next(run.model.parameters()).data.view(-1)[0] = torch.inf

    monkeypatch.setattr(Training, "count", poison)
    folder = diverged(tmp_path, TOLD, says="a weight")
    epochs = pd.read_csv(folder / "epochs.csv")
    assert len(epochs) == 3 and epochs["test_accuracy"].isna().tolist() == [False, False, True]
    assert sorted(path.name for path in (folder / "snapshots").iterdir())[:2] == [
        "epoch-0000.safetensors",
        "epoch-0002.safetensors",
    ]


def test_one_that_goes_on_diverges_in_the_same_place(tmp_path: Path) -> None:
    class Once(Clock):
        def due(self) -> bool:
            return True

        @property
        def stopped(self) -> str:
            return "the test"

    told = {**TOLD, "training.lr": 1e18}
    settings, splits = resolve("smoke", told), load(resolve("smoke", told).data, None, None)
    whole = diverged(tmp_path / "whole", told)
    with pytest.raises(Stopped):
        loop.train(settings, splits, tmp_path / "stopped", clock=Once())
    stopped = diverged(tmp_path / "stopped", told)
    assert (stopped / "epochs.csv").read_bytes() == (whole / "epochs.csv").read_bytes()


def spfde(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, str]:
    monkeypatch.setattr(sys, "argv", ["spfde", *words])
    with pytest.raises(SystemExit) as stop:
        cli.main()
    return int(stop.value.code or 0), capsys.readouterr().err


def test_the_command_says_so_each_time_and_can_go_on(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    sets = [word for key, value in HIGH.items() for word in ("--set", f"{key}={value}")]
    sets += ["--set", "training.snapshots=0"]
    words = [
        "train",
        "--scale",
        "smoke",
        *sets,
        "--seed",
        "1",
        "--seed",
        "2",
        "--out",
        str(tmp_path / "smoke" / "runs"),
    ]
    code, said = spfde(monkeypatch, capsys, *words)
    assert code == 1 and said.splitlines()[-1].startswith("error: smoke-resnet8-spfde-s90-f10-d20-seed1-")
    code, said = spfde(monkeypatch, capsys, *words)
    assert code == 1 and "seed1-" in said and "diverged before; remove " in said
    assert len(record_folders("smoke", tmp_path)) == 1
    code, said = spfde(monkeypatch, capsys, *words, "--keep-diverged")
    assert code == 0 and said.count("warning: smoke-resnet8-spfde") == 2
    runs = load_results("smoke", tmp_path)
    assert runs["status"].tolist() == ["diverged"] * 2 and runs["accuracy.test_last"].isna().all()


def test_tables_say_how_many_diverged_and_leave_them_out(tmp_path: Path) -> None:
    runs = pd.DataFrame(
        {
            "row": ["set-s90"] * 3 + ["rigl-s90"],
            "status": ["finished", "diverged", "finished", "diverged"],
            "accuracy.test_last": [70.0, None, 72.0, None],
            "flops.paper": [2.0, 1.0, 2.0, 1.0],
            "resumed_from": ["[]", "[]", '[{"epoch": 1, "step": 2, "changed": {"threads": [1, 2]}}]', "[]"],
            "environment.torch": ["2.9", "2.9", "2.10", "2.9"],
        }
    )
    some, none, never = ({"row": row} for row in ("set-s90", "rigl-s90", "mest-s90"))
    material = Material("smoke", runs, [some, none, never], pd.DataFrame(), tmp_path)
    assert material.accuracy(some).mean == 71 and list(material.of(some)["flops.paper"]) == [2, 2]
    assert [material.count(row) for row in (some, none, never)] == ["2 (1 of 3 diverged)", "0 (1 of 1 diverged)", "0"]
    assert [material.absent(row) for row in (none, never)] == ["diverged", "not run"]
    assert material.cautions == [
        "Runs that diverged, and are left out of means: 1 of 3 of set-s90, 1 of 1 of rigl-s90.",
        "1 of 4 runs were resumed with other threads than they began.",
        "The runs were made with 2 different values of torch (2.10, 2.9).",
    ]
