"""Trains a scale's runs for days, in a git worktree and an environment of their own, without being in anybody's way.

    make campaign SCALE=cifar100-short DATA_ROOT=DIR

The worktree stands at a tag, `campaign-SCALE`, which the first call puts at the present commit: edits, tests, cleaning
and Snakemake's lock in this checkout do not meet the runs, and all of them are of one code. The runs are started by
plain Snakemake, niced, one thread each, in the order of the scale's tiers. Stop it at any moment; the same command goes
on. `make publish` takes over what is finished. It needs nothing but Python, git and make.
"""

import argparse
import fcntl
import os
import shlex
import subprocess
import sys
from pathlib import Path


def main() -> int:
    """Returns the exit status."""
    told = arguments()
    home = Path.cwd()
    folder = Path(told.folder or home.parent / f"{home.name}-campaign").resolve()
    tag = f"campaign-{told.scale}"
    # Before anything is moved: the code of runs must not change while they run.
    held = (folder / "results").is_dir()
    if held:
        hold(folder)
    if problem := prepare(folder, tag, told.move):
        print(f"error: {problem}", file=sys.stderr)
        return 1
    if not held:
        hold(folder)
    if status := subprocess.run(["make", "--no-print-directory", ".venv/.ready"], cwd=folder).returncode:
        return status
    return train(folder, told)


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Train a scale's runs in a worktree of their own.")
    parser.add_argument("--scale", required=True, help="a scale of config/scales")
    parser.add_argument("--data-root", type=Path, required=True, help="folder of the data sets")
    parser.add_argument("--experiments", default="all", help="experiments, separated by commas; all by default")
    parser.add_argument("--cores", default="all", help="runs at the same time")
    parser.add_argument("--folder", help="the worktree; by default beside this checkout")
    parser.add_argument("--move", action="store_true", help="move tag and worktree to this checkout's commit")
    return parser.parse_args()


def prepare(folder: Path, tag: str, move: bool) -> str:
    """Puts the worktree at the tag, and the tag at this commit where there is none; returns what stands in the way."""
    if move or not git("tag", "--list", tag):
        if git("status", "--porcelain", "--untracked-files=no"):
            return "this checkout has changes that are in no commit; commit them, so that the tag names what runs"
        git("-c", "tag.gpgsign=false", "tag", "--force", tag, "HEAD")  # a mark that nobody is asked to sign
    wanted = git("rev-parse", f"{tag}^{{commit}}")
    if not folder.exists():
        git("worktree", "add", "--detach", str(folder), tag)
    elif move:
        git("-C", str(folder), "checkout", "--detach", tag)
    stands = git("-C", str(folder), "rev-parse", "HEAD")
    if stands != wanted:
        return (
            f"{folder} stands at {stands[:10]}, {tag} at {wanted[:10]}; add MOVE=1 to go on with this checkout's "
            f"commit, or put the tag back: git tag --force {tag} {stands[:10]}"
        )
    return ""


def hold(folder: Path) -> None:
    """Locks the worktree's results for as long as this process, or what it becomes, lives; ends it where another does.

    A folder can be locked, and the lock dies with its holder. The worktree's own is locked to make the environment.
    """
    results = folder / "results"
    results.mkdir(exist_ok=True)
    lock = os.open(results, os.O_RDONLY)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        sys.exit(f"error: a campaign runs in {folder} already; stop it first, or let it run")
    os.set_inheritable(lock, True)


def train(folder: Path, told: argparse.Namespace) -> int:
    """Starts Snakemake in the worktree, in this process's place."""
    programs = folder / ".venv/bin"
    paths = f"{programs}{os.pathsep}{os.environ.get('PATH', '')}"
    modules = os.pathsep.join(filter(None, ["workflow/scripts", os.environ.get("PYTHONPATH")]))
    environment = {**os.environ, "PATH": paths, "PYTHONPATH": modules, "OMP_NUM_THREADS": "1"}
    config = [f"scale={told.scale}", f"experiments={told.experiments}", f"data_root={told.data_root.resolve()}"]
    command = [str(programs / "snakemake"), "trained", "--cores", told.cores, "--keep-going", "--rerun-incomplete"]
    command += ["--logger", "spfde", "--config", *config]
    # Nobody else works in this folder, as the lock shows: a lock of Snakemake's is of a campaign that was killed.
    subprocess.run([*command, "--unlock"], cwd=folder, env=environment, capture_output=True)
    print(f"in {folder}: {shlex.join(command)}", flush=True)
    os.nice(19)
    os.chdir(folder)
    os.execve(command[0], command, environment)


def git(*words: str) -> str:
    """What git prints; ends the program with git's message where it fails."""
    done = subprocess.run(["git", *words], capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"error: git {shlex.join(words)}: {done.stderr.strip()}")
    return done.stdout.strip()


if __name__ == "__main__":
    sys.exit(main())
