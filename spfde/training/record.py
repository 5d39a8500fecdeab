"""What a run leaves behind: one folder, written whole.

`settings.yaml`, `epochs.csv`, `layers.csv` (the trace), `summary.json`, `model.safetensors`, `state.safetensors`, and
`predictions.safetensors`: class and correctness of every test image, a byte each, for intervals over new images.
Accuracies are in percent, shares are fractions, and FLOPs, bytes and seconds are plain numbers. Times are only in
summary.json, so that the other text files of equal runs are equal bit for bit.
"""

import contextlib
import os
import shutil
from pathlib import Path
from typing import Any

import pandas as pd
import yaml
from safetensors.torch import save_file
from torch import Tensor

from spfde.cost.trace import write_trace
from spfde.errors import SpfdeError
from spfde.files import clean_up, disk_errors, remove, writing
from spfde.settings import RunSettings
from spfde.training.checkpoint import path_of
from spfde.training.lock import Lock, lock_of
from spfde.training.progress import say
from spfde.training.trust import SPARE, SUMMARY, fault, is_sealed, is_whole, remember_damage, seal, status

EPOCH_COLUMNS = (
    "epoch",
    "lr_first",
    "lr_last",
    "train_loss",
    "train_accuracy",
    "val_accuracy",
    "test_loss",
    "test_accuracy",
    "samples",
    "frozen_blocks",
    "sparsity",
)


def ending(folder: Path) -> str:
    """How the run of this record ended, "finished" or "diverged"; empty if there is no record that can be trusted.

    A workflow engine deletes the declared output, summary.json, of a job in which another seed failed; the record
    itself is whole, so the summary is put back from its spare copy, and so is a broken one.

    Raises:
        SpfdeError: there is no right to read the record, or no space to put the summary back.
    """
    with disk_errors(folder):
        _restore(folder)
        return "" if not (folder / SUMMARY).exists() or fault(folder) else status(folder)


def _restore(folder: Path) -> None:
    """Puts summary.json back from its spare copy where it is gone or is not as it was written, and the copy is."""
    if is_sealed(folder / SUMMARY) or not is_sealed(folder / SPARE):
        return
    with writing(folder / SUMMARY, durable=True) as temporary:
        shutil.copyfile(folder / SPARE, temporary)
    if not fault(folder):
        remember_damage(folder, damaged=False)


def set_aside(folder: Path) -> None:
    """Takes away the summary.json of a damaged record, unless a process is training its run just now.

    Only names and sizes are checked. What is left does not count as a record, so its run is trained again. A summary
    that alone is broken is put back, where there is space for it.
    """
    if not (folder / SUMMARY).exists() or is_whole(folder):
        return
    with contextlib.suppress(SpfdeError, OSError):  # where nothing can be written, nothing can be trained either
        lock = Lock(lock_of(path_of(folder.parent, folder.name)))
        if lock.take():
            with contextlib.suppress(SpfdeError):
                _restore(folder)
            if not is_whole(folder):
                if is_sealed(folder / SPARE):
                    remove(folder / SUMMARY)
                else:
                    os.replace(folder / SUMMARY, folder / SPARE)
            lock.release()


def make_room(folder: Path, path: Path) -> None:
    """Before a run trains: removes its damaged record with the checkpoint that is left of it, and half-written files.

    Args:
        folder: the folder of the record, which is damaged or missing.
        path: the path of the checkpoint.
    """
    with disk_errors(folder):
        # An empty folder is no damaged record: Snakemake makes it for the output before it starts the job.
        if folder.exists() and any(folder.iterdir()):
            what = fault(folder) or "it is not whole"
            say(f"warning: record {folder} is damaged ({what}); its run is trained again from its start")
            remove(folder)
            discard(path)
        clean_up(folder, everyone=True)
        clean_up(path, everyone=True)


def discard(path: Path) -> None:
    """Removes a run's checkpoint, with the snapshots beside it."""
    remove(path)
    remove(path.with_suffix(".snapshots"))


def write(
    folder: Path,
    settings: RunSettings,
    rows: list[dict[str, Any]],
    trace: pd.DataFrame,
    summary: dict[str, Any],
    model: dict[str, Tensor],
    state: dict[str, Tensor],
    snapshots: Path | None = None,
    predictions: dict[str, Tensor] | None = None,
) -> None:
    """Writes a record under a temporary name and renames it."""
    with writing(folder, durable=True) as temporary:
        temporary.mkdir()
        text = yaml.safe_dump(settings.model_dump(), sort_keys=False)
        (temporary / "settings.yaml").write_text(text, encoding="utf-8")
        pd.DataFrame(rows, columns=list(EPOCH_COLUMNS)).to_csv(temporary / "epochs.csv", index=False)
        write_trace(trace, temporary / "layers.csv")
        files = {"model": model, "state": state} | ({"predictions": predictions} if predictions else {})
        for name, tensors in files.items():
            plain = {key: value.detach().cpu().contiguous() for key, value in tensors.items()}
            save_file(plain, temporary / f"{name}.safetensors")
        if snapshots and snapshots.is_dir():
            shutil.copytree(
                snapshots, temporary / "snapshots", copy_function=_link, ignore=shutil.ignore_patterns(".*")
            )
        seal(temporary, summary)
        shutil.copyfile(temporary / SUMMARY, temporary / SPARE)
    remember_damage(folder, damaged=False)


def _link(source: str, target: str) -> None:
    """Makes a hard link, which takes no space; copies the file where the file system has no hard links."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)
