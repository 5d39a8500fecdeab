"""Table 2 of the SpFDE paper (arXiv 2209.11204): accuracy, training FLOPs and memory of every method and level."""

import math
from typing import Any

import pandas as pd

from spfde.results.labels import label, levels, percent
from spfde.results.material import COSTS, Material
from spfde.results.published import LEGEND
from spfde.results.tables.table import (
    NOT_AVAILABLE,
    NOT_RUN,
    Column,
    Table,
    bytes_unit,
    decimals,
    exponent,
    plus_minus,
    times_ten,
)

EXPERIMENT = "table2"
FLOPS = ["flops.paper", "flops.full", "flops.executed"]
MEMORY = ["memory.paper_min", "memory.paper_avg", "memory.full_peak"]


def build(material: Material) -> Table:
    """Rows in the plan's order. What was not run says so and has the plan's costs; costs of a run are the record's."""
    power = exponent(material.costs(row)["flops.paper"] for row in material.plan)
    return Table(
        name="table2",
        title=f"Accuracy, training FLOPs and memory (scale {material.scale})",
        values=pd.DataFrame([_values(material, row) for row in material.plan]),
        columns=_columns(material, power),
        seeds=seeds(material),
        notes=_notes(material, power),
        parted_by="method",
    )


def seeds(material: Material) -> pd.DataFrame:
    """The values a seed behind the table, in the plan's order."""
    columns = ["row", "seed", "run_id", "accuracy.test_last", *COSTS]
    order = {row["row"]: index for index, row in enumerate(material.plan)}
    runs = material.runs[material.runs["row"].isin(list(order))]
    return runs.sort_values(["row", "seed"], key=lambda key: key.map(order) if key.name == "row" else key)[columns]


def _values(material: Material, row: dict[str, Any]) -> dict[str, Any]:
    accuracy = material.accuracy(row)
    values = {
        "row": row["row"],
        "method": label(row),
        **{key: row[key] for key in ("sparsity", "freezing", "sieving")},
        "status": "run" if accuracy.n else NOT_RUN,
        **{f"accuracy.{key}": value for key, value in accuracy._asdict().items()},
        "costs_from": "records" if accuracy.n else "plan",
        **material.costs(row),
    }
    for quantity in ("accuracy", "training_flops") if material.comparable else ():
        published = material.published(row, quantity)
        keys = [f"published.{quantity}.{part}" for part in ("value", "std", "standing")]
        values |= dict(zip(keys, published or (math.nan, math.nan, ""), strict=True))
    return values


def _columns(material: Material, power: int) -> list[Column]:
    costs = [material.costs(row) for row in material.plan]
    size = exponent(cost[name] for cost in costs for name in MEMORY)
    flops = f"Training FLOPs ({times_ten(power)})"
    memory = f"Memory ({bytes_unit(size)})"

    def scaled(name: str, power: int, digits: int, alike: list[str]) -> Any:
        places = decimals((cost[other] for cost in costs for other in alike), power, digits)
        return lambda row: f"{row[name] / 10**power:.{places}f}"

    def share(name: str) -> Any:
        return lambda row: percent(row[name], none="–")

    def published(quantity: str, power: int) -> Any:
        def text(row: dict[str, Any]) -> str:
            value, std, standing = (row[f"published.{quantity}.{part}"] for part in ("value", "std", "standing"))
            if not standing:
                return NOT_AVAILABLE
            number = plus_minus(value, std) if quantity == "accuracy" else f"{value / 10**power:.4g}"
            return f"{number} ({standing})"

        return text

    def accuracy(row: dict[str, Any]) -> str:
        return plus_minus(row["accuracy.mean"], row["accuracy.std"]) if row["accuracy.n"] else NOT_RUN

    columns = [
        Column("Method", lambda row: row["method"], numeric=False),
        Column("Sparsity", share("sparsity")),
        Column("Freezing", share("freezing")),
        Column("Sieving", share("sieving")),
        Column("mean ± std", accuracy, "Test accuracy (%)"),
        Column("n", lambda row: str(row["accuracy.n"]), "Test accuracy (%)"),
        *(Column(name.split(".")[1], scaled(name, power, 3, FLOPS), flops) for name in FLOPS),
        *(
            Column(title, scaled(name, size, 2, MEMORY), memory)
            for title, name in zip(("paper, min", "paper, avg", "full, peak"), MEMORY, strict=True)
        ),
    ]
    if material.comparable:
        columns.insert(6, Column("published", published("accuracy", 0), "Test accuracy (%)"))
        columns.insert(10, Column("published", published("training_flops", power), flops))
    return columns


def _notes(material: Material, power: int) -> list[str]:
    run = material.runs[material.runs["row"].isin([row["row"] for row in material.plan])]
    used = ", ".join(str(seed) for seed in sorted(run["seed"].unique())) or "none"
    notes = [
        f"Accuracy: test set, after the last epoch; mean ± sample standard deviation over n seeds ({used}). "
        "Freezing: share of the training FLOPs it is to remove; sieving: share of the training set removed.",
        "FLOPs: *paper* counts 2 a MAC, the backward pass as twice the forward of every unfrozen block, at the density "
        "that is trained; *full* counts the exact backward pass and the work that published rows leave out; *executed* "
        "is what masked dense kernels ran. Memory: *paper* is weights, activations and their gradients in fp32, the "
        "minimum and the average over the epochs; *full* is everything that training keeps, at its peak. "
        "Rows that were not run have the costs of the plan.",
    ]
    if not material.comparable:
        return [
            *notes,
            "Numbers on this scale test the machinery; published values stand only beside the scales of the papers.",
        ]
    return [*notes, LEGEND, *_differences(material, power)]


def _differences(material: Material, power: int) -> list[str]:
    """Why the SpFDE rows cost other than published, where the published hints are there to compare with."""

    def number(flops: float) -> str:
        return f"{flops / 10**power:.4g}"

    sentences = []
    for row in material.plan:
        cost = material.costs(row)["flops.paper"]
        base = {**row, "row": "", "method": "mest-ems", "freezing": 0, "sieving": 0}
        mest, ratio = material.published(base, "training_flops"), material.published(row, "training_flops_vs_mest")
        itself = material.published(row, "training_flops") if row["method"] == "spfde" else None
        if itself:
            expected, text = itself.value, f"a published {number(itself.value)} ({itself.standing})"
        elif mest and ratio:
            expected = ratio.value * mest.value
            text = f"{ratio.value:.2g} ({ratio.standing}) × {number(mest.value)} ({mest.standing}) = {number(expected)}"
        else:
            continue
        sentences.append(
            f"{label(row)} {levels(row)} at {percent(row['sparsity'])} costs {number(cost)} in *paper*, "
            f"{100 * (cost / expected - 1):+.1f}% against {text}; freezing removes "
            f"{100 * row['freezing_achieved']:.1f}% of the FLOPs where {percent(row['freezing'])} are wanted."
        )
    if sentences:
        sentences.append(
            "Why these differ: freezing begins only on the grid of the update interval, and the first convolution is "
            "counted dense. The published hints cannot both hold for one schedule of MEST+EM&S scaled by "
            "(1 - x)(1 - y), and the densities that the paper counted are not available."
        )
    return [f"FLOPs {times_ten(power)}: " + " ".join(sentences)] if sentences else []
