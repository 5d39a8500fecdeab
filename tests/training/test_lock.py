"""One process at a time works on a run, and a lock dies with its holder."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from spfde.errors import SpfdeError, Stopped
from spfde.training.clock import Clock
from spfde.training.distributed import Team
from spfde.training.lock import Lock, alone

HOLD = """
import multiprocessing, sys, time
from pathlib import Path
from spfde.training.lock import Lock
lock = Lock(Path(sys.argv[1]))
assert lock.take()
worker = multiprocessing.get_context("fork").Process(target=time.sleep, args=(60,))
worker.start()
print(worker.pid, flush=True)
time.sleep(60)
"""


def test_the_second_cannot_take_it_and_nothing_is_left(tmp_path: Path) -> None:
    first, second = Lock(tmp_path / ".run.lock"), Lock(tmp_path / ".run.lock")
    assert first.take() and not second.take()
    first.release()
    assert not list(tmp_path.iterdir()) and second.take()
    second.release()


def test_a_lock_dies_with_its_holder_though_its_workers_live(tmp_path: Path) -> None:
    path = tmp_path / ".run.lock"
    holder = subprocess.Popen([sys.executable, "-c", HOLD, str(path)], stdout=subprocess.PIPE, text=True)
    assert holder.stdout
    worker = int(holder.stdout.readline())
    try:
        assert not Lock(path).take()
        holder.kill()
        holder.wait()
        os.kill(worker, 0)  # it lives on
        mine = Lock(path)
        assert mine.take()
        mine.release()
    finally:
        os.kill(worker, signal.SIGKILL)


def test_one_that_waits_says_so_and_stops_when_asked(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "run.safetensors"
    with alone(path, "run", Team(), Clock()):
        assert [left.name for left in tmp_path.iterdir()] == [".run.lock"]
        with pytest.raises(Stopped, match=r"the time limit of 0\.1 s while another process trains it"):  # noqa: SIM117
            with alone(path, "run", Team(), Clock(limit=0.1)):
                pytest.fail("both hold it")
    assert capsys.readouterr().err == "run: another process trains this run; waiting until it ends\n"


def test_one_that_waits_goes_on_when_the_other_ends(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, other = tmp_path / "run.safetensors", Lock(tmp_path / ".run.lock")
    assert other.take()
    monkeypatch.setattr(time, "sleep", lambda _: other.release())
    with alone(path, "run", Team(), Clock()):
        assert not Lock(tmp_path / ".run.lock").take()


def test_a_file_system_without_locks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise OSError(37, "No locks available")

    monkeypatch.setattr("fcntl.flock", refuse)
    with pytest.raises(SpfdeError, match=r"has no locks \(No locks available\); give --out a folder on another"):
        Lock(tmp_path / ".run.lock").take()
