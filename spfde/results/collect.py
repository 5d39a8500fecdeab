"""From records to one tidy data frame: a row for each run, a column for each setting and each summary value, dotted.

Settings keep their names ("sparsity.method"), and so do the values of summary.json ("accuracy.test_last", percent;
"flops.paper", FLOPs; "memory.paper_min", bytes; "time.total", seconds). A summary value whose name a setting has taken
gets the prefix "achieved." ("achieved.sparsity.target"). "status" is "finished" or "diverged"; a run that diverged has
no accuracy, and the costs of the epochs that it trained. Costs are those of results/<scale>/costs.csv where it has the
run: accounted again by the present code (`spfde cost`), while summary.json keeps what they were when the run ended.
"""

import functools
import json
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from spfde.errors import SpfdeError
from spfde.files import read_csv, read_json, read_yaml, writing
from spfde.settings import RunSettings, parse
from spfde.training.trust import fault, remember_damage

FIRST = ["run_id", "row", "scale", "tag", "seed", "published", "status"]
SEALS = ("files", "digest", "schema")  # entries of the summary that say that the record is complete
NEEDED = ["accuracy.test_last", *(f"flops.{column}" for column in ("paper", "full", "executed"))]
NEEDED += [f"memory.{column}" for column in ("paper_min", "paper_avg", "full_peak")]


def record_folders(scale: str, results: Path, weights: bool = True) -> list[Path]:
    """Folders of the records that may be trusted (`spfde.training.trust`), fresh ones before published ones.

    They are in results/<scale>/runs/, and in results/published/<scale>/ if there is no fresh one. Hidden folders and
    folders without summary.json are not records. A record that is damaged, a renamed copy or of another schema is left
    out, and named on stderr once.

    Args:
        scale: its name.
        results: the folder of all results.
        weights: whether the files of weights are read and compared as well (`spfde.training.trust.fault`).

    Raises:
        SpfdeError: there is no right to read a record.
    """
    found: dict[str, Path] = {}
    for parent in (results / scale / "runs", results / "published" / scale):
        for folder in sorted(path.parent for path in parent.glob("*/summary.json")):
            if folder.name.startswith(".") or folder.name in found:
                continue
            why = fault(folder, weights)
            remember_damage(folder, damaged=bool(why))
            if why:
                _name_once(folder, why)
            else:
                found[folder.name] = folder
    return list(found.values())


@functools.cache
def _name_once(folder: Path, why: str) -> None:
    remedy = "train its run again" if folder.parent.name == "runs" else "publish it again"
    print(f"warning: record {folder} is left out: {why}; {remedy}", file=sys.stderr)


def read_costs(scale: str, results: Path) -> dict[str, dict[str, float]]:
    """What results/<scale>/costs.csv says of each run, by run id and dotted name; empty if there is no such file.

    Raises:
        SpfdeError: it cannot be read.
    """
    path = results / scale / "costs.csv"
    if not path.exists():
        return {}
    remedy = f"write it again with `spfde cost --scale {scale} --results {results} --out {path}`"
    try:
        frame = read_csv(path, "costs", remedy, dtype="str").set_index("run_id")
        return {
            str(run_id): {str(name): float(value) for name, value in row.dropna().items()}
            for run_id, row in frame.iterrows()
        }
    except (ValueError, KeyError) as error:
        raise SpfdeError(f"costs {path} cannot be read", remedy) from error


def collect(
    folders: Iterable[Path],
    row_digests: Mapping[str, str] | None = None,
    costs: Mapping[str, Mapping[str, float]] | None = None,
) -> pd.DataFrame:
    """The tidy frame of these record folders, ordered by row and seed. A folder without summary.json is skipped.

    The runs of a row must share all settings but the seed, otherwise a mean over them would mean nothing. If they do
    not, because the settings of a scale were edited in between, those with the wanted digest count, or those with the
    digest of the newest record. The others are named on stderr.

    Args:
        folders: records.
        row_digests: the wanted digest (`RunSettings.row_digest`) by name of the row; rows without one take the newest.
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
    return frame.astype({"published": bool}).sort_values(["scale", "row", "seed"], ignore_index=True)


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


def mixtures(frame: pd.DataFrame) -> list[str]:
    """A sentence for each way in which the runs of a table were not all made alike; empty if they were."""
    found = []
    begun = [json.loads(text) for text in frame.get("resumed_from", pd.Series(dtype=str)).dropna()]
    changed = [{name for at in run for name in at.get("changed", {})} for run in begun]
    if any(changed):
        names = ", ".join(sorted(set().union(*changed)))
        found.append(f"{sum(map(bool, changed))} of {len(frame)} runs were resumed with other {names} than they began.")
    for name in ("device", "threads", "kernels", "torch", "code", "data"):
        values = frame.get(f"environment.{name}", pd.Series(dtype=str)).dropna().astype(str).unique()
        if len(values) > 1:
            some = ", ".join(sorted(values)[:3]) + ", …" * (len(values) > 3)
            found.append(f"The runs were made with {len(values)} different values of {name} ({some}).")
    return found


def write(frame: pd.DataFrame, path: Path) -> None:
    """Writes the frame as CSV, whole or not at all."""
    with writing(path) as temporary:
        frame.to_csv(temporary, index=False)


@dataclass(frozen=True)
class _Record:
    values: dict[str, Any]  # the record's row in the data frame
    row_digest: str  # of the settings that the runs of a row share
    age: tuple[bool, float]  # greater for a newer record; a fresh record counts as newer than any published one

    @property
    def scale_and_row(self) -> tuple[str, str]:
        return self.values["scale"], self.values["row"]


def _record(folder: Path, costs: Mapping[str, Mapping[str, float]]) -> _Record:
    path = folder / "summary.json"
    try:
        read = read_json(path, "summary", "")
        summary = flat({"status": "finished"} | {key: read[key] for key in read if key not in SEALS})
        summary |= dict(costs.get(folder.name, {}))
        path = folder / "settings.yaml"
        given = read_yaml(path, "settings", "")
        settings, row_digest = flat(given), parse(RunSettings, given).row_digest
        path = folder / "summary.json"
        needed = NEEDED if summary["status"] == "finished" else NEEDED[1:]
        missing = [key for key in ["run_id", "row", *needed] if summary.get(key) is None]
        if missing:
            raise ValueError(f"it has no {missing[0]}")
        first = {key: summary.pop(key) for key in ("run_id", "row", "status")}
        first |= {key: settings.pop(key) for key in ("scale", "tag", "seed")}
    except (OSError, ValueError, KeyError, AttributeError, TypeError, SpfdeError) as error:
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
