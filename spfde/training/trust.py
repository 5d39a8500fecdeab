"""Whether a folder holds a record that can be trusted: complete, undamaged, and under its own name.

summary.json names every file of the record with its size and SHA-256 digest ("files"), and holds a digest of itself
("digest"). A published record has fewer files, and names those. A record is under its own name if the folder's name,
the run id in its summary, and the run id that follows from its settings are the same; a renamed copy never counts.
"""

import contextlib
import csv
import functools
import gzip
import hashlib
import json
import math
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from spfde.errors import SpfdeError
from spfde.files import check_file, read_json, read_text, read_yaml, write_json, write_text
from spfde.settings import SCHEMA, RunSettings, parse

NEEDED = ("settings.yaml", "epochs.csv")  # and the trace, layers.csv or layers.csv.gz
SUMMARY, SPARE = "summary.json", ".summary.json"
LARGEST_TRACE = 1 << 28  # bytes of an unpacked trace: three hundred times those of 160 epochs of ResNet-32
LONGEST_LINE = 1 << 16
DAMAGED = ".damaged"  # a folder beside the records, with an empty file for each one that was found damaged


def sealed(folder: Path, summary: dict[str, Any]) -> dict[str, Any]:
    """The summary with the schema number, the digests of all files of the record, and a digest of itself."""
    files = {
        path.relative_to(folder).as_posix(): {"bytes": path.stat().st_size, "sha256": file_digest(path)}
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name not in (SUMMARY, SPARE)
    }
    known = {key: value for key, value in summary.items() if key != "digest"} | {"schema": SCHEMA, "files": files}
    return known | {"digest": _digest(known)}


def seal(folder: Path, summary: dict[str, Any]) -> None:
    """Writes the summary of a record whose other files have all been written."""
    write_json(folder / SUMMARY, sealed(folder, summary))


def is_sealed(path: Path) -> bool:
    """Whether a summary is there and as it was written, by its digest of itself.

    Raises:
        SpfdeError: there is no right to read it.
    """
    try:
        return path.exists() and _is_sealed(read_json(path, "record", ""))
    except SpfdeError as error:
        if error.cause.startswith("no right"):
            raise
        return False


