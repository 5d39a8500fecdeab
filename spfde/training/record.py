"""What a run leaves behind: one folder, written whole.

`settings.yaml`, `epochs.csv`, `layers.csv` (the trace), `summary.json`, `model.safetensors`, `state.safetensors`.
Accuracies are in percent, shares are fractions, FLOPs, bytes and seconds plain numbers. Times stand in summary.json
alone, so that the other text files of equal runs are equal bit for bit.
"""

import functools
import hashlib
import platform
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pandas as pd
import torch
import yaml
from safetensors.torch import save_file
from torch import Tensor

import spfde
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


@functools.cache
def code_digest() -> str:
    """Twelve hex digits over the source of floors 0 to 5: what can change a result, nothing that only renders it."""
    root = Path(spfde.__file__).parent
    digest = hashlib.sha256()
    for path in sorted(root.rglob("*.py")):
        relative = path.relative_to(root)
        if relative.parts[0] not in ("results", "cli"):
            digest.update(f"{relative.as_posix()}\0".encode() + path.read_bytes())
    return digest.hexdigest()[:12]


def environment(device: torch.device) -> dict[str, Any]:
    """What a published number must carry about where it was made."""
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else _processor()
    return {
        "spfde": spfde.__version__,
        "code": code_digest(),
        "commit": _commit(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "device": f"{device.type}: {name}",
        "threads": torch.get_num_threads(),
        "platform": f"{platform.system()} {platform.machine()}",
    }


@functools.cache
def _processor() -> str:
    """The processor's name where the system tells it, else its architecture."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


@functools.cache
def _commit() -> str | None:
    command = ["git", "-C", str(Path(spfde.__file__).parent), "rev-parse", "HEAD"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True, timeout=5).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return None
