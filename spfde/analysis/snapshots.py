"""The snapshots of a record: the network as it was after some of the epochs, and as it was at the end."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from spfde.data import info
from spfde.errors import SpfdeError
from spfde.files import check_file, read_yaml
from spfde.models import build
from spfde.settings import RunSettings, parse
from spfde.sparsity.layers import SHORTCUT, layers

State = dict[str, Tensor]


@dataclass(frozen=True)
class Snapshots:
    """The weights that a record holds.

    Attributes:
        folder: the record's.
        settings: the run's.
        epochs: numbers of epochs after which there is a snapshot, ascending; the last is the end of training.
    """

    folder: Path
    settings: RunSettings
    epochs: tuple[int, ...]

    @classmethod
    def of(cls, folder: Path) -> "Snapshots":
        """Raises SpfdeError: no record, or one of a run that kept no snapshots."""
        path = folder / "settings.yaml"
        if not path.is_file():
            raise SpfdeError(f"{folder} is not a record", "name the folder of a finished run")
        settings = parse(RunSettings, read_yaml(path, "settings file", "train that run again"))
        found = (int(path.stem.removeprefix("epoch-")) for path in folder.glob("snapshots/epoch-*.safetensors"))
        kept = sorted(epoch for epoch in found if epoch < settings.training.epochs)
        if not kept:
            raise SpfdeError(f"{folder} has no snapshots", "train the run with --set training.snapshots=5")
        return cls(folder, settings, (*kept, settings.training.epochs))

    @property
    def final(self) -> State:
        """Weights at the end of training."""
        return self._load("model")

    @property
    def masked(self) -> tuple[str, ...]:
        """Names of the sparse layers."""
        return tuple(key.removeprefix("mask.") for key in self._load("state") if key.startswith("mask."))

    def trained(self) -> Iterator[tuple[int, State]]:
        """Pairs (epochs of training, weights), in order; the end of training is last.

        The network as it was before the first mask is left out.
        """
        for epoch in self.epochs[:-1]:
            if epoch:
                yield epoch, self._load(f"snapshots/epoch-{epoch:04d}")
        yield self.epochs[-1], self.final

    def model(self) -> nn.Module:
        """A fresh network of the kind that the run trained; making it leaves the random state as it was."""
        data, model = info(self.settings.data.name), self.settings.model
        with torch.random.fork_rng(devices=[]):
            return build(model.name, data.classes, data.channels, data.size, model.width)

    def _load(self, name: str) -> State:
        path = self.folder / f"{name}.safetensors"
        check_file(path, "record", "train that run again")
        try:
            return load_file(path)
        except (OSError, SafetensorError) as error:
            raise SpfdeError(f"{path} cannot be read ({error})", "train that run again") from None


def numbers(model: nn.Module) -> dict[str, int]:
    """The number of each layer by name, as the papers count: from 1 along the network, without shortcuts.

    ResNet-32 has 32: the stem, two convolutions in each of 15 blocks, the classifier.
    """
    return {
        name: number
        for number, name in enumerate((name for name in layers(model) if not SHORTCUT.search(name)), start=1)
    }
