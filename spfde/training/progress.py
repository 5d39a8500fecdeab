"""Progress of a run: a bar on a terminal, plain lines in a log."""

import sys
import time

from torch import distributed
from tqdm import tqdm


class Progress:
    """A bar of steps where stderr is a terminal; else a line per epoch, at most every ten seconds, and for the last."""

    PERIOD = 10.0

    def __init__(self, name: str, epochs: int, steps: int) -> None:
        self.name = name
        self.epochs = epochs
        self.steps = steps
        self.last = time.monotonic()
        shown = sys.stderr.isatty() and speaks()
        self.bar = tqdm(total=epochs * steps, desc=name, unit="step", dynamic_ncols=True, disable=not shown)

    def begin(self, epoch: int, done: int) -> None:
        self.bar.n = self.bar.last_print_n = epoch * self.steps + done

    def step(self) -> None:
        self.bar.update()

    def end(self, epoch: int, train_loss: float, test_accuracy: float) -> None:
        text = f"loss {train_loss:.3f}, test {test_accuracy:.2f} %"
        if not self.bar.disable:
            self.bar.set_postfix_str(f"epoch {epoch + 1}/{self.epochs}, {text}")
        elif epoch + 1 == self.epochs or time.monotonic() - self.last >= self.PERIOD:
            self.last = time.monotonic()
            say(f"{self.name}: epoch {epoch + 1}/{self.epochs}, {text}")

    def close(self) -> None:
        self.bar.close()


def say(line: str) -> None:
    if speaks():
        print(line, file=sys.stderr, flush=True)


def speaks() -> bool:
    """Whether this process prints; when several train together, only the first one does."""
    return not distributed.is_initialized() or distributed.get_rank() == 0
