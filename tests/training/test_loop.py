"""One run from settings to record: what is left behind, killing and resuming, a full disk."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pandas as pd
import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from torch import nn

from spfde.cli import app
from spfde.cost.trace import read_trace
from spfde.data import load
from spfde.errors import SpfdeError, Stopped
from spfde.experiments.resolve import resolve
from spfde.plans import plan_settings
from spfde.rounding import count_of
from spfde.settings import RunSettings
from spfde.training import checkpoint
from spfde.training.clock import Clock
from spfde.training.loop import predict, train
from spfde.training.run import Training

SMALL = {
    "sparsity.method": "spfde",
    "freezing.flops_reduction": 0.15,
    "training.epochs": 8,
    "training.batch_size": 64,
    "data.train_limit": 320,
}


class EveryStep(Clock):
    """Writes a checkpoint after every step, and stops after a number of them."""

    def __init__(self, steps: int) -> None:
        super().__init__()
        self.left = steps

    def due(self) -> bool:
        self.left -= 1
        return True

    @property
    def stopped(self) -> str:
        return "the test" if self.left <= 0 else ""


class AlwaysClass(nn.Module):
    """Predicts one class, whatever it sees."""

    def __init__(self, last: int) -> None:
        super().__init__()
        self.last = last

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return F.one_hot(torch.full((len(images),), self.last)).float()


def run(settings: RunSettings, out: Path, clock: Clock | None = None) -> Path:
    return train(settings, load(settings.data, None, None), out, clock=clock)


def contents(folder: Path) -> dict[str, bytes]:
    """The files of a record that must be equal for equal runs: everything but times and resumptions."""
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and "summary" not in path.name
    }


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return run(resolve("smoke", SMALL), tmp_path_factory.mktemp("runs"))


def test_a_record_is_complete(finished: Path) -> None:
    assert {path.name for path in finished.iterdir()} == {
        "settings.yaml",
        "epochs.csv",
        "layers.csv",
        "summary.json",
        ".summary.json",
        "model.safetensors",
        "state.safetensors",
        "predictions.safetensors",
    }
    summary = json.loads((finished / "summary.json").read_text())
    epochs = pd.read_csv(finished / "epochs.csv")
    trace = read_trace(finished / "layers.csv")
    assert finished.name == summary["run_id"] == resolve("smoke", SMALL).run_id
    assert len(epochs) == 8 and epochs.test_accuracy.iloc[-1] == summary["accuracy"]["test_last"]
    assert (epochs.samples == 256).all()  # a fifth of 320 rests in the queue
    assert epochs.frozen_blocks.iloc[-1] == 2 and epochs.frozen_blocks.is_monotonic_increasing
    assert epochs.lr_first.iloc[-1] == 0 < epochs.lr_last.iloc[-1]
    assert trace.epoch.nunique() == 8
    assert summary["sparsity"]["achieved"] == pytest.approx(0.9, abs=1e-3)
    assert summary["flops"]["paper"] > summary["flops"]["full"] > 0 == summary["flops"]["extra"]
    assert summary["resumed_from"] == [] and summary["memory"]["measured_peak"] is None  # which a CPU does not tell
    assert summary["time"]["cpu"] > 0 and summary["environment"]["kernels"]["wanted"] == "dense"
    assert not (finished.parent / ".checkpoints" / f"{finished.name}.safetensors").exists()


@pytest.mark.parametrize(("last", "small"), [(255, torch.uint8), (256, torch.int16)])
def test_a_byte_tells_256_classes_apart(last: int, small: torch.dtype) -> None:
    settings = resolve("smoke", SMALL)
    run = Training(settings, load(settings.data, None, None), torch.device("cpu"), Clock())
    run.model = AlwaysClass(last)
    found = predict(run, run.test)["predicted"]
    assert found.dtype == small and set(found.tolist()) == {last}


@pytest.mark.parametrize(("precision", "fast"), [("fp32", False), ("tf32", True)])
def test_arithmetic_is_that_of_the_settings_and_never_depends_on_timing(precision: str, fast: bool) -> None:
    """On whatever device."""
    cudnn, matmul = torch.backends.cudnn, torch.backends.cuda.matmul
    before, threads = (cudnn.deterministic, cudnn.allow_tf32, matmul.allow_tf32), torch.get_num_threads()
    settings = resolve("smoke", SMALL | {"precision": precision, "threads": 2})
    try:
        cudnn.deterministic, cudnn.allow_tf32, matmul.allow_tf32 = False, not fast, not fast
        Training(settings, load(settings.data, None, None), torch.device("cpu"), Clock())
        assert (cudnn.deterministic, cudnn.allow_tf32, matmul.allow_tf32) == (True, fast, fast)
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(threads)
        cudnn.deterministic, cudnn.allow_tf32, matmul.allow_tf32 = before


def test_the_record_keeps_what_the_network_says_of_every_test_image(finished: Path) -> None:
    """One byte each: the class, and whether it is right; their mean is the accuracy after the last epoch."""
    found = load_file(finished / "predictions.safetensors")
    labels = load(resolve("smoke", SMALL).data, None, None).test.labels
    assert {name: value.dtype for name, value in found.items()} == {"predicted": torch.uint8, "correct": torch.uint8}
    assert torch.equal(found["correct"].bool(), found["predicted"].long() == labels)
    accuracy = json.loads((finished / "summary.json").read_text())["accuracy"]["test_last"]
    assert 100 * found["correct"].double().mean().item() == pytest.approx(accuracy)


def test_what_freezing_achieved_is_counted_from_what_happened(tmp_path: Path) -> None:
    """SNIP's layers get densities of their own: a frozen one goes forward at what it has, at a third of its cost."""
    settings = resolve("smoke", {**SMALL, "sparsity.method": "snip", "sieving.removed": 0.2})
    folder = run(settings, tmp_path)
    trace, plan = read_trace(folder / "layers.csv"), plan_settings(settings)
    work = trace["forward_density"] * trace["layer"].map({layer.name: layer.macs for layer in plan.profile.layers})
    achieved = json.loads((folder / "summary.json").read_text())["freezing"]["achieved"]
    assert achieved == pytest.approx(2 / 3 * work[trace["frozen"]].sum() / work.sum())
    assert abs(achieved - plan.schedule.achieved) > 0.005