def is_whole(folder: Path) -> bool:
    """Whether names and sizes are those of a complete record of this version; for planning, reads only the summary."""
    if folder.name.startswith(".") or (folder.parent / DAMAGED / folder.name).exists():
        return False
    try:
        summary = json.loads(read_text(folder / SUMMARY, "record", ""))
        sizes = {name: file["bytes"] for name, file in summary["files"].items()}
        sound = (summary["run_id"], summary["schema"]) == (folder.name, SCHEMA) and _complete(set(sizes))
        return sound and all((folder / name).stat().st_size == size for name, size in sizes.items())
    except (SpfdeError, OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return False


def fault(folder: Path, weights: bool = True) -> str:
    """Why a record cannot be trusted, in a few words; empty if it can.

    Every file is read and its digest compared. The answer is remembered while no file changes.

    Args:
        folder: the record.
        weights: whether files of weights are read too, which are most of its bytes; where only its numbers are wanted,
            their sizes will do. Those of a record that was found damaged before are read always.

    Raises:
        SpfdeError: there is no right to read the record.
    """
    found = [path for path in sorted(folder.rglob("*")) if not path.is_dir()]
    marked = (folder.parent / DAMAGED / folder.name).exists()
    return _fault(
        folder, weights or marked, tuple((str(path), path.lstat().st_size, path.lstat().st_mtime_ns) for path in found)
    )


def status(folder: Path) -> str:
    """How the run of a trusted record ended: "finished" or "diverged"."""
    return str(json.loads((folder / SUMMARY).read_text(encoding="utf-8")).get("status", "finished"))


def remember_damage(folder: Path, damaged: bool) -> None:
    """Notes that a record was found damaged, so that planning, which compares no digests, has it trained again."""
    mark = folder.parent / DAMAGED / folder.name
    with contextlib.suppress(SpfdeError, OSError):  # where nothing can be written the record is left out all the same
        if damaged:
            write_text(mark, "")
        elif mark.exists():
            mark.unlink()
            mark.parent.rmdir()


def file_digest(path: Path) -> str:
    """SHA-256 of a file's contents, 64 hex digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@functools.lru_cache(maxsize=4096)
def _fault(folder: Path, weights: bool, files: tuple[tuple[str, int, int], ...]) -> str:
    try:
        return _problem(folder, weights, {Path(name).relative_to(folder).as_posix() for name, _, _ in files})
    except SpfdeError as error:
        if error.cause.startswith("no right"):
            raise
        return error.cause
    except PermissionError as error:
        raise SpfdeError(f"no right to read record {error.filename or folder}", "change its rights") from None
    except (OSError, EOFError, zlib.error, ValueError, KeyError, TypeError, AttributeError, csv.Error) as error:
        return f"it cannot be read ({error.__class__.__name__}: {error})".splitlines()[0]


def _problem(folder: Path, weights: bool, there: set[str]) -> str:
    if SUMMARY not in there:
        return "it has no summary.json"
    summary = read_json(folder / SUMMARY, "record", "")
    if not isinstance(summary, dict):
        return "summary.json holds no summary"
    schema = summary.get("schema", 1)
    if schema != SCHEMA:
        return f"it is of schema {schema}, and this version reads schema {SCHEMA}"
    if not _is_sealed(summary):
        return "summary.json is not as it was written"
    if summary["run_id"] != folder.name:
        return f"it is a copy of {summary['run_id']} under another name"
    files: dict[str, dict[str, Any]] = summary["files"]
    if not _complete(set(files)) or (missing := set(files) - there):
        return f"{min(missing) if _complete(set(files)) else 'a file'} is missing"
    for name, told in files.items():
        check_file(folder / name, "file", "")
        if (folder / name).stat().st_size != told["bytes"]:
            return f"{name} has {(folder / name).stat().st_size} bytes instead of {told['bytes']}"
        if (weights or not _holds_weights(name)) and file_digest(folder / name) != told["sha256"]:
            return f"{name} is not as it was written"
    settings = parse(RunSettings, read_yaml(folder / "settings.yaml", "settings file", ""))
    if settings.run_id != folder.name:
        return f"its settings are those of {settings.run_id}"
    return _disagreement(folder, summary, settings)


def _disagreement(folder: Path, summary: dict[str, Any], settings: RunSettings) -> str:
    """What epochs, trace and summary do not agree in."""
    with (folder / "epochs.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    samples = [int(row["samples"]) for row in rows]
    if [int(row["epoch"]) for row in rows] != list(range(len(rows))):
        return "epochs.csv does not count its epochs from 0"
    diverged = summary.get("status") == "diverged"
    if not (0 < len(rows) <= settings.training.epochs if diverged else len(rows) == settings.training.epochs):
        return f"epochs.csv has {len(rows)} epochs, and its settings {settings.training.epochs}"
    traced = {(int(row["epoch"]), int(row["samples"])) for row in csv.DictReader(_trace(folder))}
    if traced != set(enumerate(samples)):
        return "epochs.csv and the trace differ in epochs or samples"
    told = summary["accuracy"]["test_last"]
    if not diverged and not math.isclose(float(rows[-1]["test_accuracy"]), told, rel_tol=1e-9, abs_tol=1e-9):
        return "epochs.csv and summary.json differ in the last accuracy"
    return ""


def _holds_weights(name: str) -> bool:
    return name in ("model.safetensors", "state.safetensors") or name.startswith("snapshots/")


def _is_sealed(summary: Any) -> bool:
    known = summary if isinstance(summary, dict) else {}
    return known.get("digest") == _digest({key: value for key, value in known.items() if key != "digest"})


def _trace(folder: Path) -> Iterator[str]:
    """The lines of a record's trace.

    Raises:
        ValueError: there are far more than a trace can have: a small packed file can stand for gigabytes.
    """
    packed, left = folder / "layers.csv.gz", LARGEST_TRACE
    with gzip.open(packed, "rt", newline="") if packed.exists() else (folder / "layers.csv").open(newline="") as file:
        while line := file.readline(LONGEST_LINE):
            left -= len(line)
            if left < 0 or len(line) == LONGEST_LINE:
                raise ValueError(f"the trace unpacks into more than {LARGEST_TRACE} bytes, or lines of {LONGEST_LINE}")
            yield line


def _complete(names: set[str]) -> bool:
    return {*NEEDED} <= names and bool({"layers.csv", "layers.csv.gz"} & names)


def _digest(values: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()
