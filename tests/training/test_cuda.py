"""Training on a GPU: no step waits for it, decisions are those of a CPU, and killing and resuming are exact."""

import json
from collections.abc import Iterator
from pathlib import Path

import pandas as pd
import pytest
import torch
from PIL import Image

from spfde.cost.trace import OVERLAPS
from spfde.data import load
from spfde.errors import Stopped
from spfde.experiments.resolve import resolve
from spfde.methods import METHODS
from spfde.settings import RunSettings
from spfde.training import loop, recorded
from spfde.training.bench import epochs as timed
from spfde.training.clock import Clock
from spfde.training.loop import train
from spfde.training.run import Training

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
CPU, CUDA = torch.device("cpu"), torch.device("cuda")
SHORT = {"training.epochs": 6, "data.train_limit": 240, "training.batch_size": 48}
RESULTS = ("epochs.csv", "layers.csv", "model.safetensors", "state.safetensors", "predictions.safetensors")
SIEVED: dict[str, object] = {"freezing.flops_reduction": 0.1, "sieving.removed": 0.2}


class Kills(Clock):
    """Stops the run after so many steps, with a checkpoint."""

    def __init__(self, steps: int) -> None:
        super().__init__()
        self.left = steps

    def due(self) -> bool:
        self.left -= 1
        return self.left <= 0

    @property
    def stopped(self) -> str:
        return "the test" if self.left <= 0 else ""


def settings_of(method: str, **more: object) -> RunSettings:
    return resolve("smoke", {**SHORT, "sparsity.method": method, **more})


def run(settings: RunSettings, out: Path, clock: Clock | None = None) -> Path:
    return train(settings, load(settings.data, None, None), out, CUDA, clock)


@pytest.fixture
def waiting_is_an_error(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[int]]:
    """While a training step runs, whatever waits for the device raises; counts the steps.

    Two may wait: a step that changes masks, because it has to know how many weights there are, and SWAT's, which have
    to know how many activations they keep.
    """
    plain, steps = loop.step, [0]

    def watched(run: Training, *batch: torch.Tensor) -> None:
        method = run.sparse.method
        changes = hasattr(method, "is_update") and method.is_update(run.sparse.step)
        if not changes and not method.name.startswith("swat"):
            torch.cuda.set_sync_debug_mode("error")
            steps[0] += 1
        try:
            plain(run, *batch)
        finally:
            torch.cuda.set_sync_debug_mode("default")

    monkeypatch.setattr(loop, "step", watched)
    yield steps


@pytest.mark.parametrize("method", sorted(METHODS))
def test_no_step_of_any_method_waits_for_the_device(
    method: str, waiting_is_an_error: list[int], tmp_path: Path
) -> None:
    sieved = SIEVED if method == "spfde" else {}
    folder = run(settings_of(method, **sieved), tmp_path)
    summary = json.loads((folder / "summary.json").read_text())
    assert summary["status"] == "finished" and (waiting_is_an_error[0] >= 6 or method.startswith("swat"))
    assert summary["environment"]["device"].startswith("cuda") and summary["memory"]["measured_peak"] > 0
    assert pd.read_csv(folder / "epochs.csv").train_loss.iloc[-1] > 0


ADAPTIVE: dict[str, object] = {**SIEVED, "freezing.scheme": "adaptive", "training.epochs": 16}
CASES: list[tuple[str, dict[str, object]]] = [("spfde", SIEVED), ("spfde", ADAPTIVE)]
CASES += [("static", {"precision": "bf16"}), ("static", {"data.validation": 0.2}), ("dense", {})]
CASES += [(name, {}) for name in ("set", "mest-ems", "mest-data-efficient", "dsr", "lottery")]
CASES += [(name, {}) for name in ("rigl", "set-itop", "rigl-itop", "gse-uniform", "gse-grabo")]


