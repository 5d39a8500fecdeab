"""When a run writes a checkpoint, and when it has to stop."""

import signal
import time
from types import FrameType


class Clock:
    """Checkpoints every so many seconds of training; a stop at a time limit or at a signal.

    Args:
        every: seconds between checkpoints.
        limit: seconds after which runs stop, counted from here; none: no limit.
    """

    def __init__(self, every: float = 10.0, limit: float | None = None) -> None:
        self.every = every
        self.limit = limit
        self.started = self.last = time.monotonic()
        self.signal = ""

    def listen(self) -> None:
        """From now on SIGTERM and SIGUSR1 stop the run at its next step (SLURM sends them before it kills)."""
        for number in (signal.SIGTERM, signal.SIGUSR1):
            signal.signal(number, self._heard)

    def _heard(self, number: int, _: FrameType | None) -> None:
        self.signal = signal.Signals(number).name

    @property
    def stopped(self) -> str:
        """Why to stop, or nothing."""
        if self.signal:
            return self.signal
        over = self.limit is not None and time.monotonic() - self.started >= self.limit
        return f"the time limit of {self.limit:g} s" if over else ""

    def due(self) -> bool:
        """Whether a checkpoint is to be written now."""
        return bool(self.stopped) or time.monotonic() - self.last >= self.every

    def saved(self) -> None:
        self.last = time.monotonic()
