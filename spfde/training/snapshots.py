"""Snapshots of a run: its weights after some epochs, kept beside the checkpoint until the record takes them over."""

from pathlib import Path

from safetensors.torch import save_file
from torch import nn

from spfde.errors import SpfdeError
from spfde.files import writing
from spfde.training.trust import file_digest


class Snapshots:
    """The snapshots of one run. If the run is killed at any moment, those that the checkpoint lists are whole.

    Args:
        folder: where they are kept, as `epoch-<n>.safetensors`.
        every: epochs between two snapshots; with 0 none are kept.

    Attributes:
        digests: SHA-256 of each file by name, as the checkpoint keeps them.
    """

    def __init__(self, folder: Path, every: int) -> None:
        self.folder, self.every = folder, every
        self.digests: dict[str, str] = {}

    def wanted(self, epoch: int) -> bool:
        """Whether a snapshot is kept after so many epochs; the one after the last epoch always is."""
        return bool(self.every) and epoch % self.every == 0

    def save(self, model: nn.Module, epoch: int) -> None:
        """Writes the weights after so many epochs."""
        path = self.folder / f"epoch-{epoch:04d}.safetensors"
        with writing(path, durable=True) as temporary:
            tensors = {name: value.detach().cpu().contiguous() for name, value in model.state_dict().items()}
            save_file(tensors, temporary)
            self.digests[path.name] = file_digest(temporary)

    def check(self, remedy: str) -> None:
        """Refuses to go on if a snapshot that the checkpoint lists is missing or damaged.

        Raises:
            SpfdeError: a snapshot is missing or damaged.
        """
        for name, digest in self.digests.items():
            path = self.folder / name
            try:
                found = file_digest(path) if path.is_file() else None
            except PermissionError:
                raise SpfdeError(f"no right to read snapshot {path}", "change its rights") from None
            if found is None:
                raise SpfdeError(f"snapshot {path} of the interrupted run is missing", remedy)
            if found != digest:
                raise SpfdeError(f"snapshot {path} of the interrupted run is damaged", remedy)
