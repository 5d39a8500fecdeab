"""GPU slots: never more jobs on a GPU than it may have, freed however a job ends; and what the profile makes of it."""

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SCRIPT = ROOT / "workflow/scripts/gpu_slot.py"

# A job: says which GPUs it has and when it starts, holds them for a while, says when it ends.
JOB = """
import os, sys, time
log = os.open(sys.argv[1], os.O_WRONLY | os.O_APPEND)
tell = lambda what: os.write(log, f"{what} {os.getpid()} {os.environ['CUDA_VISIBLE_DEVICES']}\\n".encode())
tell("start")
time.sleep(float(sys.argv[2]))
tell("end")
"""

Start = Callable[..., subprocess.Popen]


@pytest.fixture
def log(tmp_path: Path) -> Path:
    path = tmp_path / "log"
    path.touch()
    return path


@pytest.fixture
def start(tmp_path: Path, log: Path) -> Start:
    (tmp_path / "job.py").write_text(JOB)

    def start(seconds: float, *options: str) -> subprocess.Popen:
        slot = [sys.executable, str(SCRIPT), "--folder", str(tmp_path / "slots"), *options, "--"]
        return subprocess.Popen([*slot, sys.executable, str(tmp_path / "job.py"), str(log), str(seconds)])

    return start


def events(log: Path) -> list[tuple[str, int, list[str]]]:
    lines = [line.split() for line in log.read_text().splitlines()]
    return [(what, int(pid), gpus.split(",")) for what, pid, gpus in lines]


def wait_for(log: Path, count: int) -> None:
    until = time.monotonic() + 60
    while len(events(log)) < count:
        assert time.monotonic() < until
        time.sleep(0.02)


def most_at_once(log: Path, gpu: str) -> int:
    now = most = 0
    for what, _, gpus in events(log):
        now += (gpu in gpus) * (1 if what == "start" else -1)
        most = max(most, now)
    return most


@pytest.mark.parametrize(("jobs_per_gpu", "jobs"), [(1, 4), (2, 7)])
def test_a_gpu_never_has_more_jobs_than_slots(start: Start, log: Path, jobs_per_gpu: int, jobs: int) -> None:
    started = [start(0.4, "--gpus", "3,GPU-5f", "--jobs-per-gpu", str(jobs_per_gpu)) for _ in range(jobs)]
    assert [process.wait(60) for process in started] == [0] * jobs
    assert {process.pid for process in started} == {pid for _, pid, _ in events(log)}  # the job itself, no wrapper
    assert len(events(log)) == 2 * jobs
    for gpu in ("3", "GPU-5f"):
        assert most_at_once(log, gpu) == jobs_per_gpu  # used, and not over


def test_free_gpus_are_used_before_one_is_shared(start: Start, log: Path) -> None:
    jobs = [start(30, "--gpus", "0,1", "--jobs-per-gpu", "2") for _ in range(2)]
    wait_for(log, 2)
    for job in jobs:
        job.kill()
    assert {gpus[0] for _, _, gpus in events(log)} == {"0", "1"}


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_a_killed_job_frees_its_slot(start: Start, log: Path, number: signal.Signals) -> None:
    first = start(60, "--gpus", "0")
    wait_for(log, 1)
    second = start(0, "--gpus", "0")
    time.sleep(1)
    assert second.poll() is None and len(events(log)) == 1  # it waits
    os.kill(first.pid, number)
    assert first.wait() == -number  # the signal reached the job, and nothing else stood for it
    assert second.wait(60) == 0


def test_a_job_of_several_gpus_waits_for_all_and_is_not_overtaken(start: Start, log: Path) -> None:
    first = start(60, "--gpus", "0,1")
    wait_for(log, 1)
    both = start(0.2, "--gpus", "0,1", "--count", "2")
    time.sleep(1)
    later = start(0, "--gpus", "0,1")
    time.sleep(1)
    assert both.poll() is None and later.poll() is None
    first.kill()
    assert both.wait(60) == later.wait(60) == 0
    order = [(pid, gpus) for what, pid, gpus in events(log) if what == "start"]
    assert [pid for pid, _ in order] == [first.pid, both.pid, later.pid]
    assert sorted(order[1][1]) == ["0", "1"]


