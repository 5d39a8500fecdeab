"""When a run writes a checkpoint, and when it has to stop."""

import signal
import time
from types import FrameType

SHARE = 0.05  # the share of the time that checkpoints may take


class Clock:
    """Checkpoints every so many seconds of training; a stop at a time limit or at a signal.

    Args:
        every: seconds between checkpoints; more if writing one takes long, so that it takes a small share of the time.
        limit: seconds from now after which runs stop; None means no limit.
    """

    def __init__(self, every: float = 5.0, limit: float | None = None) -> None:
        self.every = every
        self.limit = limit
        self.started = self.last = self.asked = time.monotonic()
        self.took = 0.0  # seconds that writing the last checkpoint took
        self.signal = ""

    def listen(self) -> None:
        """From now on SIGTERM and SIGUSR1 stop the run at its next step (SLURM sends them before it kills)."""
        for number in (signal.SIGTERM, signal.SIGUSR1):
            signal.signal(number, self._heard)

    def _heard(self, number: int, _: FrameType | None) -> None:
        self.signal = signal.Signals(number).name

    @property
    def stopped(self) -> str:
        """The reason to stop, or None."""
        if self.signal:
            return self.signal
        over = self.limit is not None and time.monotonic() - self.started >= self.limit
        return f"the time limit of {self.limit:g} s" if over else ""

    def due(self) -> bool:
        """Whether a checkpoint should be written now."""
        self.asked = time.monotonic()
        return bool(self.stopped) or self.asked - self.last >= max(self.every, self.took / SHARE)

    def saved(self) -> None:
        """Notes that the checkpoint that was due has been written."""
        self.last = time.monotonic()
        self.took = self.last - self.asked
