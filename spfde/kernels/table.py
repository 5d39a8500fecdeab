"""What was measured on this machine: seconds of dense and of sparse kernels, by what they ran.

An entry is a small file of its own in the user's cache folder, written whole, so that several processes can use the
table at once: at worst two measure the same thing. The folder is named after all that a time depends on (processor,
instruction set, threads, version of torch, the kernels themselves), and machine.json in it says what that was.
"""

import functools
import hashlib
import json
import os
import platform
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from statistics import median
from typing import NamedTuple

from spfde.errors import SpfdeError
from spfde.files import write_json

FEWEST, MOST = 4, 24  # pairs of timings
STABLE = 0.04  # a ratio is known once half the spread of its middle half, over the root of n, is below this share
CLEAR = 1.15  # and what wins by more than this in every one of the fewest pairs needs no more of them


class Times(NamedTuple):
    """Seconds of the same work on sparse and on dense kernels, medians of interleaved timings."""

    sparse: float
    dense: float


def cache_folder() -> Path | None:
    """The folder of this project in the user's cache folder; none where the user has no home."""
    try:
        return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "spfde"
    except RuntimeError:  # HOME is not set, and the system knows no user of this number: so it is in some containers
        return None


@functools.cache
def processor() -> str:
    """The processor's name where the system tells it, else its architecture."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


class Table:
    """Times by the text that names what was timed.

    Args:
        machine: what the times depend on beside that text.
        folder: where tables are kept; the user's cache folder by default. Without either, the table lasts as long as
            this process.
    """

    def __init__(self, machine: Mapping[str, object], folder: Path | None = None) -> None:
        self.machine = {name: str(value) for name, value in machine.items()}
        named = json.dumps(self.machine, sort_keys=True)
        root = folder or ((cache := cache_folder()) and cache / "kernels")
        self.folder = root and root / _digest(named)
        self._known: dict[str, Times] = {}

    def find(self, work: str) -> Times | None:
        """The times of some work, if they are known; an entry that cannot be read is as good as none."""
        if work not in self._known:
            if self.folder is None:
                return None
            try:
                entry = json.loads(_file(self.folder, work).read_text(encoding="utf-8"))
                times = Times(float(entry["sparse"]), float(entry["dense"]))
            except (OSError, ValueError, KeyError, TypeError):
                return None
            if entry.get("work") != work or not min(times) > 0:
                return None
            self._known[work] = times
        return self._known[work]

    def keep(self, work: str, times: Times) -> None:
        """Adds an entry; where the folder cannot be written it lasts as long as this process."""
        self._known[work] = times
        if self.folder is None:
            return
        try:
            if not (self.folder / "machine.json").exists():
                write_json(self.folder / "machine.json", self.machine)
            write_json(_file(self.folder, work), {"work": work, **times._asdict()})
        except (OSError, SpfdeError):
            pass


def clock(threads: int) -> float:
    """Seconds. Of a single thread it is the time that the thread ran: neighbours on the machine do not count."""
    return time.thread_time() if threads == 1 else time.perf_counter()


def compare(pair: Callable[[], tuple[float, float]]) -> Times | None:
    """Times on sparse and on dense kernels, by turns until their ratio is known; none where it never is.

    Args:
        pair: runs both once and returns their seconds, sparse first. What it returns first is not counted: caches,
            buffers and code are still cold.
    """
    pair()
    pairs: list[tuple[float, float]] = []
    while len(pairs) < MOST:
        pairs.append(pair())
        if len(pairs) >= FEWEST and _known([dense / sparse for sparse, dense in pairs]):
            return Times(median(sparse for sparse, _ in pairs), median(dense for _, dense in pairs))
    return None


def _known(ratios: list[float]) -> bool:
    if min(ratios) > CLEAR or max(ratios) < 1 / CLEAR:
        return True
    low, middle, high = (sorted(ratios)[round(share * (len(ratios) - 1))] for share in (0.25, 0.5, 0.75))
    return (high - low) / 2 / middle / len(ratios) ** 0.5 < STABLE


def _file(folder: Path, work: str) -> Path:
    return folder / f"{_digest(work)}.json"


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:16]
