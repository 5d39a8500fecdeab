"""Several processes that train one run together: `torchrun --nproc-per-node 4 -m spfde train ...`.

Each process takes its share of every batch. One message per step sums what the processes computed: gradients, BatchNorm
statistics, predictions and losses. The message stays on the device, and nothing waits for it. Everything else is
computed in each process from the same numbers, so weights, masks, freezing and sieving are the same in all of them, bit
for bit.

Together the processes do what a single process would do that goes through the shares of a batch one after another and
accumulates their gradients. The gradient is the mean over the whole batch (also RigL's dense gradients). BatchNorm
normalises each share by its own statistics, and its running statistics take in the shares in order; in a frozen block
they do not change.
"""

import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, distributed, nn
from torch.nn.modules.batchnorm import _BatchNorm

from spfde.errors import Diverged, SpfdeError, Stopped
from spfde.training.device import choose


class Team:
    """The processes that train a run, from the point of view of one of them; this class is a process that trains alone.

    Attributes:
        rank: number of this process; 0 writes checkpoints and records.
        size: number of processes.
    """

    rank = 0
    size = 1

    def check(self, model: nn.Module, batch_sizes: Iterable[int]) -> None:
        """Refuses a model or batches that cannot be shared."""

    def share(self, batch: Tensor) -> Tensor:
        """This process's part of a batch; the parts are in the order of the ranks."""
        return batch

    def before_step(self, model: nn.Module) -> None:
        """Called before the forward pass of a training step."""

    def merge(self, model: nn.Module, loss: Tensor, correct: Tensor, samples: int) -> tuple[Tensor, Tensor]:
        """After the backward pass: gradients and BatchNorm statistics become those of the whole batch.

        Args:
            model: the model, with the gradients of this process's share.
            loss: mean loss of the share.
            correct: (share,) booleans, what was predicted correctly.
            samples: of the whole batch.

        Returns:
            Mean loss and predictions, (samples,) booleans, of the whole batch.
        """
        return loss, correct

    def total(self, values: Tensor) -> Tensor:
        """The sum over all processes."""
        return values

    def any(self, flag: bool) -> bool:
        """Whether the flag is set in any process; waits for the other processes, not for the device."""
        return flag

    def first(self, value: int) -> int:
        """The value of the first process, in all processes; waits for the other processes."""
        return value


