"""Where a result was made: versions, device, threads, and a digest of the code that can change it."""

import functools
import hashlib
import platform
import subprocess
from pathlib import Path
from typing import Any

import torch

import spfde
from spfde.data import Splits
from spfde.data.split import FolderSplit
from spfde.kernels.table import processor

# What a run may go on with otherwise than it began, with a warning: its settings mean the same, its last bits may not.
IDENTITY = ("spfde", "code", "python", "torch", "device", "threads", "kernels", "platform")


@functools.cache
def code_digest() -> str:
    """Twelve hex digits over the source code that can change a result; code that only renders results is left out."""
    root = Path(spfde.__file__).parent
    digest = hashlib.sha256()
    for path in sorted(root.rglob("*.py")):
        relative = path.relative_to(root)
        if relative.parts[0] not in ("results", "cli"):
            digest.update(f"{relative.as_posix()}\0".encode() + path.read_bytes())
    return digest.hexdigest()[:12]


def environment(device: torch.device) -> dict[str, Any]:
    """What a published number must carry about where it was made."""
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else processor()
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


def changes(before: dict[str, Any], now: dict[str, Any]) -> dict[str, list[Any]]:
    """What differs between two environments and can change a result in its last bits, as {name: [before, now]}."""
    return {name: [before.get(name), now.get(name)] for name in IDENTITY if before.get(name) != now.get(name)}


def data_digest(splits: Splits) -> str:
    """Twelve hex digits over the samples: images and labels in memory; names and labels of files on disk."""
    digest = hashlib.sha256()
    for split in (splits.train, splits.validation, splits.test):
        if split is None:
            continue
        digest.update(split.labels.numpy().data)
        if isinstance(split, FolderSplit):
            for path in split.paths:
                digest.update("/".join(Path(path).parts[-2:]).encode() + b"\0")
        else:
            digest.update(split.images.contiguous().numpy().data)
    return digest.hexdigest()[:12]


@functools.cache
def _commit() -> str | None:
    """The commit of the checkout, with "-dirty" at its end if the package has changed since; None outside of one.

    A repository that does not track the package is another project's, in whose folder it is installed.
    """
    git = ["git", "-C", str(Path(spfde.__file__).parent)]
    try:
        subprocess.run([*git, "ls-files", "--error-unmatch", "__init__.py"], capture_output=True, check=True, timeout=5)
        found = subprocess.run([*git, "rev-parse", "HEAD"], capture_output=True, text=True, check=True, timeout=5)
        changed = subprocess.run([*git, "diff", "--quiet", "HEAD", "--", "."], capture_output=True, timeout=5)
        return found.stdout.strip() + "-dirty" * (changed.returncode == 1)
    except (OSError, subprocess.SubprocessError):
        return None
