"""Expected failures: each carries its cause and the remedy, and the command line prints both as one line."""

import difflib
from collections.abc import Iterable
from typing import TypeVar

T = TypeVar("T")


class SpfdeError(Exception):
    """Bad input (settings, data, checkpoint, missing device, full disk): what is wrong and what to do about it."""

    exit_code = 2

    def __init__(self, cause: str, remedy: str) -> None:
        self.cause, self.remedy = _printable(cause), _printable(remedy)
        super().__init__(f"{self.cause}; {self.remedy}")


class SpfdeWarning(UserWarning):
    """Something that is done as asked, but is worth a second thought: what is the matter, and what would help."""


def _printable(text: str) -> str:
    """The text with control characters spelled out: what is quoted of bad input must not reach a terminal as it is."""
    return "".join(letter if letter.isprintable() or letter == "\n" else repr(letter)[1:-1] for letter in text)


class Stopped(SpfdeError):
    """A run that a time limit or a signal stopped at a point from which it can be resumed."""

    exit_code = 75


class Diverged(SpfdeError):
    """A run whose loss or weights became infinite or NaN; its record says so."""

    exit_code = 1


class OtherData(SpfdeError):
    """Settings of a data set whose description in config/data is another one now."""


class NotRun(SpfdeError):
    """What a result is made of was not run, or does not exist at its scale: tables and figures say so in its place.

    Attributes:
        state: what is printed in its place.
    """

    state = "not run"


class NotAtThisScale(NotRun):
    """A result that has no rows at the scale that is shown."""

    state = "not at this scale"


def nearest(word: str, known: Iterable[str]) -> str:
    """A remedy for an unknown name: the nearest known one, or the whole list.

    >>> nearest("sparsty", ["sparsity", "model"])
    'did you mean "sparsity"?'
    """
    names = sorted(known)
    if not names:
        return "there is none"
    matches = difflib.get_close_matches(word, names, n=1)
    return f'did you mean "{matches[0]}"?' if matches else f"use one of {', '.join(names)}"


def lookup(kind: str, name: str, registry: dict[str, T]) -> T:
    """The registry's entry of that name; an unknown one is an error that names the nearest."""
    if name not in registry:
        raise SpfdeError(f'unknown {kind} "{name}"', nearest(name, registry))
    return registry[name]
