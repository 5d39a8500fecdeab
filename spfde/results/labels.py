"""The names that tables and figures print."""

from collections.abc import Mapping
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
