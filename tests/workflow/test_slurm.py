"""The SLURM profile against commands of SLURM's names that run a job right here."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from spfde.data import load
from spfde.errors import Stopped
from spfde.experiments.resolve import expand
from spfde.settings import RunSettings
from spfde.training import checkpoint
from spfde.training.clock import Clock
from spfde.training.loop import train

ROOT = Path(__file__).parents[2]
TINY = {"rows": [{"method": "static", "sparsities": [0.9], "set": {"training.epochs": 3}}]}

# The first job is lost with its node before it does anything; the others run here, in the background.
SBATCH = """#!/bin/sh
cd "$(dirname "$0")" && here=$PWD && cd "$OLDPWD"
for word; do case $word in --wrap=*) job=${word#--wrap=};; esac; done
id=$(($(ls "$here/states" | wc -l) + 1))
echo "$@" > "$here/calls/$id"
if [ $id = 1 ]; then
  echo NODE_FAIL > "$here/states/$id"
else
  echo RUNNING > "$here/states/$id"
  (
    if SLURM_JOB_ID=$id sh -c "$job"; then echo COMPLETED; else echo FAILED; fi > "$here/states/$id.new"
    mv "$here/states/$id.new" "$here/states/$id"
  ) > "$here/calls/$id.log" 2>&1 < /dev/null &
fi
echo $id
"""
SACCT = """#!/bin/sh
cd "$(dirname "$0")/states" || exit 1
case "$*" in
  *JobIdRaw*) for id in *; do echo "$id|$(cat "$id")"; done;;
  *Account*) echo research;;
  *) echo node1;;
esac
"""
# As soon as the job has started its command, all processes of the step get the signal that comes before a time limit.
SRUN = """#!/bin/sh
while case $1 in -*) true;; *) false;; esac; do shift; done
setsid "$@" &
step=$!
for _ in $(seq 600); do ls results/smoke/logs/train/tiny/*.log > /dev/null 2>&1 && break; sleep 0.1; done
kill -USR1 -$step
wait $step
"""
COMMANDS = {
    "sbatch": SBATCH,
    "sacct": SACCT,
    "srun": SRUN,
    "sinfo": "#!/bin/sh\necho PARTITION; echo 'main*'\n",
    "squeue": "#!/bin/sh\n",
    "scontrol": "#!/bin/sh\n",
    "scancel": "#!/bin/sh\n",
    "sacctmgr": "#!/bin/sh\necho research\n",
    "sshare": "#!/bin/sh\necho research\n",
}


class Cluster:
    """A project folder with one tiny experiment, and SLURM's commands on the path."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.home = folder / "project", folder / "slurm"
        for name in ("config/experiments", "config/scales"):
            (self.folder / name).mkdir(parents=True)
        for name in ("profiles", "spfde", "workflow", "notebooks", "docs", "Snakefile", "environment.yml"):
            (self.folder / name).symlink_to(ROOT / name)
        (self.folder / "config/config.yaml").symlink_to(ROOT / "config/config.yaml")
        (self.folder / "config/scales/smoke.yaml").symlink_to(ROOT / "config/scales/smoke.yaml")
        for path in (ROOT / "config/experiments").glob("*.yaml"):  # which the scale names
            (self.folder / "config/experiments" / path.name).symlink_to(path)
        (self.folder / "config/experiments/tiny.yaml").write_text(yaml.safe_dump(TINY))
        for name in ("states", "calls"):
            (self.home / name).mkdir(parents=True)
        for name, text in COMMANDS.items():
            (self.home / name).write_text(text)
            (self.home / name).chmod(0o755)

    @property
    def run(self) -> RunSettings:
        (run,) = expand("smoke", "tiny", [1])
        return run

    def snakemake(self, *options: str) -> str:
        profile = ["--profile", "profiles/slurm", "--config", "scale=smoke", "experiments=tiny", "seeds=1"]
        target = f"results/smoke/runs/{self.run.run_id}/summary.json"
        done = subprocess.run(
            [sys.executable, "-m", "snakemake", target, *profile, *options],
            cwd=self.folder,
            env={**os.environ, "PYTHONPATH": str(ROOT), "PATH": f"{self.home}{os.pathsep}{os.environ['PATH']}"},
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout + done.stderr


@pytest.fixture
def cluster(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Cluster:
    cluster = Cluster(tmp_path)
    monkeypatch.chdir(cluster.folder)
    return cluster


def test_a_dry_run_asks_for_time_memory_and_a_gpu(cluster: Cluster) -> None:
    text = cluster.snakemake("--dry-run", "--printshellcmds")
    (training,) = re.findall(r"^rule train_tiny.*?(?=\n\n)", text, re.MULTILINE | re.DOTALL)
    for wanted in ("gpu=1", "runtime=1440", "mem_mb=4000", "slurm_extra='--signal=USR1@300'"):
        assert wanted in training
    limit = int(re.search(r"--time-limit (\d+)", text)[1])
    assert 600 <= 60 * 1440 - limit <= 3600  # time to write a checkpoint, not much more
    assert not list((cluster.home / "states").iterdir())


def test_a_lost_job_is_submitted_again_and_goes_on_from_its_checkpoint(cluster: Cluster) -> None:
    run = cluster.run
    runs = cluster.folder / "results/smoke/runs"
    with pytest.raises(Stopped):  # as a job does that reaches its time limit or hears SIGTERM
        train(run, load(run.data, None, None), runs, clock=Clock(limit=0))
    assert checkpoint.path_of(runs, run.run_id).exists()

    # Nobody dies of the warning: training that already listens would stop with a checkpoint, and go on in a third job.
    cluster.snakemake("--slurm-init-seconds-before-status-checks", "1", "--latency-wait", "5")
    states = {path.name: path.read_text().strip() for path in (cluster.home / "states").iterdir()}
    assert states == {"1": "NODE_FAIL", "2": "COMPLETED"}  # data were prepared without a job
    call = (cluster.home / "calls/2").read_text()
    for option in ("-t 1440", "--mem 4000", "--gpus=1", "-p main", "--signal=USR1@300"):
        assert option in call
    summary = json.loads((runs / run.run_id / "summary.json").read_text())
    assert summary["resumed_from"] == [{"epoch": 0, "step": 1}]