def test_weights_masks_and_queue_in_the_record_agree(finished: Path) -> None:
    model, state = load_file(finished / "model.safetensors"), load_file(finished / "state.safetensors")
    masks = {name.removeprefix("mask."): value for name, value in state.items() if name.startswith("mask.")}
    assert len(masks) == 9
    for name, mask in masks.items():
        weight = model[f"{name}.weight"]
        assert int(mask.sum()) == count_of(0.1, weight.numel()) and not weight[~mask].any()
    partial = state["partial_set"].nonzero().flatten()
    assert sorted([*partial.tolist(), *state["removed_queue"].tolist()]) == list(range(320))


def test_equal_seeds_give_equal_records_and_others_do_not(finished: Path, tmp_path: Path) -> None:
    again = run(resolve("smoke", SMALL), tmp_path)
    assert contents(again) == contents(finished)
    other = run(resolve("smoke", SMALL, seed=2), tmp_path)
    assert contents(other)["epochs.csv"] != contents(finished)["epochs.csv"]


@pytest.mark.parametrize("stop_after", [1, 7, 13, 30])
def test_a_stopped_run_goes_on_bit_for_bit(finished: Path, tmp_path: Path, stop_after: int) -> None:
    settings = resolve("smoke", SMALL)
    with pytest.raises(Stopped, match="stopped by the test"):
        run(settings, tmp_path, EveryStep(stop_after))
    assert not (tmp_path / settings.run_id).exists()
    resumed = run(settings, tmp_path)
    assert contents(resumed) == contents(finished)
    steps = 4  # an epoch
    where = {"epoch": (stop_after - 1) // steps, "step": (stop_after - 1) % steps + 1}
    assert json.loads((resumed / "summary.json").read_text())["resumed_from"] == [where]


COMMAND = """
import sys
from pathlib import Path
from spfde.training.clock import Clock
Clock.due = lambda self: True
sys.argv = ["spfde", "train", *sys.argv[1:]]
from spfde.cli import main
main()
"""


def kill_and_resume(out: Path, kills: int) -> Path:
    """Starts the run as a process of its own and kills it, time after time, each time after a new checkpoint."""
    settings = resolve("smoke", SMALL)
    words = [word for key, value in SMALL.items() for word in ("--set", f"{key}={value}")]
    command = [sys.executable, "-c", COMMAND, "--scale", "smoke", *words, "--out", str(out), "--device", "cpu"]
    path = checkpoint.path_of(out, settings.run_id)
    seen = 0.0
    for _ in range(kills):
        process = subprocess.Popen(command, stderr=subprocess.DEVNULL)
        while process.poll() is None and (not path.exists() or path.stat().st_mtime_ns == seen):
            time.sleep(0.001)
        assert process.poll() is None, "the run ended before it could be killed"
        seen = path.stat().st_mtime_ns
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
    subprocess.run(command, check=True, stderr=subprocess.DEVNULL)
    return out / settings.run_id


def check_killed(finished: Path, out: Path, kills: int) -> None:
    record = kill_and_resume(out, kills)
    assert contents(record) == contents(finished)
    assert len(json.loads((record / "summary.json").read_text())["resumed_from"]) == kills


def test_five_kills_change_nothing(finished: Path, tmp_path: Path) -> None:
    check_killed(finished, tmp_path, 5)


@pytest.mark.soak
def test_twenty_kills_change_nothing(finished: Path, tmp_path: Path) -> None:
    check_killed(finished, tmp_path, 20)


def test_a_finished_run_is_skipped(finished: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = contents(finished)
    run(resolve("smoke", SMALL), finished.parent, EveryStep(0))
    assert "finished before, skipped" in capsys.readouterr().err and contents(finished) == before


def test_a_finished_run_is_skipped_without_its_data(
    finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Records can be brought to a machine that has not the data."""
    words = ["train", "--settings", str(finished / "settings.yaml"), "--out", str(finished.parent)]
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("spfde.data.load", lambda *_: pytest.fail("the data were wanted"))
    app([*words, "--device", "cpu"], prog_name="spfde", standalone_mode=False)
    assert "finished before, skipped" in capsys.readouterr().err


def test_a_kill_after_the_record_leaves_nothing(finished: Path) -> None:
    """The checkpoint that is left is of no use any more, nor are its snapshots."""
    left = finished.parent / ".checkpoints" / f"{finished.name}.safetensors"
    left.with_suffix(".snapshots").mkdir(parents=True)
    left.write_bytes(b"old")
    run(resolve("smoke", SMALL), finished.parent, EveryStep(0))
    assert not left.exists() and not left.with_suffix(".snapshots").exists()


def test_a_damaged_record_is_trained_again_from_its_start(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    settings = resolve("smoke", SMALL | {"training.epochs": 1, "freezing.flops_reduction": 0, "sieving.removed": 0})
    folder = run(settings, tmp_path)
    before = contents(folder)
    nothing: dict[str, object] = {"removed": 0, "exchanges": 0, "decided": None, "decided_by_exchange": []}
    assert json.loads((folder / "summary.json").read_text())["sieving"] == nothing
    (folder / "epochs.csv").write_text("damaged")
    left = tmp_path / ".checkpoints" / f"{folder.name}.safetensors"
    left.parent.mkdir(exist_ok=True)
    left.write_bytes(b"old")
    run(settings, tmp_path)
    assert contents(folder) == before and not left.exists()
    assert f"record {folder} is damaged" in capsys.readouterr().err


def test_a_deleted_summary_comes_back_without_training(finished: Path) -> None:
    """A workflow engine deletes the declared output of a row of which another seed failed."""
    before = (finished / "summary.json").read_bytes()
    (finished / "summary.json").unlink()
    run(resolve("smoke", SMALL), finished.parent, EveryStep(0))
    assert (finished / "summary.json").read_bytes() == before


def test_validation_selects_without_the_test_set(tmp_path: Path) -> None:
    settings = resolve("smoke", {**SMALL, "data.validation": 0.25, "training.epochs": 4, "sparsity.method": "static"})
    record = run(settings, tmp_path)
    summary = json.loads((record / "summary.json").read_text())
    epochs = pd.read_csv(record / "epochs.csv")
    best = int(epochs.val_accuracy.idxmax())
    assert summary["accuracy"]["best_val_epoch"] == best
    assert summary["accuracy"]["test_at_best_val"] == epochs.test_accuracy[best]
    assert (epochs.samples == 240).all()


def test_snapshots_survive_a_stop_and_end_in_the_record(tmp_path: Path) -> None:
    settings = resolve("smoke", {**SMALL, "training.epochs": 4, "training.snapshots": 2, "freezing.flops_reduction": 0})
    with pytest.raises(Stopped):
        run(settings, tmp_path, EveryStep(6))
    record = run(settings, tmp_path)
    names = sorted(path.name for path in (record / "snapshots").iterdir())
    assert names == [f"epoch-{epoch:04d}.safetensors" for epoch in (0, 2, 4)]
    last, model = load_file(record / "snapshots" / names[-1]), load_file(record / "model.safetensors")
    assert all(torch.equal(last[name], model[name]) for name in model)


def test_training_can_start_from_given_weights(finished: Path, tmp_path: Path) -> None:
    given = {**SMALL, "model.weights": str(finished / "model.safetensors"), "training.epochs": 1}
    given |= {"sparsity.method": "dense", "training.lr": 1e-6, "freezing.flops_reduction": 0, "sieving.removed": 0}
    settings = resolve("smoke", given)
    assert (
        settings.model.weights_digest and settings.run_id != resolve("smoke", {**given, "model.weights": None}).run_id
    )
    before = json.loads((finished / "summary.json").read_text())["accuracy"]["test_last"]
    after = json.loads((run(settings, tmp_path) / "summary.json").read_text())["accuracy"]["test_last"]
    assert after == pytest.approx(before, abs=5)


def test_a_full_disk_is_one_clear_error_and_leaves_nothing_half_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("spfde.training.record.save_file", full)
    settings = resolve(
        "smoke", {**SMALL, "training.epochs": 2, "sparsity.method": "static", "freezing.flops_reduction": 0}
    )
    with pytest.raises(SpfdeError, match=r"no space left to write .*; free some space"):
        run(settings, tmp_path)
    assert not (tmp_path / settings.run_id).exists()
    assert not list(tmp_path.glob(".*.part"))
