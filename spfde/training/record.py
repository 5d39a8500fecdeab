"""What a run leaves behind: one folder, written whole.

`settings.yaml`, `epochs.csv`, `layers.csv` (the trace), `summary.json`, `model.safetensors`, `state.safetensors`.
Accuracies are in percent, shares are fractions, FLOPs, bytes and seconds plain numbers. Times stand in summary.json
alone, so that the other text files of equal runs are equal bit for bit.
"""

import shutil
from pathlib import Path
from typing import Any

import pandas as pd
import yaml
from safetensors.torch import save_file
from torch import Tensor

from spfde.cost.trace import write_trace
from spfde.files import disk_errors, write_json, writing
from spfde.settings import RunSettings

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
SPARE = ".summary.json"


def finished(folder: Path) -> bool:
    """Whether a folder holds a whole record.

    A workflow engine deletes the declared output, summary.json, of a job in which another seed failed; the record
    itself is whole, so the summary is put back from its spare copy.
    """
    summary, spare = folder / "summary.json", folder / SPARE
    if not summary.exists() and spare.exists():
        with disk_errors(summary):
            shutil.copyfile(spare, summary)
    return summary.exists()


def write(
    folder: Path,
    settings: RunSettings,
    rows: list[dict[str, Any]],
    trace: pd.DataFrame,
    summary: dict[str, Any],
    model: dict[str, Tensor],
    state: dict[str, Tensor],
    snapshots: Path | None = None,
) -> None:
    """Writes a record under a temporary name and renames it."""
    with writing(folder) as temporary:
        temporary.mkdir()
        text = yaml.safe_dump(settings.model_dump(), sort_keys=False)
        (temporary / "settings.yaml").write_text(text, encoding="utf-8")
        pd.DataFrame(rows, columns=list(EPOCH_COLUMNS)).to_csv(temporary / "epochs.csv", index=False)
        write_trace(trace, temporary / "layers.csv")
        save_file(
            {name: value.detach().cpu().contiguous() for name, value in model.items()}, temporary / "model.safetensors"
        )
        save_file(
            {name: value.detach().cpu().contiguous() for name, value in state.items()}, temporary / "state.safetensors"
        )
        if snapshots and snapshots.is_dir():
            shutil.move(snapshots, temporary / "snapshots")
        write_json(temporary / SPARE, summary)
        write_json(temporary / "summary.json", summary)
