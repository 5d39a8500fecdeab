"""What a method sees of the training that it acts on, without knowing the classes that provide it."""

from collections.abc import Mapping, Set
from contextlib import AbstractContextManager
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from spfde.sparsity.masks import Masks


class Skipping(Protocol):
    """What a method sees of the kernels that a training runs on (`spfde.execution`)."""

    @property
    def skips_zeros(self) -> bool:
        """Whether the forward and backward passes skip weights outside the masks in at least some layers."""

    @property
    def executed_layers(self) -> Set[str]:
        """Names of the layers that skipped them in the last forward pass."""

    def sample(self, extra: Mapping[str, Tensor]) -> AbstractContextManager[None]:
        """A context in which passes that skip zeros also compute the gradients at these places, by layer name."""

    def watch(self, watchers: Mapping[str, Any]) -> AbstractContextManager[None]:
        """A context in which watchers (`spfde.kernels.convolution.Watcher`) see what their layers, by name, work on."""


class Happened(Protocol):
    """What a method sees of a round's steps (`spfde.history.History`)."""

    def executed(self) -> np.ndarray:
        """Share of each dense pass that was run, by epoch and sparse layer; not a number in epochs without steps."""


class Run(Protocol):
    """What a method sees of the training that it acts on (`spfde.api.SparseTraining`)."""

    model: nn.Module
    optimizer: Optimizer
    masks: Masks
    epoch: int
    frozen_blocks: int

    @property
    def history(self) -> Happened:
        """What happened in the present round, or between two in the last one."""

    @property
    def execution(self) -> Skipping:
        """The kernels that the training runs on."""

    def generator(self, *key: object) -> torch.Generator:
        """The run's own random stream for `key`."""

    def fetch(self, indices: Tensor) -> tuple[Tensor, Tensor]:
        """Images and labels at indices of the training set, without random augmentation, on the model's device."""

    @property
    def samples(self) -> int:
        """Size of the training set."""

    @property
    def partial_set(self) -> Tensor | None:
        """The samples that training sees, (samples,) booleans; None if it sees all."""
