"""The order in which a loop of your own sees the training set."""

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

import torch
from torch.utils.data import Sampler

if TYPE_CHECKING:
    from spfde.api import SparseTraining


class PartialSetSampler(Sampler[int]):
    """Positions of the partial set in a fresh order each epoch: a subsequence of the order of the whole set.

    Args:
        training: gives the training, once there is one: it is asked whenever an epoch's order is drawn.
    """

    def __init__(self, training: "Callable[[], SparseTraining]") -> None:
        self.training = training

    def __iter__(self) -> Iterator[int]:
        sparse = self.training()
        order = torch.randperm(sparse.samples, generator=sparse.generator("order", max(0, sparse.epoch)))
        member = sparse.partial_set
        yield from (order if member is None else order[member.cpu()[order]]).tolist()

    def __len__(self) -> int:
        sparse = self.training()
        return int(sparse.plan.samples[max(0, sparse.epoch)])
