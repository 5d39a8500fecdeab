"""The SLURM profile on a real SLURM: a cluster of one node, which the test starts in a folder of its own.

Debian: apt-get install slurm-wlm munge. Nothing of the machine's own SLURM is read or changed.
"""

import getpass
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing
from pathlib import Path

import pandas as pd
import pytest
import yaml

from spfde.data import load
from spfde.experiments.resolve import expand
from spfde.training.loop import train

ROOT = Path(__file__).parents[2]
DAEMONS = ("munged", "slurmctld", "slurmd")
PATHS = os.pathsep.join([os.environ["PATH"], "/usr/sbin", "/usr/local/sbin"])
MISSING = [name for name in DAEMONS if shutil.which(name, path=PATHS) is None]
CONFIGURATION = """
ClusterName=test
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={controller}
SlurmdPort={node}
SlurmUser={user}
SlurmdUser={user}
AuthType=auth/munge
AuthInfo=socket={home}/munge.socket
CryptoType=crypto/munge
MpiDefault=none
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
AccountingStorageType=accounting_storage/none
JobAcctGatherType=jobacct_gather/none
SlurmdParameters=config_overrides
StateSaveLocation={home}/state
SlurmdSpoolDir={home}/spool
SlurmctldPidFile={home}/slurmctld.pid
SlurmdPidFile={home}/slurmd.pid
SlurmctldLogFile={home}/slurmctld.log
SlurmdLogFile={home}/slurmd.log
ReturnToService=2
NodeName={host} NodeAddr=127.0.0.1 CPUs=2 RealMemory=16000 State=UNKNOWN
PartitionName=main Nodes={host} Default=YES MaxTime=INFINITE State=UP
"""
TINY = {"rows": [{"method": "spfde", "sparsities": [0.9], "set": {"training.epochs": 240}}]}

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(bool(MISSING), reason=f"needs SLURM: {', '.join(MISSING)} not installed"),
]


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The folder of a running cluster, with its slurm.conf."""
    home = tmp_path_factory.mktemp("slurm")
    for name in ("state", "spool"):
        (home / name).mkdir()
    key = home / "munge.key"
    key.write_bytes(os.urandom(128))
    key.chmod(0o400)
    with ExitStack() as ports:
        controller, node = (ports.enter_context(closing(socket.socket())) for _ in range(2))
        for port in (controller, node):
            port.bind(("127.0.0.1", 0))
        numbers = {"controller": controller.getsockname()[1], "node": node.getsockname()[1]}
    host = socket.gethostname().split(".")[0]
    text = CONFIGURATION.format(home=home, host=host, user=getpass.getuser(), **numbers)
    (home / "slurm.conf").write_text(text)
    files = [f"--{name}={home}/munge.{end}" for name, end in {"socket": "socket", "key-file": "key"}.items()]
    files += [f"--{name}-file={home}/munge.{name}" for name in ("pid", "log", "seed")]
    commands = [["munged", "--foreground", "--force", *files], ["slurmctld", "-D", "-i"], ["slurmd", "-D", "-N", host]]
    environment = {**os.environ, "PATH": PATHS, "SLURM_CONF": str(home / "slurm.conf")}
    # Snakemake takes SLURM's variables out of the jobs' environment; where SLURM is set up, srun needs none.
    (home / "bin").mkdir()
    srun = home / "bin/srun"
    srun.write_text(f'#!/bin/sh\nSLURM_CONF={home}/slurm.conf exec {shutil.which("srun")} "$@"\n')
    srun.chmod(0o755)
    daemons: list[subprocess.Popen[bytes]] = []
    try:
        for command in commands:
            with (home / f"{command[0]}.out").open("wb") as out:
                daemons.append(subprocess.Popen(command, env=environment, stdout=out, stderr=subprocess.STDOUT))
            time.sleep(1)
        wait_until_idle(home, environment)
        yield home
    finally:
        for daemon in reversed(daemons):
            daemon.send_signal(signal.SIGTERM)
            daemon.wait(20)


def wait_until_idle(home: Path, environment: dict[str, str]) -> None:
    until, said = time.monotonic() + 60, ""
    while time.monotonic() < until:
        done = subprocess.run(["sinfo", "-h", "-o", "%T"], env=environment, capture_output=True, text=True)
        said = done.stdout + done.stderr
        if done.stdout.strip() == "idle":
            return
        time.sleep(1)
    logs = "\n".join(path.read_text(errors="replace")[-2000:] for path in [*home.glob("*.out"), *home.glob("*.log")])
    raise AssertionError(f"the cluster did not start: {said}\n{logs}")


def test_a_run_that_its_time_limit_stops_goes_on_in_another_job(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without accounting and without GPUs, as docs/clusters.md says; the result is that of an undisturbed run."""
    for name in ("config/experiments", "config/scales"):
        (tmp_path / name).mkdir(parents=True)
    for name in ("profiles", "spfde", "workflow", "notebooks", "Snakefile", "environment.yml"):
        (tmp_path / name).symlink_to(ROOT / name)
    (tmp_path / "config/config.yaml").symlink_to(ROOT / "config/config.yaml")
    (tmp_path / "config/scales/smoke.yaml").symlink_to(ROOT / "config/scales/smoke.yaml")
    for path in (ROOT / "config/experiments").glob("*.yaml"):  # which the scale names
        (tmp_path / "config/experiments" / path.name).symlink_to(path)
    (tmp_path / "config/experiments/tiny.yaml").write_text(yaml.safe_dump(TINY))
    monkeypatch.chdir(tmp_path)
    (run,) = expand("smoke", "tiny", [1])
    record = tmp_path / "results/smoke/runs" / run.run_id
    command = [sys.executable, "-m", "snakemake", f"results/smoke/runs/{run.run_id}/summary.json"]
    command += ["--profile", "profiles/slurm", "--slurm-status-command", "squeue"]
    command += ["--slurm-init-seconds-before-status-checks", "2", "--latency-wait", "5", "--retries", "30"]
    command += ["--config", "scale=smoke", "experiments=tiny", "seeds=1", "gpus_per_run=0", "time_limit=2"]
    environment = {
        **os.environ,
        "PYTHONPATH": str(ROOT),
        "SLURM_CONF": str(home / "slurm.conf"),
        "OMP_NUM_THREADS": "1",
        "PATH": f"{home}/bin{os.pathsep}{os.environ['PATH']}",
    }
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=600)
    log = (home / "slurmctld.log").read_text()
    assert done.returncode == 0, done.stdout + done.stderr + log[-3000:]
    assert log.count("sched: Allocate JobId=") >= 2, log[-3000:]

    undisturbed = train(run, load(run.data, None, None), tmp_path / "undisturbed")
    for name in ("epochs.csv", "layers.csv"):
        pd.testing.assert_frame_equal(pd.read_csv(record / name), pd.read_csv(undisturbed / name), check_exact=True)
    assert (record / "model.safetensors").read_bytes() == (undisturbed / "model.safetensors").read_bytes()
    assert yaml.safe_load((record / "summary.json").read_text())["resumed_from"]
