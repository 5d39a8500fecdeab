"""Reference values and their standing: how sure we are that the number is the paper's.

The file (config/reference.csv) has one row for each value: artefact, dataset, model, method, sparsity, freezing,
sieving, quantity, unit, low, high, std, standing, note.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

import pandas as pd

from spfde.configuration import config_file
from spfde.errors import SpfdeError
from spfde.files import read_csv

STANDINGS = {
    "F": "found",
    "D": "derived",
    "R": "unverified",
    "2nd": "second-hand",
}
LEGEND = (
    "Standing of a reference value: *found* in a source that was read; *derived* from found values; *unverified*: "
    "recalled, not found in a source, so no verdict rests on it; *second-hand*: somebody else's statement."
)
KEYS = ["method", "sparsity", "freezing", "sieving"]


class ReferenceValue(NamedTuple):
    """A reference value in its unit; `std` is NaN where none is given."""

    value: float
    std: float
    standing: str


class Range(NamedTuple):
    """A reference range that holds over several rows."""

    low: float
    high: float
    standing: str


def read() -> pd.DataFrame:
    """The reference values: config/reference.csv of the working folder, or else the one that comes with the code.

    Raises:
        SpfdeError: a standing that is not known.
    """
    path = config_file("reference.csv")
    values = read_csv(path, "reference values", "mend the file", dtype={"standing": str}, keep_default_na=True)
    for standing in values.get("standing", ["none"]):
        if standing not in STANDINGS:
            raise SpfdeError(f'standing "{standing}" in {path} is not known', f"use one of {', '.join(STANDINGS)}")
    return values


def lookup(values: pd.DataFrame, row: Mapping[str, Any], quantity: str) -> ReferenceValue | None:
    """The reference value of a row (method, sparsity, freezing, sieving as fractions), or None if there is none."""
    match = values["quantity"] == quantity
    match &= values["method"] == row["method"]
    for key in KEYS[1:]:
        match &= (values[key] - row[key]).abs() < 1e-9
    found = values[match]
    if found.empty:
        return None
    first = found.iloc[0]
    scale = float(first["unit"]) if quantity == "training_flops" else 1.0
    value = (first["low"] + first["high"]) / 2
    return ReferenceValue(float(value * scale), float(first["std"]), STANDINGS[first["standing"]])


def interval(values: pd.DataFrame, quantity: str) -> Range | None:
    """The reference range of a quantity over several rows, or None if there is none."""
    found = values[values["quantity"] == quantity]
    if found.empty:
        return None
    first = found.iloc[0]
    return Range(float(first["low"]), float(first["high"]), STANDINGS[first["standing"]])
