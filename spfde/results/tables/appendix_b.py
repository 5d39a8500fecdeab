"""Appendix B of the SpFDE paper: the freezing schemes at equal training FLOPs, and controls for when blocks freeze."""

import math
from typing import Any

import pandas as pd

from spfde.results.labels import percent, scheme
from spfde.results.material import Material
from spfde.results.statistics import paired
from spfde.results.tables.table import Column, Table, decimals, exponent, plus_minus, times_ten


def build(material: Material) -> Table:
    """One row for each scheme, in the plan's order; differences are to the first, single-shot."""
    first = material.plan[0]
    power = exponent(material.costs(row)["flops.paper"] for row in material.plan)
    return Table(
        name="appendix_b",
        title=f"Freezing schemes at equal training FLOPs (scale {material.scale})",
        values=pd.DataFrame([_values(material, row) for row in material.plan]),
        columns=_columns(material, power),
        seeds=seeds(material),
        notes=[
            f"{percent(first['sparsity'])} sparsity, all training data. Accuracy: test set, after the last epoch; mean "
            "± sample standard deviation over n seeds; the difference to single-shot is paired by seed, with the 95% "
            "interval of its mean where there are several seeds.",
            "FLOPs: *paper* column; *saved* is against the same run without freezing. Every scheme is solved to what "
            "single-shot achieves on the grid of the update interval, within 1% of the FLOPs.",
            "The controls freeze the same blocks in the same order, at epochs drawn by the run's seed (*random*) or "
            "chosen among such draws in training (*gradient norms*: a block freezes once its gradients have fallen "
            "more than those of the blocks that still train); their first frozen epoch and what they save are those "
            "of the first seed, or the plan's where nothing was run. At a small scale few candidate epochs exist, so "
            "the gradient norms can choose single-shot's own epochs; the two runs are then the same.",
        ],
    )


def seeds(material: Material) -> pd.DataFrame:
    """The values of each seed behind the table and the figure, in the plan's order."""
    columns = ["row", "seed", "run_id", "freezing.scheme", "accuracy.test_last", "flops.paper", "freezing.achieved"]
    frames = [material.of(row).sort_values("seed").reindex(columns=columns) for row in material.plan]
    return pd.concat(frames, ignore_index=True)


def _values(material: Material, row: dict[str, Any]) -> dict[str, Any]:
    found, first = material.accuracy(row), material.plan[0]
    flops, base = (material.costs(other)["flops.paper"] for other in (row, first))
    difference = paired(material.runs, row["row"], first["row"]) if row is not first else None
    planned = {"freezing.t_frz": row["t_frz"], "freezing.achieved": row["freezing_achieved"]}
    happened = next(iter(material.of(row).sort_values("seed").to_dict("records")), planned)
    return {
        "row": row["row"],
        "status": "run" if found.n else material.absent(row),
        "runs": material.count(row),
        "scheme": scheme(row["freezing_scheme"]),
        "t_frz": int(happened["freezing.t_frz"]),
        "blocks": max(row["frozen_blocks"]),
        "saved": happened["freezing.achieved"],
        "flops.paper": flops,
        "flops.difference": flops / base - 1,
        **{f"accuracy.{key}": value for key, value in found._asdict().items()},
        **{f"difference.{key}": getattr(difference, key, math.nan) for key in ("mean", "low", "high")},
    }


def _columns(material: Material, power: int) -> list[Column]:
    places = decimals((material.costs(row)["flops.paper"] for row in material.plan), power, 3)

    def difference(row: dict[str, Any]) -> str:
        if math.isnan(row["difference.mean"]):
            return "–"
        mean = f"{row['difference.mean']:+.2f}".replace("-", "−")
        if math.isnan(row["difference.low"]):
            return mean
        return f"{mean} [{row['difference.low']:+.2f}, {row['difference.high']:+.2f}]".replace("-", "−")

    flops, accuracy = f"Training FLOPs ({times_ten(power)})", "Test accuracy (%)"
    return [
        Column("Freezing scheme", lambda row: row["scheme"], numeric=False),
        Column("first frozen epoch", lambda row: str(row["t_frz"])),
        Column("blocks frozen, most", lambda row: str(row["blocks"])),
        Column("paper", lambda row: f"{row['flops.paper'] / 10**power:.{places}f}", flops),
        Column("saved", lambda row: f"{100 * row['saved']:.1f}%", flops),
        Column("to single-shot", lambda row: f"{100 * row['flops.difference']:+.2f}%".replace("-", "−"), flops),
        Column(
            "mean ± std",
            lambda row: plus_minus(row["accuracy.mean"], row["accuracy.std"]) if row["accuracy.n"] else row["status"],
            accuracy,
        ),
        Column("n", lambda row: row["runs"], accuracy),
        Column("to single-shot", difference, accuracy),
    ]
