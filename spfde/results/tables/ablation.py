"""Rows, each compared with another row: accuracy and its paired difference, FLOPs and their ratio."""

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import pandas as pd

from spfde.results.labels import CONTROL_NOTE, is_control, label, percent, tag
from spfde.results.material import COSTS, Material
from spfde.results.reference import LEGEND, ReferenceValue, recipe_notes, said_of
from spfde.results.statistics import paired
from spfde.results.tables.table import NOT_AVAILABLE, NOT_RUN, Column, Table, cost_text, exponent, plus_minus, times_ten

Row = dict[str, Any]
PAIRED = (
    "Difference: test accuracy minus that of the row compared with, in points, paired by seed, with its 95 % "
    "interval (Student's t; none from a single seed). Ratio: training FLOPs (*paper* column) over those of "
    "the row compared with."
)


class Pair(NamedTuple):
    """A planned row, its name, and the planned row that it is compared with (None: with nothing)."""

    row: Row
    name: str
    base: Row | None


class Quantities(NamedTuple):
    """The names that reference values of a column have in the reference; none: there are none."""

    accuracy: str = "accuracy"
    difference: str = ""
    ratio: str = ""


REFERENCE = Quantities()


def table(
    name: str,
    title: str,
    material: Material,
    pairs: Sequence[Pair],
    notes: Sequence[str] = (),
    quantities: Quantities = REFERENCE,
    more: Sequence[Column] = (),
    parted_by: str = "",
) -> Table:
    """A table of such pairs; `more` are columns of the plan's own values, put after the levels."""
    values = pd.DataFrame([_values(material, pair, quantities) for pair in pairs])
    power = exponent(values["flops.paper"]) if len(values) else 0
    group = f"Training FLOPs ({times_ten(power)})"
    columns = [
        Column("Row", lambda row: row["name"], numeric=False),
        *(Column(key.title(), _share(key)) for key in ("sparsity", "freezing", "sieving")),
        *more,
        Column("mean ± std", _accuracy, "Test accuracy (%)"),
        Column("n", lambda row: row["runs"], "Test accuracy (%)"),
        *_reference(material, values, "accuracy", "Test accuracy (%)"),
        Column("paired [95 %]", _difference, "Difference (points)"),
        *_reference(material, values, "difference", "Difference (points)"),
        Column("paper", lambda row: cost_text(row["flops.paper"] / 10**power, ".3f"), group),
        Column("ratio", _number("flops.ratio", ".3f"), group),
        *_reference(material, values, "ratio", group),
    ]
    shown = material.runs[material.runs["row"].isin([pair.row["row"] for pair in pairs])]
    seeds = shown[["row", "seed", "run_id", "accuracy.test_last", *COSTS]].sort_values(["row", "seed"])
    recipes = [] if values.empty else recipe_notes(values["reference.accuracy.recipe"])
    control = [CONTROL_NOTE] if any(is_control(pair.row) for pair in pairs) else []
    said = [PAIRED, *notes, *control, LEGEND if material.comparable else material.standing, *recipes]
    return Table(name, f"{title} (scale {material.scale})", values, columns, seeds, said, parted_by)


def against_first(material: Material, alike: Callable[[Row], Any], name: Callable[[Row], str]) -> list[Pair]:
    """Pairs each row of the plan with the first row that is `alike`; that first row itself is compared with nothing."""
    first: dict[Any, Row] = {}
    pairs = []
    for row in material.plan:
        base = first.setdefault(alike(row), row)
        pairs.append(Pair(row, name(row), None if base is row else base))
    return pairs


def untouched(row: Row) -> str:
    """The name of a row by what it does, e.g. "sieving: random" with a tag; rows of other methods have their title."""
    if row["method"] != "spfde":
        return label(row)
    name = " and ".join(word for word in ("freezing", "sieving") if row[word]) or "neither"
    return f"{name}: {tag(row)}" if tag(row) else name


def with_decided(material: Material, pairs: Sequence[Pair]) -> list[Pair]:
    """The pairs, each row with `decided`: the share of the sieve's choices that its score decided, mean over runs."""

    def share(row: Row) -> float:
        runs = material.of(row)
        return float(runs[DECIDED].mean()) if row["sieving"] and DECIDED in runs else math.nan

    return [pair._replace(row={**pair.row, "decided": share(pair.row)}) for pair in pairs]


def tagged(row: Row) -> str:
    """A row's title with its tag, e.g. "SpFDE: easy"."""
    return f"{row['title']}: {tag(row)}" if tag(row) else str(row["title"])


def _values(material: Material, pair: Pair, quantities: Quantities) -> Row:
    row, base = pair.row, pair.base
    accuracy = material.accuracy(row)
    difference = paired(material.runs, row["row"], base["row"]) if base else None
    costs = material.costs(row)
    values = {
        **row,
        "name": pair.name,
        "against": base["row"] if base else "",
        "status": "run" if accuracy.n else material.absent(row),
        "runs": material.count(row),
        **{f"accuracy.{key}": value for key, value in accuracy._asdict().items()},
        **{f"difference.{key}": value for key, value in (difference._asdict() if difference else {}).items()},
        **costs,
        "flops.ratio": costs["flops.paper"] / material.costs(base)["flops.paper"] if base else math.nan,
    }
    del values["flops"], values["memory"]
    for column, quantity in quantities._asdict().items():
        found = material.reference_value(row, quantity) if quantity else None
        values |= {
            f"reference.{column}.{key}": value for key, value in (found or ReferenceValue(*_NONE))._asdict().items()
        }
    return values


DECIDED = "sieving.decided"
DECIDED_COLUMN = Column(
    "by the score", lambda row: "–" if math.isnan(row["decided"]) else f"{100 * row['decided']:.0f}%", "Sieve decided"
)
DECIDED_NOTE = (
    "Sieve decided by the score: share of the samples leaving at an exchange that their score singled out, mean over "
    "exchanges and seeds; chance drew the others among samples of equal score."
)
_NONE = (math.nan, math.nan, "")


def _share(name: str) -> Callable[[Row], str]:
    return lambda row: percent(row[name], none="–")


def _accuracy(row: Row) -> str:
    return plus_minus(row["accuracy.mean"], row["accuracy.std"]) if row["accuracy.n"] else str(row["status"])


def _difference(row: Row) -> str:
    if not row["against"]:
        return "–"
    if not row["difference.n"]:
        return NOT_RUN
    interval = (
        "" if math.isnan(row["difference.low"]) else f" [{row['difference.low']:+.2f}, {row['difference.high']:+.2f}]"
    )
    return f"{row['difference.mean']:+.2f}{interval}"


def _number(name: str, form: str) -> Callable[[Row], str]:
    return lambda row: "–" if math.isnan(row[name]) else f"{row[name]:{form}}"


def _reference(material: Material, values: pd.DataFrame, column: str, group: str) -> list[Column]:
    """The column of reference values, where the scale is comparable and there is one."""
    key = f"reference.{column}"
    if not material.comparable or values.empty or not (values[f"{key}.standing"] != "").any():
        return []

    def text(row: Row) -> str:
        found = ReferenceValue(*(row[f"{key}.{part}"] for part in ReferenceValue._fields))
        return f"{plus_minus(found.value, found.std)} ({said_of(found)})" if found.standing else NOT_AVAILABLE

    return [Column("reference", text, group)]
