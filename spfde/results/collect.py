"""Records -> one tidy frame: a row a run, a column a setting or a summary value, dotted.

Settings keep their names ("sparsity.method"), and so do the values of summary.json ("accuracy.test_last", percent;
"flops.paper", FLOPs; "memory.paper_min", bytes; "time.total", seconds). A summary value whose name a setting has taken
gets the prefix "achieved." ("achieved.sparsity.target"). Costs are those of results/<scale>/costs.csv where it has the
run: accounted again by the present code (`spfde cost`), while summary.json keeps what they were when the run ended.
"""

import json
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import yaml

from spfde.errors import SpfdeError
from spfde.files import writing
from spfde.settings import RunSettings, parse

FIRST = ["run_id", "row", "scale", "tag", "seed", "published"]
NEEDED = ["accuracy.test_last", *(f"flops.{column}" for column in ("paper", "full", "executed"))]
NEEDED += [f"memory.{column}" for column in ("paper_min", "paper_avg", "full_peak")]
YAML = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # the one in C reads a record ten times faster


def record_folders(scale: str, results: Path) -> list[Path]:
    """Folders of finished records: results/<scale>/runs/*, then results/published/<scale>/* that are not there too."""
    found: dict[str, Path] = {}
    for parent in (results / scale / "runs", results / "published" / scale):
        for summary in sorted(parent.glob("*/summary.json")):
            found.setdefault(summary.parent.name, summary.parent)
    return list(found.values())


def read_costs(scale: str, results: Path) -> dict[str, dict[str, float]]:
    """What results/<scale>/costs.csv says of each run, by run id and dotted name; nothing where there is no such file.

    Raises:
        SpfdeError: it cannot be read.
    """
    path = results / scale / "costs.csv"
    if not path.is_file():
        return {}
    try:
        frame = pd.read_csv(path, dtype="str").set_index("run_id")
        return {
            str(run_id): {str(name): float(value) for name, value in row.dropna().items()}
            for run_id, row in frame.iterrows()
        }
    except (OSError, ValueError, KeyError) as error:
        remedy = f"write it again with `spfde cost --scale {scale} --results {results} --out {path}`"
        raise SpfdeError(f"costs {path} cannot be read", remedy) from error


def collect(
    folders: Iterable[Path],
    row_digests: Mapping[str, str] | None = None,
    costs: Mapping[str, Mapping[str, float]] | None = None,
) -> pd.DataFrame:
    """The tidy frame of these record folders, ordered by row and seed. A folder without summary.json is skipped.

    The runs of a row share all settings but the seed, or means over them would be worthless. Where they do not (the
    settings of a scale were edited in between), those of the wanted digest count, or of the newest record's, and the
    others are named on stderr.

    Args:
        folders: records.
        row_digests: the digest wanted of a row (`RunSettings.row_digest`), by its name; of rows not named, the newest.
        costs: FLOPs and memory by run id (`read_costs`); they count in place of those in summary.json.

    Raises:
        SpfdeError: a record that cannot be read or that lacks a value; it names the file.
    """
    records = [_record(folder, costs or {}) for folder in folders if (folder / "summary.json").is_file()]
    wanted: dict[tuple[str, str], str] = {}
    for record in sorted(records, key=lambda record: record.age):
        wanted[record.scale_and_row] = (row_digests or {}).get(record.values["row"], record.row_digest)
    kept = [record for record in records if record.row_digest == wanted[record.scale_and_row]]
    left = sorted(record.values["run_id"] for record in records if record not in kept)
    if left:
        print(
            f"warning: {len(left)} records are of other settings of their row, e.g. {left[0]}; left out",
            file=sys.stderr,
        )
    frame = pd.DataFrame(
        [record.values for record in kept], columns=None if kept else [*FIRST, *NEEDED, "memory.measured_peak"]
    )
    return frame.sort_values(["scale", "row", "seed"], ignore_index=True)


def warn_of_other_code(frame: pd.DataFrame, digest: str) -> None:
    """One line on stderr about the records that other code than the present one made.

    Args:
        digest: that of the present code (`spfde.training.environment.code_digest`); records keep theirs in
            "environment.code".
    """
    if frame.empty:
        return
    other = frame.loc[frame["environment.code"] != digest, "run_id"]
    if len(other):
        print(
            f"warning: {len(other)} of {len(frame)} records were made by other code, e.g. {other.iloc[0]}; "
            "remove them to train again",
            file=sys.stderr,
        )


def write(frame: pd.DataFrame, path: Path) -> None:
    """Writes the frame as CSV, whole or not at all."""
    with writing(path) as temporary:
        frame.to_csv(temporary, index=False)


@dataclass(frozen=True)
class _Record:
    values: dict[str, Any]  # the record's line in the frame
    row_digest: str  # of the settings that the runs of a row share
    age: tuple[bool, float]  # greater for the newer; a fresh record is newer than any published one

    @property
    def scale_and_row(self) -> tuple[str, str]:
        return self.values["scale"], self.values["row"]


def _record(folder: Path, costs: Mapping[str, Mapping[str, float]]) -> _Record:
    path = folder / "summary.json"
    try:
        summary = flat(json.loads(path.read_text(encoding="utf-8"))) | dict(costs.get(folder.name, {}))
        path = folder / "settings.yaml"
        given = yaml.load(path.read_text(encoding="utf-8"), YAML)
        settings, row_digest = flat(given), parse(RunSettings, given).row_digest
        path = folder / "summary.json"
        missing = [key for key in ["run_id", "row", *NEEDED] if summary.get(key) is None]
        if missing:
            raise ValueError(f"it has no {missing[0]}")
        first = {key: summary.pop(key) for key in ("run_id", "row")}
        first |= {key: settings.pop(key) for key in ("scale", "tag", "seed")}
    except (OSError, ValueError, KeyError, AttributeError, yaml.YAMLError, SpfdeError) as error:
        reason = f"the setting {error} is missing" if isinstance(error, KeyError) else str(error).splitlines()[0]
        raise SpfdeError(f"broken record {path}: {reason}", f"remove {folder} and train that run again") from error
    first["published"] = folder.parent.parent.name == "published"
    achieved = {f"achieved.{key}" if key in settings else key: value for key, value in summary.items()}
    age = not first["published"], (folder / "summary.json").stat().st_mtime
    return _Record({**first, **settings, **achieved}, row_digest, age)


def flat(values: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested mappings as dotted keys; a list becomes its JSON text, so that a cell is always one value."""
    found: dict[str, Any] = {}
    for key, value in values.items():
        if isinstance(value, dict):
            found |= flat(value, f"{prefix}{key}.")
        else:
            found[f"{prefix}{key}"] = json.dumps(value) if isinstance(value, list) else value
    return found
