"""The names that tables and figures print."""

from collections.abc import Mapping, Sequence
from typing import Any


def label(row: Mapping[str, Any]) -> str:
    """A planned row's method by its title in the registry, e.g. "SpFDE".

    Where freezing or sieving is around another method: "RigL + SpFDE".
    """
    name = str(row["title"])
    if row["method"] != "spfde" and (row["freezing"] or row["sieving"]):
        name += " + SpFDE"
    return f"{name} ({tag(row)})" if tag(row) else name


def tag(row: Mapping[str, Any]) -> str:
    """The end of a row's name that distinguishes it from others of the same method and shares, e.g. "" or "readme"."""
    parts = [row["method"]]
    parts += [f"{letter}{100 * row[key]:.4g}" for letter, key in SHARES.items() if row[key]]
    return str(row["row"]).removeprefix("-".join(parts)).removeprefix("-")


CONTROL = "random"  # the end of the tag of a row whose sieve chooses at random
CONTROL_NOTE = (
    "*random*: the control of data sieving, beside the row that it is of: the same number of samples leaves and comes "
    "back, chosen at random."
)


def is_control(row: Mapping[str, Any]) -> bool:
    """Whether a planned row is the control of a row with sieving: the same, with a random choice."""
    return bool(row["sieving"]) and tag(row).split(".")[-1] == CONTROL


def with_controls_beside(rows: Sequence[Mapping[str, Any]]) -> list[Any]:
    """The planned rows in their order, with every control right after the row that it is of."""
    controls = {str(row["row"])[: -len(CONTROL) - 1]: row for row in rows if is_control(row)}
    named = {row["row"] for row in rows}
    ordered: list[Any] = []
    for row in rows:
        if not is_control(row):
            ordered += [row, controls[row["row"]]] if row["row"] in controls else [row]
        elif str(row["row"])[: -len(CONTROL) - 1] not in named:
            ordered.append(row)
    return ordered


SHARES = {"s": "sparsity", "f": "freezing", "d": "sieving"}


def levels(row: Mapping[str, Any]) -> str:
    """The paper's notation x%+y%: training FLOPs that freezing removes + training data that sieving removes."""
    return f"{percent(row['freezing'])}+{percent(row['sieving'])}"


def percent(share: float, none: str = "0%") -> str:
    """A share as percent, e.g. "20%"; `none` for 0."""
    return f"{100 * share:.4g}%" if share else none


def scheme(name: str) -> str:
    """A freezing scheme's printed name."""
    return {
        "single-shot": "Single-shot",
        "single-shot-resume": "Single-shot & resume",
        "periodic": "Periodic",
        "delayed-periodic": "Delayed periodic",
        "random": "Random epochs (control)",
        "adaptive": "Gradient norms (control)",
    }.get(name, name)
