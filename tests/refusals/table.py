"""The table of refusals, docs/refusals.md: what each of them is provoked by, and what is printed.

    python -m tests.refusals

writes the page. Every row is a test of tests/test_refusals.py, which provokes it and compares what is printed with the
page; a row is a function here that takes an empty folder and has to end in an SpfdeError.
"""

from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path

from spfde.errors import SpfdeError

Provocation = Callable[[Path], object]
AREAS = {  # modules of this package, in the order of the page
    "own_models": "Your own model and optimizer",
    "own_loops": "Your own loop",
    "settings": "Settings",
    "command": "The command line",
    "data": "Data",
    "records": "Records, checkpoints and results",
}
ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs/refusals.md"
TEST = "tests/test_refusals.py::test_refusal"
HEAD = """# Refusals

What spfde cannot do right it refuses, with the cause and, after the semicolon, the remedy. Python raises them as
`spfde.errors.SpfdeError`; the command line prints `error: cause; remedy` and exits with code 2.
Here are {rows} of them with their messages as printed; paths stand as `DIR`. Each is provoked by the test of its row,
`{test}[name]`, which also compares the message with this page. The page is generated: `python -m tests.refusals`.
"""


@dataclass(frozen=True)
class Refusal:
    """One row: its area, the name of its test, what the user did, and how to do that."""

    area: str
    name: str
    what: str
    provoke: Provocation

    def message(self, folder: Path) -> str:
        """What is printed when it is provoked in an empty folder."""
        try:
            self.provoke(folder)
        except SpfdeError as error:
            return f"{error.cause}; {error.remedy}".replace(str(folder), "DIR").replace(str(ROOT), "DIR")
        raise AssertionError(f"{self.what} is not refused")


REFUSALS: dict[str, Refusal] = {}


def refusal(what: str) -> Callable[[Provocation], Provocation]:
    """Registers the decorated function as the provocation of a refusal."""

    def register(provoke: Provocation) -> Provocation:
        area = provoke.__module__.rpartition(".")[2]
        REFUSALS[provoke.__name__] = Refusal(area, provoke.__name__, what, provoke)
        return provoke

    return register


def row(refusal: Refusal, message: str) -> str:
    cells = (refusal.what, message, f"`{refusal.name}`")
    return f"| {' | '.join(cell.replace('|', chr(92) + '|').replace('<', '&lt;') for cell in cells)} |"


def page(messages: dict[str, str]) -> str:
    """The page, of the messages by name."""
    text = HEAD.format(rows=len(messages), test=TEST)
    for area, title in AREAS.items():
        text += f"\n## {title}\n\n| What | Message | Test |\n| --- | --- | --- |\n"
        text += "".join(f"{row(each, messages[each.name])}\n" for each in REFUSALS.values() if each.area == area)
    return text


def collected() -> dict[str, Refusal]:
    """All rows by name, in the order of the page."""
    for area in AREAS:
        import_module(f"{__package__}.{area}")
    return REFUSALS
