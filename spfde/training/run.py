"""What a run is made of: model, optimizer, data, masks and counters, and the checkpoint that holds them.

A run can be killed at any moment and goes on from its last checkpoint, bit for bit: everything random is drawn from a
stream named by seed, purpose and epoch, so a checkpoint needs no generator states.
"""

import contextlib
import math
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd
import torch
from torch import Tensor

from spfde.api import SparseTraining
from spfde.data import AnySplit, LoaderBase, Splits, info, open_loader
from spfde.errors import Diverged, SpfdeError, Stopped
from spfde.execution import Wanted
from spfde.models import build
from spfde.plans import known_model
from spfde.rng import derive
from spfde.settings import RunSettings
from spfde.training import checkpoint, record
from spfde.training.clock import Clock
from spfde.training.distributed import Team
from spfde.training.environment import changes, data_digest, environment
from spfde.training.layout import memory_format
from spfde.training.progress import say
from spfde.training.snapshots import Snapshots
from spfde.training.weights import load_weights


class Trained(NamedTuple):
    """Loss and accuracy of an epoch of training, over the samples that it saw, and its learning rates."""

    loss: float
    accuracy: float  # percent
    samples: int
    lr_first: float  # of the first freezing block
    lr_last: float  # of what is in no block, or of the last one


