"""Every row of docs/refusals.md: what it says is refused is refused, with the message that the page has."""

from pathlib import Path

import pytest

from tests.refusals.table import AREAS, PAGE, collected, row

REFUSALS = collected()


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", REFUSALS)
def test_refusal(name: str, tmp_path: Path) -> None:
    refusal = REFUSALS[name]
    message = refusal.message(tmp_path)
    cause, _, remedy = message.partition("; ")
    assert cause and remedy and "\n" not in message
    expected = row(refusal, message)
    assert expected in PAGE.read_text().splitlines(), f"run `python -m tests.refusals`; now it is\n{expected}"


def test_the_page_has_these_rows_and_no_others() -> None:
    lines = PAGE.read_text().splitlines()
    rows = [line for line in lines if line.startswith("| ") and not line.startswith(("| What", "| ---"))]
    assert [line.split("|")[-2].strip(" `") for line in rows] == [
        each.name for area in AREAS for each in REFUSALS.values() if each.area == area
    ], "run `python -m tests.refusals`"
    assert len(rows) >= 60 and f"Here are {len(rows)} of them" in PAGE.read_text()