class Ranks(Team):
    """One of several processes; torch.distributed has been initialised."""

    def __init__(self) -> None:
        self.rank, self.size = distributed.get_rank(), distributed.get_world_size()
        self._norms: list[_BatchNorm] = []
        self._before: list[Tensor] = []

    def check(self, model: nn.Module, batch_sizes: Iterable[int]) -> None:
        if (least := min(batch_sizes)) < self.size:
            cause = f"a batch of {least} samples cannot be shared by {self.size} processes"
            raise SpfdeError(cause, "change training.batch_size so that the last batch of an epoch is larger")
        if any(norm.momentum is None for norm in _norms(model)):
            cause = "a BatchNorm without momentum averages over all steps, which several processes cannot share"
            raise SpfdeError(cause, "give it a momentum, or train in one process")

    def share(self, batch: Tensor) -> Tensor:
        return batch.tensor_split(self.size)[self.rank]

    def before_step(self, model: nn.Module) -> None:
        self._norms = [norm for norm in _norms(model) if norm.training]
        self._before = [statistic.clone() for statistic in _statistics(self._norms)]

    def merge(self, model: nn.Module, loss: Tensor, correct: Tensor, samples: int) -> tuple[Tensor, Tensor]:
        # Shares differ in size when the batch does not divide evenly, so each process weighs its mean gradient and mean
        # loss by its part of the samples; the sum over the processes is then the mean over the whole batch. Predictions
        # are laid out over the whole batch, 0 outside of this process's share, so that a sum puts them together too.
        # Everything goes into one message: its latency would otherwise be paid once per parameter.
        part = len(correct) / samples
        gradients = [parameter.grad for parameter in model.parameters() if parameter.grad is not None]
        torch._foreach_mul_(gradients, part)
        statistics = self._taken_in()
        predictions = torch.zeros(samples, device=loss.device)
        start = self.rank * (samples // self.size) + min(self.rank, samples % self.size)
        predictions[start : start + len(correct)] = correct.float()

        tensors = [*gradients, *statistics, loss.float() * part, predictions]
        message = torch.cat([tensor.reshape(-1) for tensor in tensors])
        distributed.all_reduce(message)
        sums = [
            values.view_as(tensor)
            for values, tensor in zip(message.split([tensor.numel() for tensor in tensors]), tensors, strict=True)
        ]
        torch._foreach_copy_(gradients, sums[: len(gradients)])
        self._take_in(sums[len(gradients) : -2])
        return sums[-2], sums[-1] > 0.5

    def total(self, values: Tensor) -> Tensor:
        distributed.all_reduce(values)
        return values

    def any(self, flag: bool) -> bool:
        found = torch.tensor(int(flag))
        distributed.all_reduce(found, distributed.ReduceOp.MAX)
        return bool(found)

    def first(self, value: int) -> int:
        received = torch.tensor(value)
        distributed.broadcast(received, src=0)
        return int(received)

    # One process that accumulates the shares would update a running statistic r once per share, with that share's
    # statistic m and k = 1 - momentum: r <- k r + (1 - k) m. After all shares, in the order of the ranks, this is
    # r k^size + the sum over the ranks of k^(size - 1 - rank) (1 - k) m. Each process can compute its own term of that
    # sum: its BatchNorm has turned r into k r + (1 - k) m, and `before_step` kept r.

    def _kept(self) -> list[float]:
        """k of each running mean and variance."""
        return [1 - float(norm.momentum or 0) for norm in self._norms for _ in range(2)]

    def _taken_in(self) -> list[Tensor]:
        """This process's term of the sum."""
        if not self._norms:
            return []
        old = torch._foreach_mul(self._before, self._kept())
        new = torch._foreach_sub(_statistics(self._norms), old)
        return list(torch._foreach_mul(new, [kept ** (self.size - 1 - self.rank) for kept in self._kept()]))

    def _take_in(self, sums: list[Tensor]) -> None:
        if self._norms:
            old = torch._foreach_mul(self._before, [kept**self.size for kept in self._kept()])
            torch._foreach_copy_(_statistics(self._norms), torch._foreach_add(old, sums))
            steps = [norm.num_batches_tracked for norm in self._norms if norm.num_batches_tracked is not None]
            torch._foreach_add_(steps, self.size - 1)


@contextmanager
def joined(device: str | None) -> Iterator[tuple[Team, torch.device]]:
    """The team of this process and its device: alone, unless torchrun started it together with others.

    The processes part at the end of the run, and where it diverges or is stopped, which all of them find out at the
    same step. An error that one of them alone may have ends it at once, and torchrun ends the others: parting would
    wait for them.

    Args:
        device: name of the device, as on the command line; with GPUs each process of a machine takes its own.
    """
    chosen = choose(device)
    if not distributed.is_torchelastic_launched() or os.environ["WORLD_SIZE"] == "1":
        yield Team(), chosen
        return
    if chosen.type == "cuda":
        chosen = choose(f"cuda:{os.environ['LOCAL_RANK']}")
        torch.cuda.set_device(chosen)
    distributed.init_process_group("cpu:gloo,cuda:nccl" if chosen.type == "cuda" else "gloo")
    try:
        yield Ranks(), chosen
    except (Diverged, Stopped):
        distributed.destroy_process_group()
        raise
    distributed.destroy_process_group()


def _norms(model: nn.Module) -> list[_BatchNorm]:
    return [module for module in model.modules() if isinstance(module, _BatchNorm) and module.track_running_stats]


def _statistics(norms: list[_BatchNorm]) -> list[Tensor]:
    return [value for norm in norms for value in (norm.running_mean, norm.running_var) if value is not None]