def test_a_job_alone_shares_its_gpu_with_no_other_and_leaves_the_others_free(start: Start, log: Path) -> None:
    two = ("--gpus", "0,1", "--jobs-per-gpu", "2")
    long, short = start(60, *two), start(1.5, *two)
    wait_for(log, 2)
    alone = start(1.5, *two, "--alone")
    time.sleep(0.7)
    assert alone.poll() is None and len(events(log)) == 2  # each GPU has a job
    assert short.wait(60) == 0
    wait_for(log, 4)
    later = [start(0.1, *two) for _ in range(3)]
    assert [job.wait(60) for job in (alone, *later)] == [0, 0, 0, 0]
    long.kill()
    found = events(log)
    (own,) = {gpu for _, pid, gpus in found if pid == alone.pid for gpu in gpus}
    begin, end = (place for place, (_, pid, _) in enumerate(found) if pid == alone.pid)
    assert all(gpus != [own] for _, pid, gpus in found[begin + 1 : end])
    assert any(pid in {job.pid for job in later} for _, pid, _ in found[begin:end])  # on the other GPU's second slot


def test_what_cannot_be_had_is_said() -> None:
    command = [sys.executable, str(SCRIPT), "--gpus", "0", "--count", "2", "--", "true"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 1 and done.stderr == "error: 2 GPUs of 0 cannot be had; name more, or ask for fewer\n"


def test_a_folder_of_somebody_else_is_said(tmp_path: Path) -> None:
    """The folder's name is known beforehand, and lies where every user may write."""
    (tmp_path / "slots").touch()
    command = [sys.executable, str(SCRIPT), "--gpus", "0", "--folder", str(tmp_path / "slots"), "--", "true"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 1
    assert done.stderr == f"error: cannot lock {tmp_path / 'slots'} (File exists); set TMPDIR to another folder\n"


def test_the_profile_puts_training_analysis_and_benchmark_into_slots(tmp_path: Path) -> None:
    """With the profile's own configuration, on top of the command line's; nothing else asks for a GPU."""
    for name in ("config", "profiles", "spfde", "workflow", "notebooks", "docs", "Snakefile", "environment.yml"):
        (tmp_path / name).symlink_to(ROOT / name)
    targets = ["table2", *(f"results/cifar100/{name}.csv" for name in ("bench", "analysis/figure1.cka"))]
    options = ["--profile", "profiles/gpu", "--config", "experiments=table2,figure1", "scale=cifar100"]
    done = subprocess.run(
        [sys.executable, "-m", "snakemake", "--dry-run", "--printshellcmds", *targets, *options],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
    )
    text = done.stdout + done.stderr
    assert done.returncode == 0, text
    slot = "python workflow/scripts/gpu_slot.py --gpus 0 --jobs-per-gpu 2 --count 1 -- python -m spfde"
    assert text.count(f"{slot} train --scale cifar100") == text.count("spfde train") > 10
    assert text.count(f"{slot} analyse cka --experiment figure1 --scale cifar100") == text.count("spfde analyse") == 1
    # With the scale's own batch size and the command's own steps and repeats, as a budget of time needs them.
    # It times: no other job may share its GPU.
    whole = slot.replace(" --count 1 --", " --count 1 --alone --")
    assert re.search(rf"{whole} bench epochs --scale cifar100 +--out results/cifar100/bench\.csv", text)
    jobs = [block for block in re.split(r"\n(?=(?:local)?rule )", text) if re.match("(local)?rule ", block)]
    asking = [job for job in jobs if "gpu=1" in job or "gpu=2" in job]
    assert [re.split(r"[ :]", job)[1] for job in jobs if "gpu=2" in job] == ["bench"]
    assert asking == [job for job in jobs if re.match("rule (train_|analyse:|bench:)", job)]
    assert len(asking) > 12
