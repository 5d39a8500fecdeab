"""Checkpoints: one safetensors file per run, named by the run id, written whole or not at all.

Text beside the tensors (rows of epochs.csv, times, environment) travels in the file's own header, with a digest of all
that the checkpoint holds; no pickle anywhere.
"""

import hashlib
import json
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor
from torch.optim import Optimizer

from spfde.errors import SpfdeError
from spfde.files import check_file, writing

FORMAT = "4"  # raise it when the contents of a checkpoint change


def path_of(out: Path, run_id: str) -> Path:
    """The path of an unfinished run's checkpoint: beside the records, but not among them."""
    return out / ".checkpoints" / f"{run_id}.safetensors"


def remedy(path: Path) -> str:
    """The remedy for a checkpoint that cannot be used."""
    return f"remove {path} to train the run from its start"


def save(path: Path, run_id: str, tensors: dict[str, Tensor], text: dict[str, Any]) -> None:
    """Writes a checkpoint."""
    contiguous = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    written = json.dumps(text)
    metadata = {"format": FORMAT, "run_id": run_id, "text": written, "digest": _digest(run_id, contiguous, written)}
    with writing(path, durable=True) as temporary:
        save_file(contiguous, temporary, metadata=metadata)


def load(path: Path, run_id: str) -> tuple[dict[str, Tensor], dict[str, Any]] | None:
    """Tensors (on the CPU) and text of a run's checkpoint; None if there is no checkpoint.

    Raises:
        SpfdeError: the file is damaged, of another run or version, or there is no right to read it.
    """
    if not path.is_symlink() and not path.exists():
        return None
    check_file(path, "checkpoint", remedy(path))
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            owner = metadata.get("run_id", "no run of this project")
            if owner != run_id:
                raise SpfdeError(f"checkpoint {path} belongs to {owner}, not to {run_id}", remedy(path))
            if metadata.get("format") != FORMAT:
                raise SpfdeError(f"checkpoint {path} was written by another version of spfde", remedy(path))
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        if metadata["digest"] != _digest(run_id, tensors, metadata["text"]):
            raise ValueError("it does not hold what was written")
        return tensors, json.loads(metadata["text"])
    except PermissionError:
        raise SpfdeError(f"no right to read checkpoint {path}", "change its rights") from None
    except (SafetensorError, OSError, KeyError, ValueError, RuntimeError, MemoryError, RecursionError) as error:
        why = (str(error).splitlines() or [error.__class__.__name__])[0]
        raise SpfdeError(f"checkpoint {path} is damaged ({why})", remedy(path)) from None


def _digest(run_id: str, tensors: dict[str, Tensor], text: str) -> str:
    """SHA-256 over the run, the text, and name, type, shape and bytes of every tensor."""
    digest = hashlib.sha256(f"{run_id}\0{text}\0".encode())
    for name, tensor in sorted(tensors.items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\0".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def optimizer_tensors(optimizer: Optimizer) -> dict[str, Tensor]:
    """The optimizer's state, flat: `<parameter number>.<key>`, numbered through all groups."""
    state = optimizer.state_dict()["state"]
    return {
        f"{number}.{key}": value
        for number, values in state.items()
        for key, value in values.items()
        if isinstance(value, Tensor)
    }


def load_optimizer(optimizer: Optimizer, tensors: dict[str, Tensor]) -> None:
    """Puts back what `optimizer_tensors` gave, each tensor laid out in memory like its parameter."""
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    state: dict[int, dict[str, Tensor]] = {}
    for name, value in tensors.items():
        number, _, key = name.partition(".")
        like = parameters[int(number)]
        laid_out = torch.empty_like(like, dtype=value.dtype).copy_(value) if value.shape == like.shape else value
        state.setdefault(int(number), {})[key] = laid_out.detach()
    optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})


def split(tensors: dict[str, Tensor], *parts: str) -> list[dict[str, Tensor]]:
    """Undoes `join`: the tensors under each part's name."""
    return [{k[len(part) + 1 :]: v for k, v in tensors.items() if k.startswith(f"{part}.")} for part in parts]


def join(**parts: dict[str, Tensor]) -> dict[str, Tensor]:
    """One flat dict: `<part>.<name>`."""
    return {f"{part}.{name}": value for part, values in parts.items() for name, value in values.items()}
