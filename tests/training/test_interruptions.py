"""What a run meets from outside: signals to its process group, a full /dev/shm, kills while it keeps snapshots."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

from spfde.data import load
from spfde.errors import SpfdeError, Stopped
from spfde.experiments.resolve import resolve
from spfde.training import checkpoint, loop, record
from spfde.training.clock import Clock
from spfde.training.run import Training
from tests.training.test_loop import EveryStep

DESCRIPTION = "classes: 2\nsize: 16\ntrain_samples: 24\ntest_samples: 4\nstreamed: true\n"
TOLD = {
    "sparsity.method": "set",
    "training.epochs": 6,
    "training.batch_size": 64,
    "data.train_limit": 192,
    "training.snapshots": 2,
}


def run(out: Path, clock: Clock | None = None, told: dict[str, object] = TOLD) -> Path:
    settings = resolve("smoke", told)
    return loop.train(settings, load(settings.data, None, None), out, clock=clock)


@pytest.fixture
def stream(tmp_path: Path) -> list[str]:
    """A folder with a data set of images on disk, and the command that trains on it for a long time."""
    draws = np.random.default_rng(0)
    for part, count in (("train", 12), ("val", 2)):
        for label in "ab":
            folder = tmp_path / ".data" / "shapes" / part / label
            folder.mkdir(parents=True)
            for number in range(count):
                pixels = draws.integers(0, 256, (20, 20, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(folder / f"{number}.png")
    (tmp_path / "config" / "data").mkdir(parents=True)
    (tmp_path / "config" / "data" / "shapes.yaml").write_text(DESCRIPTION)
    sets = {"data.name": "shapes", "training.epochs": 1000, "training.batch_size": 8, "sparsity.method": "static"}
    words = [word for key, value in sets.items() for word in ("--set", f"{key}={value}")]
    return [sys.executable, "-m", "spfde", "train", "--scale", "smoke", *words, "--device", "cpu"]


def test_sigterm_to_the_group_of_a_run_with_workers_stops_it_resumably(stream: list[str], tmp_path: Path) -> None:
    environment = {**os.environ, "PYTHONPATH": os.getcwd()}
    process = subprocess.Popen(
        stream, cwd=tmp_path, env=environment, stderr=subprocess.PIPE, text=True, start_new_session=True
    )
    try:
        until = time.monotonic() + 120
        while not list(tmp_path.glob("runs/.checkpoints/*.safetensors")):
            assert process.poll() is None and time.monotonic() < until
            time.sleep(0.05)
        os.killpg(process.pid, signal.SIGTERM)
        _, said = process.communicate(timeout=60)
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
    assert process.returncode == 75, said
    assert said.strip().splitlines()[-1].startswith("error: smoke-resnet8-static-s90-seed1-")
    assert "stopped by SIGTERM" in said and "Traceback" not in said


def test_a_full_dev_shm_is_one_clear_line(stream: list[str], tmp_path: Path) -> None:
    mount = "mount -t tmpfs -o size=4k tmpfs /dev/shm"
    unshare = ["unshare", "--mount", "sh", "-c", f'{mount} && exec "$@"', "sh"]
    if os.geteuid() or subprocess.run([*unshare, "true"], capture_output=True).returncode:
        pytest.skip("needs the right to mount")
    environment = {**os.environ, "PYTHONPATH": os.getcwd()}
    done = subprocess.run(
        [*unshare, *stream], cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 2, done.stderr
    assert done.stderr.strip().splitlines()[-1] == (
        "error: no shared memory is left in which workers hand over their batches (/dev/shm is full); "
        "enlarge or empty /dev/shm, or lower training.batch_size"
    )


def test_snapshots_survive_a_kill_at_every_moment_of_writing_the_record(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A run that ends at any call of the last phase leaves what the next one needs."""
    whole = run(tmp_path / "whole")
    kept = {path.name: path.read_bytes() for path in (whole / "snapshots").iterdir()}
    assert sorted(kept) == [f"epoch-{epoch:04d}.safetensors" for epoch in (0, 2, 4, 6)]

    class Killed(BaseException):
        pass

    def kill(*_: object, **__: object) -> None:
        raise Killed

    for name in ("write_trace", "seal", "save_file", "shutil.copytree", "discard"):
        out = tmp_path / name
        with monkeypatch.context() as patch:
            patch.setattr(f"spfde.training.record.{name}", kill)
            patch.setattr(Clock, "due", lambda clock: True)
            with pytest.raises(Killed):
                run(out)
        left = out / ".checkpoints" / f"{whole.name}.snapshots"
        assert {path.name for path in left.iterdir()} >= set(kept)
        again = run(out)
        assert {path.name: path.read_bytes() for path in (again / "snapshots").iterdir()} == kept
        assert not list((out / ".checkpoints").iterdir()) and sorted(p.name for p in out.iterdir())[1:] == [whole.name]


