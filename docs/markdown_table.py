"""The Markdown tables of the pages that are generated."""

from collections.abc import Sequence


def table(head: tuple[str, ...], rows: Sequence[tuple[str, ...]], numbers: int = 0) -> str:
    """A Markdown table whose last `numbers` columns are aligned to the right."""
    rule = ("---",) * (len(head) - numbers) + ("---:",) * numbers
    lines: list[tuple[str, ...]] = [head, rule, *rows]
    return "".join(f"| {' | '.join(map(escaped, line))} |\n" for line in lines)


def escaped(cell: str) -> str:
    return cell.replace("|", r"\|")