class Training:
    """The parts of a run, and what a checkpoint has to store of them.

    Attributes:
        model, optimizer, sparse: the network, SGD, and the masks, freezing and sieving around them.
        validation, test: loaders of the splits for evaluation; no validation loader if no samples are held out.
        steps_per_epoch: training steps of an epoch at most; sieved epochs have fewer.
        epoch: the present epoch, counted through all rounds of a method that trains more than once.
        done: how many steps of the present epoch are done.
        rows: the rows of epochs.csv so far.
        times: seconds that each part of the run has taken.
        cpu: seconds that the process has used on all cores; on a busy machine they say more than wall-clock time.
        resumed_from: the points at which the run was interrupted, in order.
    """

    def __init__(
        self,
        settings: RunSettings,
        splits: Splits,
        device: torch.device,
        clock: Clock,
        team: Team | None = None,
        kernels: Wanted = "auto",
    ) -> None:
        self.settings, self.device, self.clock, self.team = settings, device, clock, team or Team()
        self.times = dict.fromkeys(("start", "events", "train", "evaluate", "checkpoints"), 0.0)
        self.cpu = 0.0
        self._mark = time.perf_counter(), time.process_time()
        _set_arithmetic(settings)
        data, recipe = info(settings.data.name), settings.training
        torch.manual_seed(derive(settings.seed, "init"))
        model = build(settings.model.name, data.classes, data.channels, data.size, settings.model.width)
        layout = memory_format(model, (data.channels, data.size, data.size), device.type, settings.precision)
        self.model = load_weights(model, settings.model.weights).to(device)
        if device.type == "cuda":
            self.model = self.model.to(memory_format=layout)
        self.optimizer = torch.optim.SGD(
            self.model.parameters(),
            recipe.lr,
            recipe.momentum,
            weight_decay=recipe.weight_decay,
            nesterov=recipe.nesterov,
        )
        self.loader = open_loader(splits.train, settings.data, data, recipe.batch_size, settings.seed, device)
        self.loader.memory_format = layout
        self.sparse = SparseTraining(
            self.model,
            self.optimizer,
            settings,
            input_shape=(data.channels, data.size, data.size),
            samples=len(splits.train),
            fetch=self.loader.fetch,
            costs=known_model(settings.model.name, data, settings.model.width)[1],
            kernels=kernels,
        )

        def evaluation(split: AnySplit) -> LoaderBase:
            loader = open_loader(split, settings.data, data, 512, settings.seed, device, train=False)
            loader.memory_format = layout
            return loader

        self.validation = evaluation(splits.validation) if splits.validation else None
        self.test = evaluation(splits.test)
        self.steps_per_epoch = int(self.sparse.plan.first_steps[1])
        sizes = self.sparse.plan.samples % recipe.batch_size  # of last batches; 0: they are full
        self.team.check(self.model, [size or recipe.batch_size for size in sizes.tolist()])
        self.rows: list[dict[str, Any]] = []
        self.resumed_from: list[dict[str, Any]] = []
        own = {"processes": self.team.size, "data": data_digest(splits), "kernels": self.sparse.execution.identity}
        self.environment = {**environment(device), **own}
        self.epoch = 0
        self.done = 0
        self.path: Path | None = None  # of the checkpoint
        self.snapshots: Snapshots | None = None
        self._sums = torch.zeros(2, dtype=torch.float64, device=device)  # losses and correct samples of this epoch
        if device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(device)
        self.lap("start")

    # what the loop calls

    def begin(self, epoch: int) -> None:
        """Makes the boundary events before an epoch, unless they were made before an interruption."""
        self.epoch = epoch
        if self.sparse.begun > epoch:
            return
        done = max(0, epoch - (self.sparse.epochs - self.settings.training.epochs))  # epochs of the last round only
        if self.snapshots and self.snapshots.wanted(done) and (done or not epoch):
            self.snapshots.save(self.model, done)
        self.sparse.begin_epoch(epoch)
        if self.sparse.epoch == 0:
            self.rows = []  # a round that is followed by another leaves no rows
        self._sums.zero_()
        self.done = 0
        self.lap("events")

    def batches(self) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
        """The remaining batches of the epoch: their indices, and images and labels of this process's share."""
        self.model.train()
        return self.loader.epoch(self.sparse.epoch, self.sparse.partial_set, self.done, self.team.share)

    def autocast(self) -> contextlib.AbstractContextManager[Any]:
        """The arithmetic of the forward pass."""
        if self.settings.precision == "bf16":
            return torch.autocast(self.device.type, torch.bfloat16)
        return contextlib.nullcontext()

    def count(self, loss: Tensor, correct: Tensor) -> None:
        """Counts a step that is done; on a GPU the numbers stay on the device.

        Args:
            loss: mean loss of the batch.
            correct: (batch,) booleans, whose class was predicted.

        Raises:
            Diverged: on a CPU, where looking costs nothing, the loss is not finite.
        """
        self._sums += torch.stack([loss.double() * len(correct), correct.sum().double()])
        self.done += 1
        if self.device.type == "cpu":
            self._check_loss()

    def trained(self) -> Trained:
        """Loss, accuracy and rates of the steps of this epoch so far; waits for the device."""
        loss, correct = self._sums.tolist()
        samples = int(self.sparse.history.samples[self.sparse.epoch])
        groups = self.optimizer.param_groups  # split by block, in forward order
        rates = float(groups[0]["lr"]), float(groups[-1]["lr"])
        return Trained(loss / samples, 100 * correct / samples, samples, *rates)

    def trace(self) -> pd.DataFrame:
        """What happened in the epochs that were trained, the last one perhaps in part (columns: `spfde.cost.trace`)."""
        trace = self.sparse.trace()
        return trace[trace["epoch"] <= self.sparse.epoch]

    def end(self) -> Trained:
        """Ends an epoch. After the last one, the weights become the plain weights that the record holds.

        Raises:
            Diverged: loss or weights are not finite.
        """
        self.check_finite()
        trained = self.trained()
        self.lap("train")
        if self.epoch + 1 == self.sparse.epochs:
            self.sparse.finish()
        return trained

    def check_finite(self) -> None:
        """Checks whether the run has diverged; waits for the device.

        A loss that is infinite or NaN makes the sum over the epoch so too, so none is missed between two checks.

        Raises:
            Diverged: a loss of this epoch, or a weight, is infinite or NaN.
        """
        self._check_loss()
        finite = [parameter.detach().isfinite().all() for parameter in self.model.parameters()]
        if not bool(torch.stack(finite).all()):
            raise self.diverged("a weight")

    def _check_loss(self) -> None:
        if not math.isfinite(float(self._sums[0])):
            raise self.diverged("the loss")

    def diverged(self, what: str) -> Diverged:
        """The error that says so."""
        cause = (
            f"{self.settings.run_id} diverged in epoch {self.epoch + 1} of {self.sparse.epochs} ({what} is not finite)"
        )
        return Diverged(cause, "lower training.lr, or leave the record as it is: it counts as diverged")

    def finish(
        self, folder: Path, trace: pd.DataFrame, summary: dict[str, Any], predictions: dict[str, Tensor] | None = None
    ) -> None:
        """Writes the record with this trace, summary.json and test predictions, and removes the checkpoint."""
        sparse, settings = self.sparse, self.settings
        if self.snapshots and self.snapshots.every:
            self.snapshots.save(self.model, settings.training.epochs)
        state = {f"mask.{layer.name}": layer.active for layer in sparse.masks}
        if sparse.sieve:
            state |= {"partial_set": sparse.sieve.partial, "removed_queue": sparse.sieve.queue}
        if self.team.rank == 0:
            kept = self.snapshots.folder if self.snapshots else None
            record.write(folder, settings, self.rows, trace, summary, self.model.state_dict(), state, kept, predictions)
            if self.path:
                record.discard(self.path)

    def lap(self, part: str) -> None:
        """Adds the time since the last lap to a part of the run."""
        now = time.perf_counter(), time.process_time()
        self.times[part] += now[0] - self._mark[0]
        self.cpu += now[1] - self._mark[1]
        self._mark = now

    # the checkpoint

    def save_if_due(self) -> None:
        """Writes a checkpoint if the clock of any process asks for one."""
        if self.team.any(self.clock.due()):
            self.save()

    def save(self) -> None:
        """Writes the checkpoint, and stops the run here if the clock says so.

        Raises:
            Stopped: the clock says so.
            Diverged: loss or weights are not finite; such a state is not kept.
        """
        self.check_finite()
        self.lap("train")
        if self.team.rank == 0 and self.path:
            checkpoint.save(self.path, self.settings.run_id, *self._packed())
        stops = self.team.any(bool(self.clock.stopped))  # every process waits until the first one has written
        self.clock.saved()
        self.lap("checkpoints")
        if stops:
            why = self.clock.stopped or "another process"
            cause = f"{self.settings.run_id} stopped by {why} in epoch {self.epoch + 1} of {self.sparse.epochs}"
            raise Stopped(cause, "run the same command again to go on from there")

    def _packed(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """The tensors and the text of the checkpoint."""
        tensors = checkpoint.join(
            model=self.model.state_dict(),
            optimizer=checkpoint.optimizer_tensors(self.optimizer),
            sparse=self.sparse.state_dict(),
            run={"sums": self._sums},
        )
        text = {
            "epoch": self.epoch,
            "done": self.done,
            "rows": self.rows,
            "times": self.times,
            "cpu": self.cpu,
            "resumed_from": self.resumed_from,
            "environment": self.environment,
            "snapshots": self.snapshots.digests if self.snapshots else {},
        }
        return tensors, text

    def resume(self, path: Path) -> None:
        """Uses this path for checkpoints from now on, and continues from the one that is there, if any.

        Raises:
            SpfdeError: the checkpoint is damaged, is of another run, another number of processes or other data, or its
                snapshots are missing.
        """
        self.path = path
        if self.team.rank == 0 and self.settings.training.snapshots:
            self.snapshots = Snapshots(path.with_suffix(".snapshots"), self.settings.training.snapshots)
        loaded = checkpoint.load(path, self.settings.run_id)
        if self.team.any(loaded is not None) != (loaded is not None):
            raise SpfdeError(f"not all processes see the checkpoint {path}", "give --out a folder that they share")
        if loaded is None:
            return
        tensors, text = loaded
        try:
            self._unpack(tensors, text, path)
        except (KeyError, ValueError, IndexError, TypeError, RuntimeError, AttributeError) as error:
            why = f"{error.__class__.__name__}: {error}".splitlines()[0]
            cause = f"checkpoint {path} does not fit this version of spfde ({why})"
            raise SpfdeError(cause, checkpoint.remedy(path)) from error
        self._mark = time.perf_counter(), time.process_time()
        say(f"{self.settings.run_id}: resumed in epoch {self.epoch + 1} after {self.done} steps of it")

    def _unpack(self, tensors: dict[str, Tensor], text: dict[str, Any], path: Path) -> None:
        before, now = text["environment"], self.environment
        if before["processes"] != now["processes"]:
            many = f"{before['processes']} processes that train together, not {now['processes']}"
            raise SpfdeError(f"checkpoint {path} is of {many}", f"go on with as many, or {checkpoint.remedy(path)}")
        if before["data"] != now["data"]:
            cause = f"checkpoint {path} is of other data than those that are there now"
            raise SpfdeError(cause, f"bring the data back, or {checkpoint.remedy(path)}")
        if self.snapshots:
            self.snapshots.digests = text["snapshots"]
            self.snapshots.check(checkpoint.remedy(path))
        model, optimizer, sparse, run = checkpoint.split(tensors, "model", "optimizer", "sparse", "run")
        self.model.load_state_dict(model)
        checkpoint.load_optimizer(self.optimizer, optimizer)
        self.sparse.load_state_dict(sparse)
        self._sums.copy_(run["sums"])
        self.epoch, self.done, self.rows = text["epoch"], text["done"], text["rows"]
        self.times, self.cpu = text["times"], text["cpu"]
        where: dict[str, Any] = {"epoch": self.epoch, "step": self.done}
        if changed := changes(before, now):
            others = ", ".join(f"{name} ({old} -> {new})" for name, (old, new) in changed.items())
            say(f"warning: {self.settings.run_id} goes on with other {others}; its record will say so")
            where["changed"] = changed
        self.resumed_from = [*text["resumed_from"], where]


def _set_arithmetic(settings: RunSettings) -> None:
    """Threads and matrix arithmetic of the process; convolutions whose results do not depend on timing."""
    torch.set_num_threads(settings.threads)
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = settings.precision == "tf32"
    torch.backends.cudnn.deterministic = True
