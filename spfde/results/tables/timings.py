"""Tables A11 and A12 of SpFDE: measured epoch times against the training FLOPs saved, from `spfde bench epochs`."""

from pathlib import Path
from typing import Any

import pandas as pd

from spfde.files import read_csv
from spfde.results.material import Material
from spfde.results.measured import EPOCHS, measured_path
from spfde.results.tables.table import Column, Table

BASE = "masks"  # the kind that neither freezes nor sieves
NOTES = [
    "Seconds per epoch: mean ± standard deviation over n repeats. Speed-up: the time of the same sparse training "
    "without freezing and sieving over this one, within each repeat, so that what else the machine did counts for "
    "little. Saved: 1 minus the mean time over that of the same; linear would be the share of FLOPs saved.",
    "Measured as the paper does it: consecutive epochs of real sparse training on random images, with their mask "
    "updates, sieve updates and frozen blocks; all cases take turns epoch by epoch. Evaluation is not timed. Network, "
    "samples, epochs and kernels are columns of bench.csv, the parts of an epoch stand in bench.repeats.csv.",
    "Claims on acceleration are decided by such times of the paper's scale, fresh or published; where there are none, "
    "by those of the scale that ran.",
]


def read(results: Path, scale: str) -> pd.DataFrame:
    """The scale's measured epochs, one row for each kind and level; empty if nothing was measured."""
    path = measured_path(results / scale, EPOCHS)
    columns = ["kind", "flops_reduction", "seconds_per_epoch", "n", "std", "speedup", "speedup_std", "device"]
    return (
        read_csv(path, "timings", "run `spfde bench epochs` again") if path.is_file() else pd.DataFrame(columns=columns)
    )


def build(material: Material, name: str, title: str, kind: str) -> Table:
    """The rows of a kind of saving (freezing or sieving), or one row "not run" if there are none."""
    times = read(material.results, material.scale)
    base = times[times["kind"] == BASE]["seconds_per_epoch"]
    values = times[times["kind"] == kind].sort_values("flops_reduction", ignore_index=True)
    values["saved"] = 1 - values["seconds_per_epoch"] / base.iloc[0] if len(base) else pd.Series(dtype=float)
    shown = values if len(values) else pd.DataFrame([{"flops_reduction": None}])
    columns = [
        Column("Training FLOPs saved", lambda row: _or_not_run(row, "{flops_reduction:.0%}"), numeric=False),
        Column("Seconds per epoch", lambda row: _or_not_run(row, "{seconds_per_epoch:.4g} ± {std:.3g}")),
        Column("n", lambda row: _or_not_run(row, "{n}")),
        Column("Speed-up", lambda row: _or_not_run(row, "{speedup:.3g} ± {speedup_std:.2g}")),
        Column("Time saved", lambda row: _or_not_run(row, "{saved:.1%}")),
        Column("Device", lambda row: _or_not_run(row, "{device}"), numeric=False),
    ]
    return Table(name, f"{title} (scale {material.scale})", shown, columns, values, NOTES)


def _or_not_run(row: dict[str, Any], text: str) -> str:
    return "not run" if row["flops_reduction"] is None else text.format(**row)