@pytest.mark.parametrize(("method", "more"), CASES)
def test_replayed_steps_compute_what_steps_one_by_one_do(
    method: str, more: dict[str, object], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = settings_of(method, **more)
    replayed, plain = [0], recorded.Steps._replay

    def counted(steps: recorded.Steps, batch: tuple[torch.Tensor, ...]) -> None:
        replayed[0] += 1
        plain(steps, batch)

    monkeypatch.setattr(recorded.Steps, "_replay", counted)
    with_replays = run(settings, tmp_path / "replayed")
    assert replayed[0] >= 6
    before = replayed[0]
    monkeypatch.setenv("SPFDE_RECORD", "0")
    one_by_one = run(settings, tmp_path / "one by one")
    assert replayed[0] == before
    for name in RESULTS:
        assert (with_replays / name).read_bytes() == (one_by_one / name).read_bytes(), name


def test_steps_are_recorded_while_another_thread_pins_batches_from_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "config/data").mkdir(parents=True)
    (tmp_path / "config/data/dots.yaml").write_text(
        "{classes: 2, size: 8, train_samples: 96, test_samples: 8, streamed: true}"
    )
    for part, samples in (("train", 96), ("val", 8)):
        for number in range(samples):
            path = tmp_path / "dots" / part / ("dark", "light")[number % 2] / f"{number}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.new("RGB", (8, 8), (number, 0, 255 * (number % 2))).save(path)
    monkeypatch.chdir(tmp_path)
    settings = resolve("smoke", {"data": {"name": "dots"}, "training.epochs": 3, "training.batch_size": 4})
    splits = load(settings.data, tmp_path, None)
    folder = train(settings, splits, tmp_path / "replayed", CUDA)
    monkeypatch.setenv("SPFDE_RECORD", "0")
    again = train(settings, splits, tmp_path / "one by one", CUDA)
    for name in RESULTS:
        assert (folder / name).read_bytes() == (again / name).read_bytes(), name


@pytest.mark.parametrize("method", ["spfde", "rigl", "set", "static"])
def test_the_first_epoch_is_that_of_a_cpu(method: str) -> None:
    settings = settings_of(method, **(SIEVED if method == "spfde" else {}))
    runs = [Training(settings, load(settings.data, None, None), device, Clock()) for device in (CPU, CUDA)]
    for each in runs:
        each.begin(0)
    here, there = runs
    for name, value in here.sparse.masks.state_dict().items():
        assert torch.equal(value, there.sparse.masks.state_dict()[name].cpu()), name
    if here.sparse.sieve:
        assert torch.equal(here.sparse.sieve.queue, there.sparse.sieve.queue.cpu())
    for mine, yours in zip(here.batches(), there.batches(), strict=True):
        assert torch.equal(mine[0], yours[0].cpu()) and torch.allclose(mine[1], yours[1].cpu(), atol=1e-6)
        loop.step(here, *mine)
        loop.step(there, *yours)
        break
    for (name, value), other in zip(here.model.named_parameters(), there.model.parameters(), strict=True):
        assert torch.allclose(value, other.cpu(), atol=1e-4), name


def test_the_same_weights_are_counted_as_on_a_cpu(tmp_path: Path) -> None:
    settings = settings_of("spfde", **SIEVED)
    there = pd.read_csv(run(settings, tmp_path / "cuda") / "layers.csv")
    here = pd.read_csv(train(settings, load(settings.data, None, None), tmp_path / "cpu") / "layers.csv")
    assert here.drop(columns=OVERLAPS).equals(there.drop(columns=OVERLAPS))


@pytest.mark.parametrize(("method", "more"), [("spfde", SIEVED), ("rigl", {}), ("gse-grabo", {})])
def test_a_killed_run_goes_on_bit_for_bit(method: str, more: dict[str, object], tmp_path: Path) -> None:
    settings = settings_of(method, **more)
    whole, parts = run(settings, tmp_path / "whole"), tmp_path / "parts"
    for steps in (7, 9):  # within an epoch and within another
        with pytest.raises(Stopped):
            run(settings, parts, Kills(steps))
    folder = run(settings, parts)
    for name in RESULTS:
        assert (folder / name).read_bytes() == (whole / name).read_bytes(), name


def test_a_checkpoint_of_a_cpu_goes_on_here_and_the_record_says_so(tmp_path: Path) -> None:
    settings = settings_of("spfde", **SIEVED)
    with pytest.raises(Stopped):
        train(settings, load(settings.data, None, None), tmp_path, clock=Kills(7))
    summary = json.loads((run(settings, tmp_path) / "summary.json").read_text())
    assert "device" in summary["resumed_from"][0]["changed"]


def test_what_freezing_and_sieving_save_is_measured_on_the_gpu() -> None:
    frame = timed.bench("smoke", CUDA, "resnet8", epochs=16, samples=96, repeats=2, batch_size=48)
    assert set(frame.kernels) == {"dense"} and frame.device.str.startswith("cuda").all()
    assert (frame.seconds_per_epoch > 0).all() and len(frame) == 2 * 14
