"""Weights that training starts from, in a safetensors file."""

from pathlib import Path
from typing import TypeVar

from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import nn

from spfde.errors import SpfdeError
from spfde.files import check_file

M = TypeVar("M", bound=nn.Module)


def load_weights(model: M, path: str | None) -> M:
    """Puts the weights of a file into a model; without a file the model stays as it is.

    Raises:
        SpfdeError: the file cannot be read or belongs to another network.
    """
    if path is None:
        return model
    check_file(Path(path), "model.weights =", "name a safetensors file")
    try:
        model.load_state_dict(load_file(path))
    except (OSError, SafetensorError) as error:
        raise SpfdeError(f"model.weights = {path} cannot be read ({error})", "name a safetensors file") from None
    except RuntimeError as error:
        why = str(error).splitlines()[-1].strip()
        raise SpfdeError(
            f"model.weights = {path} does not fit the model ({why})", "choose the model it came from"
        ) from None
    return model
