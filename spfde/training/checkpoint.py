"""Checkpoints: one safetensors file a run, a sidecar keyed by the run id, written whole or not at all.

Text beside the tensors (run id, rows of epochs.csv, times) travels in the file's own header; no pickle anywhere.
"""

import json
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor
from torch.optim import Optimizer

from spfde.errors import SpfdeError
from spfde.files import writing

FORMAT = "3"  # raised when what a checkpoint holds changes


def path_of(out: Path, run_id: str) -> Path:
    """Where a run that is not finished keeps its checkpoint: beside the records, out of their way."""
    return out / ".checkpoints" / f"{run_id}.safetensors"


def save(path: Path, run_id: str, tensors: dict[str, Tensor], text: dict[str, Any]) -> None:
    contiguous = {name: tensor.detach().contiguous() for name, tensor in tensors.items()}
    with writing(path) as temporary:
        save_file(contiguous, temporary, metadata={"format": FORMAT, "run_id": run_id, "text": json.dumps(text)})


def load(path: Path, run_id: str) -> tuple[dict[str, Tensor], dict[str, Any]] | None:
    """Tensors (on the CPU) and text of a run's checkpoint; none where it has none.

    Raises:
        SpfdeError: the file is damaged, or of another run or version.
    """
    if not path.exists():
        return None
    remedy = f"remove {path} to train the run from its start"
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            owner = metadata.get("run_id", "no run of this project")
            if owner != run_id:
                raise SpfdeError(f"checkpoint {path} belongs to {owner}, not to {run_id}", remedy)
            if metadata.get("format") != FORMAT:
                raise SpfdeError(f"checkpoint {path} was written by another version of spfde", remedy)
            return {name: file.get_tensor(name) for name in file.keys()}, json.loads(metadata["text"])  # noqa: SIM118
    except (SafetensorError, OSError, KeyError, json.JSONDecodeError) as error:
        raise SpfdeError(f"checkpoint {path} is damaged ({error})", remedy) from None


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
    """Takes back what `optimizer_tensors` gave, each tensor laid out in memory like its parameter."""
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
