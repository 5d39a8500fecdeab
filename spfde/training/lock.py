"""Only one process at a time works on a run: a lock file, released by the system when its holder ends in any way."""

import contextlib
import errno
import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from spfde.errors import SpfdeError, Stopped
from spfde.files import disk_errors
from spfde.training.clock import Clock
from spfde.training.distributed import Team
from spfde.training.progress import say

PERIOD = 0.5  # seconds between two tries


@contextmanager
def alone(path: Path, name: str, team: Team, clock: Clock) -> Iterator[None]:
    """Holds the lock of a run. While another process holds it, this says so once and waits.

    When several processes train together, the first one holds the lock for all.

    Args:
        path: of the run's checkpoint; the lock file is a hidden file beside it.
        name: of the run.
        team: the processes that train it together.
        clock: its time limit or a signal also ends the waiting.

    Raises:
        Stopped: the time limit or a signal ended the waiting.
        SpfdeError: the lock file cannot be made.
    """
    lock = Lock(lock_of(path))
    told = False
    try:
        while not team.first(lock.take() if team.rank == 0 else True):
            if not told:
                say(f"{name}: another process trains this run; waiting until it ends")
                told = True
            if team.any(bool(clock.stopped)):
                cause = f"{name} stopped by {clock.stopped or 'another process'} while another process trains it"
                raise Stopped(cause, "run the same command again")
            time.sleep(PERIOD)
        yield
    finally:
        lock.release()


def lock_of(path: Path) -> Path:
    """The lock file of a run: a hidden file beside its checkpoint."""
    return path.with_name(f".{path.stem}.lock")


class Lock:
    """An exclusive lock on a file that is created for the lock and removed with it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._file: int | None = None

    def take(self) -> bool:
        """Tries to take the lock, without waiting; returns whether it is held now."""
        with disk_errors(self.path):
            self.path.parent.mkdir(parents=True, exist_ok=True)
            file = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NONBLOCK, 0o666)
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            # Its last holder may have removed the file between our opening it and our locking it.
            held = os.fstat(file).st_ino == os.stat(self.path).st_ino
        except (BlockingIOError, FileNotFoundError):
            held = False
        except OSError as error:
            os.close(file)
            if error.errno in (errno.ENOLCK, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS):
                cause = f"the file system of {self.path.parent} has no locks ({error.strerror})"
                raise SpfdeError(cause, "give --out a folder on another file system") from None
            raise
        if not held:
            os.close(file)
            return False
        self._file = file
        # Workers that decode images are forks of this process: they must not keep the lock when it is killed.
        os.register_at_fork(after_in_child=self._forget)
        return True

    def release(self) -> None:
        if self._file is not None:
            with contextlib.suppress(OSError):
                self.path.unlink()
            self._forget()

    def _forget(self) -> None:
        if self._file is not None:
            os.close(self._file)
            self._file = None
