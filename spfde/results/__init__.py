"""From records to tables, figures and claims. `load` gives all records as one data frame, with a row for each run."""

from collections.abc import Mapping
from pathlib import Path

import pandas as pd


def load(
    scale: str = "smoke", results: str | Path = "results", row_digests: Mapping[str, str] | None = None
) -> pd.DataFrame:
    """The finished runs of a scale, fresh and published, as one tidy frame (see `spfde.results.collect`).

    Where a row was run at several settings, `row_digests` tells by row which count; by default the newest do.

    >>> runs = load("cifar100")  # doctest: +SKIP
    >>> runs.groupby("row")["accuracy.test_last"].agg(["mean", "std", "count"])  # doctest: +SKIP
    """
    from spfde.results.collect import collect, read_costs, record_folders

    results = Path(results)
    return collect(record_folders(scale, results), row_digests, read_costs(scale, results))
