"""The device a run trains on."""

import torch

from spfde.errors import SpfdeError


def choose(name: str | None) -> torch.device:
    """The named device; without a name the GPU, or the CPU if there is none.

    Raises:
        SpfdeError: no such device here.
    """
    if name is None:
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    remedy = "use --device cpu, or leave it out"
    try:
        device = torch.device(name)
    except RuntimeError:
        raise SpfdeError(f'unknown device "{name}"', remedy) from None
    if device.type not in ("cpu", "cuda"):
        raise SpfdeError(f'device "{name}" is not supported', "use cpu or cuda")
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise SpfdeError(f'device "{name}" is not there ({torch.cuda.device_count()} GPUs found)', remedy)
    return device
