"""The order in which your own training loop sees the training set."""

from collections.abc import Callable, Iterator
from typing import Protocol

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Sampler

from spfde.errors import SpfdeError


class Training(Protocol):
    """What the sampler needs of a training; `spfde.SparseTraining` has it."""

    samples: int
    epoch: int

    @property
    def partial_set(self) -> Tensor | None: ...

    def generator(self, *key: object) -> torch.Generator: ...


class PartialSetSampler(Sampler[int]):
    """Indices of the partial set in a fresh order each epoch: a subsequence of the order of the whole set.

    Args:
        counts: samples of each epoch, shape (epochs,).
        training: a function that returns the training, or None before there is one; called whenever an order is drawn.
    """

    def __init__(self, counts: np.ndarray, training: Callable[[], Training | None]) -> None:
        self.counts = counts
        self.training = training

    def __iter__(self) -> Iterator[int]:
        sparse = self.training()
        if sparse is None:
            raise SpfdeError("samples are drawn before training begins", "use the sampler's loader in training alone")
        order = torch.randperm(sparse.samples, generator=sparse.generator("order", max(0, sparse.epoch)))
        member = sparse.partial_set
        yield from (order if member is None else order[member.cpu()[order]]).tolist()

    def __len__(self) -> int:
        sparse = self.training()
        return int(self.counts[max(0, sparse.epoch) if sparse else 0])
