"""The questions that the protocol of a reduced study asks, each with what its runs answer so far."""

import math
from typing import Any

import pandas as pd

from spfde.errors import NotAtThisScale
from spfde.results.material import Material
from spfde.results.reduced import answers
from spfde.results.sources import Sources
from spfde.results.tables.table import NOT_RUN, Column, Table
from spfde.results.trend import told

SHOWN = ("id", "asks", "says", "test", "verdict", "reason", "n", "effect", "low", "high", "level", "margin", "power")
OF = {"pooled": "pooled_interval", "images": "new_images"}
NOTES = [
    "The answers are those of this reduced scale, at the looks of its protocol: before the first look, and between "
    "looks, every one is *undecided (interim)*, whatever the numbers are. Where fewer seeds are planned than a look "
    "needs, it stays *undecided*.",
    "*More accurate* is decided by superiority: supported where the difference is shown to be above 0, not supported "
    "where it is shown to be below the smallest effect of interest. *Costs no accuracy* is decided by non-inferiority: "
    "supported where the difference is shown to be above minus the margin, and at least half of what 0+0 gains over "
    "static is kept.",
    "Difference: of the means, in points of test accuracy after the last epoch, with Welch's interval at the level of "
    "the tests. *Pooled*: with one variance for all rows. *New images*: by a crossed bootstrap over runs and test "
    "images (conservative); the others are for this test set. Power: the probability to show it "
    "where it is true, with as many seeds as every row has that the answer rests on, the static mask among them; or "
    "with those of the first look where that is less than two.",
]


def build(material: Material) -> Table:
    """A row for each question, in the order of the protocol.

    Raises:
        NotAtThisScale: the scale has no protocol that asks any.
    """
    found = answers(material.scale, material.results)
    if not found:
        remedy = "name a scale that has them in config/claims.yaml"
        raise NotAtThisScale(f"scale {material.scale} has no protocol that asks questions", remedy)
    level = next((entry["level"] for entry in found), 0.0)
    within = f"Difference in accuracy (points) [{100 * (1 - 2 * level):g} %]"
    columns = [
        Column("Question", lambda row: str(row["asks"])),
        Column("What yes would say", lambda row: row["says"], numeric=False, wraps=True),
        Column("Answer", lambda row: row["verdict"], numeric=False),
        Column("n", _count),
        Column("Welch", _difference, within),
        Column("pooled", _interval("pooled"), within),
        Column("new images", _interval("images"), within),
        Column("Margin", lambda row: f"{row['margin']:g}"),
        Column("Power", lambda row: "–" if math.isnan(row["power"]) else f"{row['power']:.2f}"),
        Column("Why", lambda row: row["reason"] or "–", numeric=False, wraps=True),
    ]
    lines = list(dict.fromkeys(told(entry["trend"]) for entry in found if entry["trend"]))
    runs = Sources(material.scale, material.results).runs(material.scale)
    seeds = runs[runs["row"].isin([row for entry in found for row in entry["pair"]])]
    title = "Questions of the study, and what the runs answer"
    values = pd.DataFrame([_values(entry) for entry in found])
    return Table("study", title, values, columns, seeds, [*NOTES, *lines, material.standing], "asks")


def _values(entry: dict[str, Any]) -> dict[str, Any]:
    ends = {
        f"{name}_{end}": value
        for name in ("pooled", "images")
        for end, value in zip(("low", "high"), entry[OF[name]] or (math.nan, math.nan), strict=True)
    }
    row, other = entry["pair"]
    counts = {key: entry["evidence"][key] for key in ("diverged", "runs")}
    return {"row": row, "other": other, **{key: entry[key] for key in SHOWN}, **ends, **counts}


def _count(row: dict[str, Any]) -> str:
    return f"{row['n']} ({row['diverged']} of {row['runs']} diverged)" if row["diverged"] else str(row["n"])


def _difference(row: dict[str, Any]) -> str:
    if math.isnan(row["effect"]):
        return NOT_RUN
    return f"{row['effect']:+.2f}" + ("" if math.isnan(row["low"]) else f" {_between(row['low'], row['high'])}")


def _interval(name: str) -> Any:
    def text(row: dict[str, Any]) -> str:
        low, high = row[f"{name}_low"], row[f"{name}_high"]
        return "–" if math.isnan(low) else _between(low, high)

    return text


def _between(low: float, high: float) -> str:
    return f"[{low:+.2f}, {high:+.2f}]"
