"""Makes the project's environment in .venv, with the pins of constraints.txt, and says how far it is.

    python3 workflow/scripts/environment.py

`make` runs it where .venv is missing or older than what it is made of. A second one that starts meanwhile waits and
finds the work done. An environment that was interrupted in the making is begun anew. It needs nothing but Python.
"""

import fcntl
import os
import re
import shutil
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable
from pathlib import Path

MADE_OF = ("pyproject.toml", "constraints.txt", "setup.py", "spfde/kernels/build.py", "spfde/kernels/cpp/*")
EVERY = 10.0  # seconds between lines while pip says nothing
LARGE = 20.0  # MB of a download that is worth a line
LAST_LINES = 30  # of pip's output where it fails


def main(home: Path = Path()) -> int:
    """Returns the exit status."""
    folder = os.open(home, os.O_RDONLY)  # a folder can be locked, and no file is left behind
    try:
        fcntl.flock(folder, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        say("waiting for the one who makes the environment already")
        fcntl.flock(folder, fcntl.LOCK_EX)
    return 0 if is_ready(home) else make(home)


def is_ready(home: Path) -> bool:
    ready = home / ".venv/.ready"
    files = (path for pattern in MADE_OF for path in home.glob(pattern))
    return ready.is_file() and all(ready.stat().st_mtime >= path.stat().st_mtime for path in files)


def make(home: Path) -> int:
    venv = home / ".venv"
    unfinished = venv / ".unfinished"
    if unfinished.exists():
        shutil.rmtree(venv)
    venv.mkdir(exist_ok=True)
    unfinished.touch()
    if not (venv / "bin/pip").exists():
        say("making .venv")
        # `make` puts .venv first on the path: this Python may be the one of the environment that was just removed.
        gone = Path(sys.executable).is_relative_to(venv.absolute())
        python = getattr(sys, "_base_executable", sys.executable) if gone else sys.executable
        if status := subprocess.run([python, "-m", "venv", ".venv"], cwd=home).returncode:
            return status
    pins = sum("==" in line for line in (home / "constraints.txt").read_text().splitlines())
    command = [".venv/bin/pip", "install", "--progress-bar", "off", "-e", ".[dev]", "-c", "constraints.txt"]
    pip = subprocess.Popen(command, cwd=home, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    assert pip.stdout
    last = follow(pip.stdout, Teller(pins, say))
    if status := pip.wait():
        print(*last, sep="\n", file=sys.stderr)
        return status
    # pip has built the kernels already, and is silent about why where it could not.
    subprocess.run([".venv/bin/python", "spfde/kernels/build.py"], cwd=home)
    unfinished.rename(venv / ".ready")
    say("the environment is ready")
    return 0


class Teller:
    """Says how far pip is, in a line every few seconds at most."""

    def __init__(self, packages: int, tell: Callable[[str], None]) -> None:
        """
        Args:
            packages: how many packages there are at most.
            tell: takes a line for people.
        """
        self.packages, self.tell = packages, tell
        self.seen: set[str] = set()
        self.doing = "finding out what is needed"
        self.told = time.monotonic()

    def hear(self, line: str) -> None:
        """Takes a line of pip's."""
        word, _, rest = line.strip().partition(" ")
        if word in ("Collecting", "Requirement"):
            name = re.split(r"[\s=<>!~;(\[]", rest.removeprefix("already satisfied: "))[0]
            self.seen.add(name.lower())
            self.doing = f"at {name}"
        elif word in ("Downloading", "Using") and (size := re.search(r"\(([\d.]+) MB\)", rest)):
            if float(size[1]) >= LARGE:
                name = rest.removeprefix("cached ").split()[0].rpartition("/")[2].partition("-")[0]
                self.say(f"{name} has {float(size[1]):.0f} MB")
        elif line.startswith("Installing collected packages"):
            self.doing = "installing them takes a minute or two"
            self.say(self.doing)

    def beat(self) -> None:
        """Says something where nothing has been said for a while."""
        if time.monotonic() - self.told >= EVERY:
            self.say(self.doing)

    def say(self, text: str) -> None:
        self.told = time.monotonic()
        self.tell(f"{len(self.seen)} of {self.packages} packages, {text}")


def follow(lines: Iterable[str], teller: Teller) -> deque[str]:
    """Tells how far pip is, by its output; returns the last lines of it."""
    last: deque[str] = deque(maxlen=LAST_LINES)
    over = threading.Event()

    def beat() -> None:
        while not over.wait(1):
            teller.beat()

    threading.Thread(target=beat, daemon=True).start()
    try:
        for line in lines:
            last.append(line.rstrip())
            teller.hear(line)
    finally:
        over.set()
    return last


def say(text: str) -> None:
    print(f"environment: {text}", flush=True)


if __name__ == "__main__":
    sys.exit(main())
