"""From records to tables, figures and claims. `load` gives all records as one data frame, with a row for each run."""

from collections.abc import Mapping
from pathlib import Path

import pandas as pd


def load(
    scale: str | None = None, results: str | Path = "results", row_digests: Mapping[str, str] | None = None
) -> pd.DataFrame:
    """The finished runs of a scale, fresh and published, as one tidy frame (see `spfde.results.collect`).

    Without a scale, those of the one that config/config.yaml names.
    Its numbers are checked against the digests in the records; `spfde collect` checks the weights beside them too.
    Where a row was run at several settings, `row_digests` tells by row which count; by default the newest do.

    >>> runs = load("cifar100")  # doctest: +SKIP
    >>> runs.groupby("row")["accuracy.test_last"].agg(["mean", "std", "count"])  # doctest: +SKIP
    """
    from spfde.experiments.files import default_scale
    from spfde.results.collect import collect, read_costs, record_folders

    results, scale = Path(results), scale or default_scale()
    return collect(record_folders(scale, results, weights=False), row_digests, read_costs(scale, results))
