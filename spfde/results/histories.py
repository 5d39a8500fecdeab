"""The course of a run, epoch by epoch, out of its record."""

from pathlib import Path

import pandas as pd

from spfde.errors import SpfdeError
from spfde.results.collect import record_folders
from spfde.results.material import Material


def epochs_of(material: Material, run_id: str) -> pd.DataFrame:
    """epochs.csv of a run: a row for each epoch.

    Raises:
        SpfdeError: it cannot be read.
    """
    return _read(_folder(material, run_id), "epochs.csv")


def trace_of(material: Material, run_id: str) -> pd.DataFrame:
    """The trace of a run, a row for each epoch and layer; it is compressed in a published record.

    Raises:
        SpfdeError: it cannot be read.
    """
    return _read(_folder(material, run_id), "layers.csv", "layers.csv.gz")


def _folder(material: Material, run_id: str) -> Path:
    return next(path for path in record_folders(material.scale, material.results, weights=False) if path.name == run_id)


def _read(folder: Path, *names: str) -> pd.DataFrame:
    there = [folder / name for name in names if (folder / name).is_file()]
    try:
        return pd.read_csv(there[0])
    except (OSError, ValueError, IndexError) as error:
        remedy = f"remove {folder} and train that run again"
        raise SpfdeError(f"broken record {folder}: its {names[0]} cannot be read", remedy) from error
