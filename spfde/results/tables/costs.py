"""Rows with their accuracy and all their costs: training FLOPs in three columns, and memory."""

import math
from collections.abc import Callable, Sequence
from typing import Any

import pandas as pd

from spfde.results.labels import CONTROL_NOTE, is_control, label, percent
from spfde.results.material import COSTS, Material
from spfde.results.reference import LEGEND, ReferenceValue, recipe_notes, said_of
from spfde.results.tables.table import (
    NOT_AVAILABLE,
    Column,
    Table,
    bytes_unit,
    cost_text,
    decimals,
    exponent,
    plus_minus,
    times_ten,
)

Row = dict[str, Any]
FLOPS = ["flops.paper", "flops.full", "flops.executed"]
MEMORY = ["memory.paper_min", "memory.paper_avg", "memory.full_peak"]
ACCURACY = "Test accuracy (%)"


def table(
    name: str,
    title: str,
    material: Material,
    notes: Sequence[str] = (),
    own: Callable[[Row], Row] = lambda row: {},
    more: Sequence[Column] = (),
    plain: Callable[[Row], Row] = lambda row: row,
    quantities: Sequence[str] = ("accuracy", "training_flops"),
) -> Table:
    """Rows in the plan's order. A row that was not run says so and shows planned costs; other rows show recorded ones.

    Args:
        name: file name without suffix.
        title: one line.
        material: what the rows are made of.
        notes: sentences of this table alone.
        own: values of this table alone, by planned row; a value of the same name replaces the shared one.
        more: columns that show them, put after the sparsity.
        plain: turns a row into the one to look up in the reference; by default a row with a tag has no reference value.
        quantities: the reference quantities to look up, where the scale is comparable; accuracy and training FLOPs have
            a column here.
    """
    power = flops_power(material)
    values = [
        {**_values(material, row), **own(row), **_reference(material, plain(row), quantities)} for row in material.plan
    ]
    return Table(
        name=name,
        title=f"{title} (scale {material.scale})",
        values=pd.DataFrame(values),
        columns=_columns(material, power, more, quantities if material.comparable else ()),
        seeds=_seeds(material),
        notes=[*_notes(material), *recipe_notes(row.get("reference.accuracy.recipe", "") for row in values), *notes],
        parted_by="method",
    )


def flops_power(material: Material) -> int:
    """The power of ten that training FLOPs print in."""
    return exponent(material.costs(row)["flops.paper"] for row in material.plan)


def reference_text(row: Row, quantity: str, power: int = 0) -> str:
    """A reference value of a table's row with its standing, e.g. "71.30 ± 0.31 (unverified)"; see `said_of`."""
    found = ReferenceValue(*(row[f"reference.{quantity}.{part}"] for part in ReferenceValue._fields))
    if not found.standing:
        return NOT_AVAILABLE
    number = plus_minus(found.value, found.std) if quantity == "accuracy" else f"{found.value / 10**power:.4g}"
    return f"{number} ({said_of(found)})"


def _seeds(material: Material) -> pd.DataFrame:
    """The values of each seed behind the table, in the plan's order."""
    columns = ["row", "seed", "run_id", "accuracy.test_last", *COSTS]
    order = {row["row"]: index for index, row in enumerate(material.plan)}
    runs = material.runs[material.runs["row"].isin(list(order))]
    return runs.sort_values(["row", "seed"], key=lambda key: key.map(order) if key.name == "row" else key)[columns]


def _values(material: Material, row: Row) -> Row:
    accuracy = material.accuracy(row)
    return {
        "row": row["row"],
        "method": label(row),
        **{key: row[key] for key in ("sparsity", "freezing", "sieving")},
        "seconds_per_epoch": material.seconds(row),
        "status": "run" if accuracy.n else material.absent(row),
        "runs": material.count(row),
        **{f"accuracy.{key}": value for key, value in accuracy._asdict().items()},
        "costs_from": "records" if accuracy.n else "plan",
        **material.costs(row),
    }


