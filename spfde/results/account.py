"""The costs of records, counted from their settings and traces alone: no weights, no data, no training.

A run writes its costs into summary.json when it ends, as the code of that day counts them. Here the present code counts
them again and writes them to results/<scale>/costs.csv, from which `spfde.results.collect` takes them instead.
"""

import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pandas as pd

from spfde.cost.trace import read_trace
from spfde.errors import OtherData, SpfdeError
from spfde.experiments.stored import read_settings
from spfde.files import read_json, read_yaml
from spfde.plans import plan_settings
from spfde.results.collect import flat, write
from spfde.results.measured import STEPS, measured_path
from spfde.results.seconds import StepSeconds, device_kind
from spfde.settings import RunSettings

# The trace says what happened, so freezing is not solved for again, and initial weights are not needed.
HAPPENED = {"freezing.flops_reduction": 0.0, "model.weights": None, "model.weights_digest": None}


def account(folder: Path, steps: StepSeconds | None = None) -> dict[str, Any]:
    """The costs of a record, from its settings.yaml and layers.csv or layers.csv.gz.

    Args:
        folder: the record.
        steps: measured steps of its network, where they are known.

    Returns:
        "run_id" (the folder's name), "flops" by column, and "memory" in bytes with its breakdown; where steps of its
        network were measured on the kind of device that it ran on, also "speed" with the seconds of a mean epoch.

    Raises:
        SpfdeError: the settings or the trace cannot be read, or the trace is of another network.
        OtherData: config/data describes the record's data set otherwise now, or may do so.
    """
    (settings,) = read_settings(folder / "settings.yaml", overrides=HAPPENED)
    _check_description(folder, settings)
    published = folder / "layers.csv.gz"
    trace = read_trace(published if published.is_file() else folder / "layers.csv")
    try:
        plan = plan_settings(settings)
        flops, memory = plan.costs(trace)
    except SpfdeError as error:
        raise SpfdeError(f"record {folder} cannot be accounted: {error.cause}", error.remedy) from error
    found = {"run_id": folder.resolve().name, "flops": flops, "memory": memory}
    seconds = steps.of_epoch(plan, trace) if steps and steps.kind == _kind(folder) else None
    return found if seconds is None else {**found, "speed": {"seconds_per_epoch": seconds}}


def _check_description(folder: Path, settings: RunSettings) -> None:
    """Refuses a record of before descriptions had digests: `read_settings` has filled in today's one.

    Raises:
        OtherData: so it is; its run id, too, would be another one than the folder's.
    """
    path = folder / "settings.yaml"
    told = read_yaml(path, "settings file", "give a record").get("data") or {}
    if told.get("digest") != settings.data.digest:
        cause = f"{path} does not say by which description of {settings.data.name} the record was made"
        raise OtherData(cause, "train the run again to have its costs counted by the present one")


def _kind(folder: Path) -> str:
    """The kind of the device on which a record was made, e.g. "cpu"."""
    remedy = "remove it and train the run again"
    kind = device_kind(read_json(folder / "summary.json", "record", remedy))
    if not kind:
        raise SpfdeError(f"record {folder} does not say what it was trained on", remedy)
    return kind


def write_costs(folders: Iterable[Path], path: Path) -> int:
    """Writes the costs of records as CSV: one row for each run, columns as in the frame of `spfde.results.load`.

    Seconds of an epoch are among them where `spfde bench steps` measured steps of this scale.

    A record of a data set that config/data describes otherwise now, or that does not say by which description it was
    made, is left out, with a warning: the costs in its summary, which were counted by its own description, stay.

    Returns:
        the number of records.
    """
    steps = StepSeconds.read(measured_path(path.parent, STEPS))
    rows = []
    for folder in folders:
        try:
            rows.append(flat(account(folder, steps)))
        except OtherData as error:
            print(f"warning: record {folder} keeps the costs of its summary: {error.cause}", file=sys.stderr)
    write(pd.DataFrame(rows, columns=None if rows else ["run_id"]), path)
    return len(rows)
