"""Reference values and their standing: how sure we are that the number is the paper's.

The file (config/reference.csv) has one row for each value: artefact, dataset, model, method, sparsity, freezing,
sieving, quantity, unit, low, high, std, standing, note, recipe (of training; empty where the number needs none).
"""

from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

import pandas as pd

from spfde.configuration import config_file
from spfde.errors import SpfdeError
from spfde.experiments.recipes import RECIPES
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


# Recipes of reference values that are no preset of `spfde.experiments.recipes`.
OTHER_RECIPES = {
    "rigl-imagenet": "RigL's ImageNet runs, Evci et al. 2020: 100 epochs in batches of 4096, steps",
    "swat-imagenet": "SWAT's ImageNet runs, Raihan and Aamodt 2020: 90 epochs in batches of 256, steps",
    "not stated": "the source of the value does not state it",
}


def recipe_notes(recipes: Iterable[str]) -> list[str]:
    """What the recipes are that reference values were published under, where they are not those of their rows."""
    named = sorted({recipe for recipe in recipes if recipe})
    if not named:
        return []
    sources = {name: recipe.source for name, recipe in RECIPES.items()} | OTHER_RECIPES
    said = "; ".join(f"*{name}*: {sources.get(name, 'not known here')}" for name in named)
    return [f"Reference accuracies of another training recipe than their row's are no measure of it. Recipes: {said}."]


class ReferenceValue(NamedTuple):
    """A reference value in its unit; `std` is NaN where none is given.

    `recipe` is the training recipe that it was published under; "" where that of its row is the same one.
    """

    value: float
    std: float
    standing: str
    recipe: str = ""


def said_of(found: ReferenceValue) -> str:
    """What is said of a reference value in parentheses: its standing, and its recipe where that is another one."""
    return f"{found.standing}; recipe {found.recipe}" if found.recipe else found.standing


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
    recipe = first.get("recipe")
    recipe = recipe if isinstance(recipe, str) else ""  # an empty cell is NaN
    return ReferenceValue(float(value * scale), float(first["std"]), STANDINGS[first["standing"]], recipe)


def interval(values: pd.DataFrame, quantity: str) -> Range | None:
    """The reference range of a quantity over several rows, or None if there is none."""
    found = values[values["quantity"] == quantity]
    if found.empty:
        return None
    first = found.iloc[0]
    return Range(float(first["low"]), float(first["high"]), STANDINGS[first["standing"]])
