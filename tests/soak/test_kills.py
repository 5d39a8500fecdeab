"""A hundred kills at random moments: what comes out is what an undisturbed run makes, bit for bit.

SPFDE_SOAK_KILLS sets how many there are in all: 100 unless given. They are shared out over training (with snapshots,
with data streamed by workers, with two processes of one run), accounting, collecting, rendering, and Snakemake itself.
The moments are drawn from a fixed seed, between the start of a command and the end that it has undisturbed.
"""

import importlib.util
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

ROOT = Path(__file__).parents[2]
KILLS = int(os.environ.get("SPFDE_SOAK_KILLS", "100"))
SHARES = {"snapshots": 25, "streamed": 15, "two": 15, "account": 10, "collect": 10, "render": 10, "snakemake": 15}
SPFDE = [sys.executable, "-m", "spfde"]

pytestmark = pytest.mark.soak


def kills(name: str) -> int:
    """How many of all kills a command gets."""
    return max(1, KILLS * SHARES[name] // sum(SHARES.values()))


class Soak:
    """A command in a folder of its own.

    Args:
        folder: the working directory.
        command: what is run, killed, and run again.
        made: what it makes: the paths whose contents are compared, as patterns.
        leaves_out: a name that holds this differs between equal runs (times).
        before: a command that is run after each kill.
    """

    def __init__(
        self, folder: Path, command: list[str], made: list[str], leaves_out: str = "summary", before: Sequence[str] = ()
    ) -> None:
        self.folder, self.command, self.made, self.leaves_out, self.before = folder, command, made, leaves_out, before
        self.environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}

    def start(self) -> subprocess.Popen[bytes]:
        log = (self.folder / "soak.log").open("ab")
        return subprocess.Popen(
            self.command, cwd=self.folder, env=self.environment, stdout=log, stderr=log, start_new_session=True
        )

    def run(self) -> float:
        """Runs it to its end; the seconds that it took."""
        begun = time.monotonic()
        process = self.start()
        assert process.wait() == 0, (self.folder / "soak.log").read_text()[-3000:]
        return time.monotonic() - begun

    def results(self) -> dict[str, bytes]:
        """What there is for others to see: checkpoints, locks and what is half written are hidden."""
        paths = {path.relative_to(self.folder) for pattern in self.made for path in self.folder.glob(pattern)}
        return {
            path.as_posix(): (self.folder / path).read_bytes()
            for path in sorted(paths)
            if not any(part.startswith(".") for part in path.parts)
            and (self.folder / path).is_file()
            and self.leaves_out not in path.name
        }

    def reset(self) -> None:
        """Removes what it made, with all that belongs to it."""
        for pattern in self.made:
            for path in list(self.folder.glob(pattern.partition("/**")[0])):
                shutil.rmtree(path) if path.is_dir() else path.unlink()

    def disturb(self, name: str, processes: int = 1) -> None:
        """Kills it at random moments, and checks what comes out at the end."""
        took, draws, done = self.run(), random.Random(name), 0
        expected = self.results()
        assert expected
        self.reset()
        while done < kills(name):
            running = [self.start() for _ in range(processes)]
            time.sleep(draws.uniform(0, took))
            victims = draws.sample(running, draws.randint(1, processes))
            for process in victims:
                done += process.poll() is None
                _kill(process, group=draws.random() < 0.7)
            for process in set(running) - set(victims):
                assert process.wait() == 0, (self.folder / "soak.log").read_text()[-3000:]
            if self.before:
                subprocess.run(self.before, cwd=self.folder, env=self.environment, check=True, capture_output=True)
            if self._whole(expected):
                self.reset()
        self.run()
        assert self._whole(expected)
        left = [path for path in self.folder.rglob(".*.part") if "snakemake" not in path.parts]
        assert not left
        print(f"{name}: {done} kills")

    def _whole(self, expected: dict[str, bytes]) -> bool:
        """Whether all is there; what is there must be right at any time."""
        found = self.results()
        wrong = [path for path, data in found.items() if expected.get(path) != data]
        assert not wrong, wrong
        return found.keys() == expected.keys()


def _kill(process: subprocess.Popen[bytes], group: bool) -> None:
    """SIGKILL to a process, or to it and all that it has started."""
    if process.poll() is None:
        os.killpg(process.pid, signal.SIGKILL) if group else process.kill()
    process.wait()
    if not group:  # what it left behind ends by itself
        while _lives(process.pid):
            time.sleep(0.1)


def _lives(group: int) -> bool:
    try:
        os.killpg(group, 0)
    except (ProcessLookupError, PermissionError):
        return False
    return True