def _reference(material: Material, row: Row, quantities: Sequence[str]) -> Row:
    values: Row = {}
    for quantity in quantities if material.comparable else ():
        found = material.reference_value(row, quantity)
        keys = [f"reference.{quantity}.{part}" for part in ReferenceValue._fields]
        values |= dict(zip(keys, found or ReferenceValue(math.nan, math.nan, ""), strict=True))
    return values


def _columns(material: Material, power: int, more: Sequence[Column], quantities: Sequence[str]) -> list[Column]:
    costs = [material.costs(row) for row in material.plan]
    size = exponent(cost[name] for cost in costs for name in MEMORY)
    flops = f"Training FLOPs ({times_ten(power)})"
    memory = f"Memory ({bytes_unit(size)})"

    def scaled(name: str, power: int, digits: int, alike: list[str]) -> Any:
        places = decimals((cost[other] for cost in costs for other in alike), power, digits)
        return lambda row: cost_text(row[name] / 10**power, f".{places}f")

    def share(name: str) -> Any:
        return lambda row: percent(row[name], none="–")

    def reference(quantity: str, power: int, group: str) -> list[Column]:
        column = Column("reference", lambda row: reference_text(row, quantity, power), group)
        return [column] if quantity in quantities else []

    def accuracy(row: Row) -> str:
        return plus_minus(row["accuracy.mean"], row["accuracy.std"]) if row["accuracy.n"] else row["status"]

    def known(row: Row) -> bool:
        return not math.isnan(material.seconds(row))

    def seconds(row: Row) -> str:
        return "–" if math.isnan(row["seconds_per_epoch"]) else f"{row['seconds_per_epoch']:.3g}"

    return [
        Column("Method", lambda row: row["method"], numeric=False),
        Column("Sparsity", share("sparsity")),
        *more,
        Column("Freezing", share("freezing")),
        Column("Sieving", share("sieving")),
        Column("mean ± std", accuracy, ACCURACY),
        Column("n", lambda row: row["runs"], ACCURACY),
        *reference("accuracy", 0, ACCURACY),
        *(Column(name.split(".")[1], scaled(name, power, 3, FLOPS), flops) for name in FLOPS),
        *reference("training_flops", power, flops),
        *(
            Column(title, scaled(name, size, 2, MEMORY), memory)
            for title, name in zip(("paper, min", "paper, avg", "full, peak"), MEMORY, strict=True)
        ),
        *([Column("Seconds per epoch", seconds)] if any(map(known, material.plan)) else []),
    ]


def _notes(material: Material) -> list[str]:
    run = material.runs[material.runs["row"].isin([row["row"] for row in material.plan])]
    used = ", ".join(str(seed) for seed in sorted(run["seed"].unique())) or "none"
    notes = [
        f"Accuracy: test set, after the last epoch; mean ± sample standard deviation over n seeds ({used}). "
        "Freezing: share of the training FLOPs it is to remove; sieving: share of the training set removed.",
        "FLOPs: *paper* counts 2 a MAC, the backward pass as twice the forward of every unfrozen block, at the density "
        "that is trained; *full* counts the exact backward pass and the work that published rows leave out (dense "
        "gradients, scoring, earlier rounds, mask updates); *executed* is what the hardware ran: of a "
        "record as its trace says, of a plan masked dense kernels. Memory: "
        "*paper* is weights, activations and their gradients in fp32, the minimum and the average over the epochs; "
        "*full* is everything that training keeps, at its peak, earlier rounds and scoring included. "
        "Rows that were not run have the costs of the plan; where layer densities depend on the data (SNIP, GraSP, "
        "lottery, DSR, SWAT-M, GSE) no plan knows them, and they depend on the mask.",
    ]
    if any(is_control(row) for row in material.plan):
        notes.append(CONTROL_NOTE)
    if any(not math.isnan(material.seconds(row)) for row in material.plan):
        notes.append(
            "Seconds per epoch: steps as `spfde bench steps` measured them at each density and number of frozen "
            "blocks, as many as the trace has of each; evaluation is not in it."
        )
    if not material.comparable:
        return [*notes, material.standing]
    return [*notes, LEGEND]
