"""Publishes records without their large files, the analyses of the snapshots that are left out, and measured times.

A published record is results/published/<scale>/<run id>/: settings.yaml, epochs.csv, summary.json, the trace as
layers.csv.gz, and predictions.safetensors. Weights, state and snapshots are left out. Everything that reads records
reads both kinds.
"""

import shutil
from collections.abc import Iterable
from pathlib import Path

from spfde.cost.trace import read_trace, write_trace
from spfde.errors import SpfdeError, lookup
from spfde.experiments.files import read_scale
from spfde.files import read_json, writing
from spfde.results.analyses import analysis_path
from spfde.results.collect import record_folders
from spfde.results.images import FILE
from spfde.results.measured import MEASURED, SCALING, STEPS
from spfde.training.trust import is_whole, seal

COPIED = ("settings.yaml", "epochs.csv")


def publish(
    scale: str, results: Path, run_ids: Iterable[str] = (), to: Path | None = None
) -> tuple[list[Path], list[Path]]:
    """Publishes finished records of a scale, each whole, and the scale's analyses and measured times.

    Args:
        scale: its name.
        results: the folder of all results.
        run_ids: the runs to publish; by default all that are finished.
        to: folder of all published records, by default that of the results.

    Returns:
        What was written, and the records that were published already and are left as they are.

    Raises:
        SpfdeError: nothing to publish, an unknown run id, a broken record, no space left.
    """
    home = (to or results / "published") / scale
    folders = {folder.name: folder for folder in record_folders(scale, results)}
    others = _others(scale, results, home)
    if not (folders or others):
        raise SpfdeError(f"no finished records of scale {scale} in {results}", "train its runs first")
    chosen = [lookup("finished run", run_id, folders) for run_id in run_ids] or list(folders.values())
    kept = [home / folder.name for folder in chosen if is_whole(home / folder.name)]
    new = [folder for folder in chosen if home / folder.name not in kept]
    for folder in new:
        _copy(folder, home / folder.name)
    return [home / folder.name for folder in new] + _written(others), kept


def _copy(record: Path, to: Path) -> None:
    """Publishes a fresh record; one that was published already, elsewhere, is copied as it is."""
    if (record / "layers.csv.gz").is_file():
        with writing(to) as temporary:
            shutil.copytree(record, temporary)
        return
    trace = read_trace(record / "layers.csv")
    summary = read_json(record / "summary.json", "summary", "train that run again")
    with writing(to) as temporary:
        temporary.mkdir()
        for name in COPIED:
            shutil.copyfile(record / name, temporary / name)
        if (record / FILE).is_file():
            shutil.copyfile(record / FILE, temporary / FILE)
        write_trace(trace, temporary / "layers.csv.gz")
        seal(temporary, summary)  # with digests of what the published record holds
        shutil.copystat(record / "summary.json", temporary / "summary.json")  # its date: the newest counts


def _others(scale: str, results: Path, home: Path) -> dict[Path, Path]:
    """The analyses and the measured times that are there, by their published path.

    Epochs and their savings are measured in earnest at the papers' scales alone (workflow/rules/bench.smk).
    """
    analyses = sorted((results / scale / "analysis").glob("*.csv"))
    found = {home / "analysis" / path.name: path for path in analyses}
    found = {path: fresh for path, fresh in found.items() if analysis_path(fresh.stem, scale, results) == fresh}
    measured = MEASURED if read_scale(scale).paper else (STEPS, SCALING)
    return found | {home / name: results / scale / name for name in measured if (results / scale / name).is_file()}


def _written(found: dict[Path, Path]) -> list[Path]:
    """Copies what is new or has changed; returns its published paths."""
    written = []
    for path, fresh in found.items():
        if not (path.is_file() and path.read_bytes() == fresh.read_bytes()):
            with writing(path) as temporary:
                shutil.copyfile(fresh, temporary)
            written.append(path)
    return written