@pytest.mark.parametrize("how", ["missing", "damaged"])
def test_a_snapshot_that_is_lost_or_damaged_is_one_line(tmp_path: Path, how: str) -> None:
    with pytest.raises(Stopped):
        run(tmp_path, EveryStep(8))
    (path,) = tmp_path.glob(".checkpoints/*.snapshots/epoch-0002.safetensors")
    if how == "missing":
        path.unlink()
    else:
        path.write_bytes(path.read_bytes()[:-1] + b"x")
    with pytest.raises(SpfdeError, match=f"snapshot {path} of the interrupted run is {how}; remove .* from its start"):
        run(tmp_path)


def test_a_checkpoint_with_one_bit_changed_is_damaged(tmp_path: Path) -> None:
    """Under a header that is right: safetensors alone would read it."""
    with pytest.raises(Stopped):
        run(tmp_path, EveryStep(2))
    path = checkpoint.path_of(tmp_path, resolve("smoke", TOLD).run_id)
    data = bytearray(path.read_bytes())
    data[-5] ^= 1
    path.write_bytes(data)
    assert load_file(path)
    with pytest.raises(SpfdeError, match=r"is damaged \(it does not hold what was written\); remove .* to train"):
        run(tmp_path)


def test_no_permission_is_not_damage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(Stopped):
        run(tmp_path, EveryStep(2))
    monkeypatch.setattr(os, "access", lambda path, mode: Path(path).suffix != ".safetensors")
    with pytest.raises(SpfdeError, match=r"no right to read checkpoint .*; change its rights"):
        run(tmp_path)


def test_a_checkpoint_that_is_a_fifo(tmp_path: Path) -> None:
    path = checkpoint.path_of(tmp_path, resolve("smoke", TOLD).run_id)
    path.parent.mkdir()
    os.mkfifo(path)
    with pytest.raises(SpfdeError, match=r"cannot be read \(it is a FIFO\); remove"):
        run(tmp_path)


def test_going_on_elsewhere_is_one_warning_and_stays_in_the_record(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(Stopped):
        run(tmp_path, EveryStep(4))
    monkeypatch.setattr("spfde.training.environment.code_digest", lambda: "other")
    folder = run(tmp_path)
    (line,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("warning")]
    assert "goes on with other code (" in line and "-> other); its record will say so" in line
    (at,) = json.loads((folder / "summary.json").read_text())["resumed_from"]
    assert (at["epoch"], at["step"]) == (1, 1) and list(at["changed"]) == ["code"]


def test_threads_and_their_like_are_no_part_of_a_run(tmp_path: Path) -> None:
    one, two = (resolve("smoke", {**TOLD, "threads": threads}) for threads in (1, 2))
    assert one.run_id == two.run_id and one.row_digest == two.row_digest


def test_other_data_are_refused(tmp_path: Path) -> None:
    settings = resolve("smoke", TOLD)
    splits = load(settings.data, None, None)
    with pytest.raises(Stopped):
        loop.train(settings, splits, tmp_path, clock=EveryStep(2))
    splits.train.labels[7] = (splits.train.labels[7] + 1) % 10
    with pytest.raises(SpfdeError, match="is of other data than those that are there now; bring the data back, or"):
        loop.train(settings, splits, tmp_path)


def test_what_killed_writers_left_is_removed(tmp_path: Path) -> None:
    settings = resolve("smoke", TOLD)
    path = checkpoint.path_of(tmp_path, settings.run_id)
    half = tmp_path / f".{settings.run_id}.elsewhere.7-0123.part"
    half.mkdir()
    (half / "epochs.csv").touch()
    path.parent.mkdir()
    path.with_name(f".{path.name}.elsewhere.7-0123.part").write_bytes(b"half")
    other = tmp_path / f".{settings.run_id}0.elsewhere.7-0123.part"
    other.touch()  # of another run
    run(tmp_path)
    assert sorted(p.name for p in tmp_path.iterdir()) == sorted([".checkpoints", settings.run_id, other.name])
    assert not list(path.parent.iterdir())


def test_a_finished_run_needs_no_right_to_write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = run(tmp_path)
    shutil.rmtree(tmp_path / ".checkpoints")
    monkeypatch.setattr(os, "open", lambda *_: pytest.fail("it writes"))
    assert run(tmp_path) == folder


def test_a_checkpoint_of_another_layout_is_one_line(tmp_path: Path) -> None:
    """What the digest does not see: a version that packs other parts."""
    settings = resolve("smoke", TOLD)
    training = Training(settings, load(settings.data, None, None), torch.device("cpu"), Clock())
    tensors, text = training._packed()
    path = checkpoint.path_of(tmp_path, settings.run_id)
    del tensors[next(name for name in tensors if name.startswith("model."))]
    checkpoint.save(path, settings.run_id, tensors, text)
    with pytest.raises(SpfdeError, match=r"does not fit this version of spfde \(RuntimeError: .*\); remove"):
        run(tmp_path)
    save_file({"x": torch.zeros(1)}, path)
    with pytest.raises(SpfdeError, match="belongs to no run of this project"):
        run(tmp_path)
    assert record.ending(tmp_path / settings.run_id) == ""
