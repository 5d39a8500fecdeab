"""A campaign trains in a worktree of its own, at a tag, whatever happens to the checkout meanwhile."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "workflow/scripts/campaign.py"
# Stands for Snakemake: notes how it was started, and waits where it is told to.
SNAKEMAKE = """#!{python}
import json, os, pathlib, sys, time
if "--unlock" not in sys.argv:
    pathlib.Path("started.json").write_text(json.dumps([sys.argv[1:], os.nice(0), os.environ["OMP_NUM_THREADS"]]))
    while pathlib.Path("wait").exists():
        time.sleep(0.05)
"""
MAKEFILE = """.venv/.ready:
\tflock --nonblock . true
\tmkdir -p .venv/bin && cp snakemake .venv/bin/ && chmod +x .venv/bin/snakemake && touch .venv/.ready
"""

SIGNED = (("tag.gpgsign", "true"), ("gpg.program", "false"))  # as people set it who sign; no key is at hand here


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    home = tmp_path / "project"
    home.mkdir()
    git(home, "init", "--quiet")
    for key, value in (("user.name", "A"), ("user.email", "a@example.org"), ("commit.gpgsign", "false"), *SIGNED):
        git(home, "config", key, value)
    (home / "Makefile").write_text(MAKEFILE)
    (home / "snakemake").write_text(SNAKEMAKE.format(python=sys.executable))
    (home / ".gitignore").write_text(".venv\nresults\nstarted.json\nwait\n")
    git(home, "add", ".")
    git(home, "commit", "--quiet", "-m", "first")
    return home


def git(home: Path, *words: str) -> str:
    return subprocess.run(["git", *words], cwd=home, check=True, capture_output=True, text=True).stdout.strip()


def campaign(home: Path, *options: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(SCRIPT), "--scale", "mine", "--data-root", "data", *options]
    return subprocess.run(command, cwd=home, capture_output=True, text=True)


def test_it_runs_at_the_tag_niced_with_a_thread_per_run(checkout: Path) -> None:
    done = campaign(checkout, "--experiments", "pilot", "--cores", "2")
    assert done.returncode == 0, done.stderr
    words, niceness, threads = json.loads((checkout.parent / "project-campaign/started.json").read_text())
    assert words[:3] == ["trained", "--cores", "2"]
    assert words[-3:] == ["scale=mine", "experiments=pilot", f"data_root={checkout / 'data'}"]
    assert niceness == min(19, os.nice(0) + 19) and threads == "1"
    assert git(checkout, "rev-parse", "campaign-mine") == git(checkout, "rev-parse", "HEAD")


def test_a_newer_commit_moves_it_on_purpose_only(checkout: Path) -> None:
    folder = checkout.parent / "elsewhere"
    first = git(checkout, "rev-parse", "HEAD")
    campaign(checkout, "--folder", str(folder))
    (checkout / "Makefile").write_text(MAKEFILE + "# newer\n")
    assert campaign(checkout, "--folder", str(folder)).returncode == 0  # changes here do not meet it
    moving = campaign(checkout, "--folder", str(folder), "--move")
    assert moving.returncode == 1 and "has changes that are in no commit" in moving.stderr
    git(checkout, "commit", "--quiet", "-a", "-m", "second")
    campaign(checkout, "--folder", str(folder))
    assert git(folder, "rev-parse", "HEAD") == first
    assert campaign(checkout, "--folder", str(folder), "--move").returncode == 0
    assert git(folder, "rev-parse", "HEAD") == git(checkout, "rev-parse", "HEAD")
    git(checkout, "-c", "tag.gpgsign=false", "tag", "--force", "campaign-mine", first)
    moved = campaign(checkout, "--folder", str(folder))
    assert moved.returncode == 1 and "add MOVE=1" in moved.stderr


def test_a_second_one_in_the_same_folder_says_so_and_moves_nothing(checkout: Path) -> None:
    folder = checkout.parent / "project-campaign"
    campaign(checkout)
    (folder / "wait").touch()
    command = [sys.executable, str(SCRIPT), "--scale", "mine", "--data-root", "data"]
    with subprocess.Popen(command, cwd=checkout, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as first:
        assert first.stdout
        for line in first.stdout:  # it prints its command once it holds the lock
            if "trained" in line:
                break
        second = campaign(checkout)
        runs_on = git(folder, "rev-parse", "HEAD")
        git(checkout, "commit", "--quiet", "--allow-empty", "-m", "newer")
        moving = campaign(checkout, "--move")
        stands, tag = git(folder, "rev-parse", "HEAD"), git(checkout, "rev-parse", "campaign-mine")
        (folder / "wait").unlink()
    for refused in (second, moving):
        assert refused.returncode == 1 and "runs in" in refused.stderr and "already" in refused.stderr
    assert stands == tag == runs_on  # the code of what runs was not taken away from under it
    assert first.returncode == 0
    assert campaign(checkout, "--move").returncode == 0
    assert git(folder, "rev-parse", "HEAD") == git(checkout, "rev-parse", "HEAD") != runs_on