def training(told: dict[str, Any]) -> list[str]:
    words = [word for key, value in told.items() for word in ("--set", f"{key}={value}")]
    return [*SPFDE, "train", "--scale", "smoke", *words, "--device", "cpu", "--kernels", "dense", "--out", "out"]


TOLD = {"sparsity.method": "spfde", "freezing.flops_reduction": 0.1, "training.epochs": 20, "training.batch_size": 16}


def test_training_with_snapshots(tmp_path: Path) -> None:
    Soak(tmp_path, training({**TOLD, "training.snapshots": 2}), ["out/**/*"]).disturb("snapshots")


def test_training_with_streamed_data(tmp_path: Path) -> None:
    draws = np.random.default_rng(0)
    for part, count in (("train", 30), ("val", 4)):
        for label in "ab":
            folder = tmp_path / ".data" / "shapes" / part / label
            folder.mkdir(parents=True)
            for number in range(count):
                pixels = draws.integers(0, 256, (40, 40, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(folder / f"{number}.png")
    description = "classes: 2\nsize: 16\ntrain_samples: 60\ntest_samples: 8\nstreamed: true\n"
    (tmp_path / "config" / "data").mkdir(parents=True)
    (tmp_path / "config" / "data" / "shapes.yaml").write_text(description)
    told = {**TOLD, "data.name": "shapes", "training.batch_size": 8, "training.epochs": 12, "sparsity.interval": 2}
    Soak(tmp_path, training(told), ["out/**/*"]).disturb("streamed")


def test_two_processes_of_one_run(tmp_path: Path) -> None:
    Soak(tmp_path, training(TOLD), ["out/**/*"]).disturb("two", processes=2)


@pytest.fixture
def recorded(tmp_path: Path) -> Path:
    """A folder with fake records of Table 2, and its plan."""
    spec = importlib.util.spec_from_file_location("fakes", ROOT / "tests" / "results" / "conftest.py")
    assert spec and spec.loader
    make = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(make)
    runs = [run for run in make.rows("smoke") if run.sparsity.target in (0.0, 0.9)]
    make.write_plan(tmp_path / "results", "smoke", runs)
    for run in runs:
        make.write_record(run, tmp_path / "results" / "smoke" / "runs")
    return tmp_path


def test_accounting(tmp_path: Path) -> None:
    """Of real records: fake ones have no layers of a network."""
    for seed in (1, 2, 3):
        assert Soak(tmp_path, [*training({**TOLD, "training.epochs": 3}), "--seed", str(seed)], []).run()
    home = tmp_path / "results" / "smoke"
    home.mkdir(parents=True)
    (tmp_path / "out").rename(home / "runs")
    command = [*SPFDE, "cost", "--scale", "smoke", "--results", "results", "--out", "results/smoke/costs.csv"]
    Soak(tmp_path, command, ["results/smoke/costs.csv"]).disturb("account")


def test_collecting(recorded: Path) -> None:
    command = [*SPFDE, "collect", "--scale", "smoke", "--results", "results"]
    Soak(recorded, command, ["results/smoke/runs.csv"]).disturb("collect")


@pytest.mark.parametrize(("kind", "name"), [("table", "table2"), ("figure", "tradeoff")])
def test_rendering(recorded: Path, kind: str, name: str) -> None:
    command = [*SPFDE, kind, name, "--scale", "smoke", "--results", "results"]
    Soak(recorded, command, [f"results/smoke/{kind}s/{name}.*"]).disturb("render")


def test_snakemake(tmp_path: Path) -> None:
    """The pipeline of one table, at a few epochs: training, accounting and rendering, several jobs at once."""
    for name in ("config", "notebooks", "profiles", "spfde", "workflow"):
        shutil.copytree(ROOT / name, tmp_path / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("Snakefile", "environment.yml"):
        shutil.copy(ROOT / name, tmp_path)
    (tmp_path / "config/scales/smoke.yaml").write_text(
        "settings:\n"
        "  data: {name: digits, padding: 1, flip: false, train_limit: 256}\n"
        "  model: {name: resnet8, width: 0.5}\n"
        "  sparsity: {interval: 2}\n"
        "  training: {epochs: 8, batch_size: 64}\n"
        "sparsities: [0.9]\nlevels: [0.1]\nruns_per_job: 4\n"
    )
    command = [sys.executable, "-m", "snakemake", "--cores", "2", "--config", "scale=smoke", "experiments=table2"]
    soak = Soak(
        tmp_path,
        [*command, "--", "table2"],
        ["results/smoke/runs/**/*", "results/smoke/tables/*", "results/smoke/costs.csv"],
        before=[*command, "--unlock"],
    )
    soak.environment["PYTHONPATH"] = str(tmp_path)
    soak.disturb("snakemake")
