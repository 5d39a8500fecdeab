"""One run, from settings to record.

    train(settings, load(settings.data, root, cache), out)  ->  out/<run id>/

A run can be killed at any moment and goes on from its last checkpoint, bit for bit: everything random is drawn from a
stream named by seed, purpose and epoch, so a checkpoint needs no generator states.
"""

import contextlib
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from spfde.api import SparseTraining
from spfde.data import AnySplit, LoaderBase, Splits, info, open_loader
from spfde.errors import SpfdeError, Stopped
from spfde.models import build
from spfde.planning import known_model
from spfde.rng import derive
from spfde.settings import RunSettings
from spfde.training import checkpoint, record
from spfde.training.clock import Clock
from spfde.training.distributed import Team
from spfde.training.progress import Progress, say
from spfde.training.weights import load_weights, save_snapshot


def train(
    settings: RunSettings,
    splits: Splits,
    out: Path,
    device: torch.device | None = None,
    clock: Clock | None = None,
    team: Team | None = None,
) -> Path:
    """Trains one run and writes its record; a finished one is left as it is, an interrupted one goes on.

    Args:
        settings: resolved settings.
        splits: the data they name.
        out: folder of the records.
        device: where to train; the CPU unless told.
        clock: says when to write checkpoints and when to stop.
        team: the processes that train it together; this one alone unless told.

    Returns:
        The record's folder.

    Raises:
        Stopped: the clock stopped the run; a checkpoint is there.
        SpfdeError: bad settings, checkpoint or disk.
    """
    folder, team = out / settings.run_id, team or Team()
    if team.any(record.finished(folder)):
        say(f"{settings.run_id}: finished before, skipped")
        return folder
    run = Training(settings, splits, device or torch.device("cpu"), clock or Clock(), team)
    path = checkpoint.path_of(out, settings.run_id)
    snapshots = path.with_suffix(".snapshots")
    run.resume(path)
    progress = Progress(settings.run_id, run.sparse.epochs, run.steps_per_epoch)
    try:
        for epoch in range(run.epoch, run.sparse.epochs):
            run.begin(epoch, snapshots)
            progress.begin(epoch, run.done)
            for batch in run.batches():
                run.step(*batch)
                progress.step()
                if team.any(run.clock.due()):
                    run.save(path)
            row = run.end()
            progress.end(epoch, row["train_loss"], row["test_accuracy"])
    finally:
        progress.close()
    run.finish(folder, snapshots)
    if team.rank == 0:
        path.unlink(missing_ok=True)
    return folder


class Training:
    """The parts of a run that a checkpoint has to know."""

    def __init__(
        self, settings: RunSettings, splits: Splits, device: torch.device, clock: Clock, team: Team | None = None
    ) -> None:
        self.settings, self.device, self.clock, self.team = settings, device, clock, team or Team()
        self.times = dict.fromkeys(("start", "events", "train", "evaluate", "checkpoints"), 0.0)
        self._mark = time.perf_counter()
        _set_arithmetic(settings)
        data, recipe = info(settings.data.name), settings.training
        torch.manual_seed(derive(settings.seed, "init"))
        model = build(settings.model.name, data.classes, data.channels, data.size, settings.model.width)
        self.model = load_weights(model, settings.model.weights).to(device)
        self.optimizer = torch.optim.SGD(
            self.model.parameters(),
            recipe.lr,
            recipe.momentum,
            weight_decay=recipe.weight_decay,
            nesterov=recipe.nesterov,
        )
        self.loader = open_loader(splits.train, settings.data, data, recipe.batch_size, settings.seed, device)
        self.sparse = SparseTraining(
            self.model,
            self.optimizer,
            settings,
            input_shape=(data.channels, data.size, data.size),
            samples=len(splits.train),
            fetch=self.loader.fetch,
            costs=known_model(settings.model.name, data, settings.model.width)[1],
        )

        def evaluation(split: AnySplit) -> LoaderBase:
            return open_loader(split, settings.data, data, 512, settings.seed, device, train=False)

        self.validation = evaluation(splits.validation) if splits.validation else None
        self.test = evaluation(splits.test)
        self.steps_per_epoch = int(self.sparse.plan.first_steps[1])
        sizes = self.sparse.plan.samples % recipe.batch_size  # of last batches; 0: they are full
        self.team.check(self.model, [size or recipe.batch_size for size in sizes.tolist()])
        self.rows: list[dict[str, Any]] = []
        self.resumed_from: list[dict[str, int]] = []
        self.epoch = 0  # the epoch in hand, through all rounds
        self.done = 0  # its steps done
        self.sums = torch.zeros(2, dtype=torch.float64, device=device)  # of losses and of correct samples in this epoch
        if device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(device)
        self._lap("start")

    def begin(self, epoch: int, snapshots: Path) -> None:
        """Boundary events, unless the epoch was begun before an interruption."""
        self.epoch = epoch
        if self.sparse.begun > epoch:
            return
        every = self.settings.training.snapshots
        done = epoch - (self.sparse.epochs - self.settings.training.epochs)  # epochs of the last round
        if self.team.rank == 0 and every and (epoch == 0 or (done > 0 and done % every == 0)):
            save_snapshot(self.model, snapshots, max(0, done))
        self.sparse.begin_epoch(epoch)
        if self.sparse.epoch == 0:
            self.rows = []  # a round that is followed by another leaves no rows
        self.sums.zero_()
        self.done = 0
        self._lap("events")

    def batches(self) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
        self.model.train()
        return self.loader.epoch(self.sparse.epoch, self.sparse.partial_set, self.done, self.team.share)

    def step(self, indices: Tensor, images: Tensor, labels: Tensor) -> None:
        """One training step: positions of the batch, images and labels of the team's share of it.

        Nothing here waits for the device.
        """
        self.team.before_step(self.model)
        with _autocast(self.settings, self.device):
            logits = self.model(images)
            loss = F.cross_entropy(logits, labels, label_smoothing=self.settings.training.label_smoothing)
        loss.backward()
        correct = logits.detach().argmax(dim=1) == labels
        loss, correct = self.team.merge(self.model, loss.detach(), correct, len(indices))
        self.optimizer.step()
        self.optimizer.zero_grad()
        self.sparse.count(indices, correct)
        self.sums += torch.stack([loss.double() * len(indices), correct.sum().double()])
        self.done += 1

    def end(self) -> dict[str, Any]:
        """Evaluates after an epoch and adds its row to epochs.csv."""
        sparse = self.sparse
        loss, correct = self.sums.tolist()  # waits for the device
        self._lap("train")
        seen, frozen = int(sparse.history.samples[sparse.epoch]), sparse.frozen_blocks
        if self.epoch + 1 == sparse.epochs:
            sparse.finish()  # the last row is of the weights that the record holds
        test_loss, test_accuracy = self.evaluate(self.test)
        val_accuracy = self.evaluate(self.validation)[1] if self.validation else None
        self._lap("evaluate")
        recipe = self.settings.training
        rates = sparse.plan.schedule.learning_rates(len(sparse.blocks), recipe.lr, min(recipe.lr, recipe.lr_min))
        row = (
            sparse.epoch,
            float(rates[sparse.epoch, 0]),
            float(rates[sparse.epoch, -1]),
            loss / seen,
            100 * correct / seen,
            val_accuracy,
            test_loss,
            test_accuracy,
            seen,
            frozen,
            sparse.masks.sparsity,
        )
        self.rows.append(dict(zip(record.EPOCH_COLUMNS, row, strict=True)))
        return self.rows[-1]

    @torch.no_grad()
    def evaluate(self, loader: LoaderBase) -> tuple[float, float]:
        """Mean loss and accuracy in percent over all samples of a split."""
        self.model.eval()
        sums = torch.zeros(2, dtype=torch.float64, device=self.device)
        for _, images, labels in loader.epoch(0, share=self.team.share):
            with _autocast(self.settings, self.device):
                logits = self.model(images).float()
            loss = F.cross_entropy(logits, labels, reduction="sum")
            sums += torch.stack([loss.double(), (logits.argmax(dim=1) == labels).sum().double()])
        loss, correct = (self.team.total(sums) / len(loader)).tolist()
        return loss, 100 * correct

    # resuming

    def save(self, path: Path) -> None:
        """Writes the checkpoint, and stops here if the clock says so."""
        self._lap("train")
        if self.team.rank == 0:
            self._write_checkpoint(path)
        stops = self.team.any(bool(self.clock.stopped))  # every process waits for the one that writes
        self.clock.saved()
        self._lap("checkpoints")
        if stops:
            why = self.clock.stopped or "another process"
            cause = f"{self.settings.run_id} stopped by {why} in epoch {self.epoch + 1} of {self.sparse.epochs}"
            raise Stopped(cause, "run the same command again to go on from there")

    def _write_checkpoint(self, path: Path) -> None:
        tensors = checkpoint.join(
            model=self.model.state_dict(),
            optimizer=checkpoint.optimizer_tensors(self.optimizer),
            sparse=self.sparse.state_dict(),
            run={"sums": self.sums},
        )
        text = {
            "epoch": self.epoch,
            "done": self.done,
            "rows": self.rows,
            "times": self.times,
            "resumed_from": self.resumed_from,
            "processes": self.team.size,
        }
        checkpoint.save(path, self.settings.run_id, tensors, text)

    def resume(self, path: Path) -> None:
        """Goes on from a checkpoint, if there is one."""
        loaded = checkpoint.load(path, self.settings.run_id)
        if self.team.any(loaded is not None) != (loaded is not None):
            raise SpfdeError(f"not all processes see the checkpoint {path}", "give --out a folder that they share")
        if loaded is None:
            return
        tensors, text = loaded
        if text["processes"] != self.team.size:
            cause = f"checkpoint {path} is of {text['processes']} processes that train together, not {self.team.size}"
            raise SpfdeError(cause, "go on with as many, or remove it to train the run from its start")
        model, optimizer, sparse, run = checkpoint.split(tensors, "model", "optimizer", "sparse", "run")
        self.model.load_state_dict(model)
        checkpoint.load_optimizer(self.optimizer, optimizer)
        self.sparse.load_state_dict(sparse)
        self.sums.copy_(run["sums"])
        self.epoch, self.done, self.rows, self.times = text["epoch"], text["done"], text["rows"], text["times"]
        self.resumed_from = [*text["resumed_from"], {"epoch": self.epoch, "step": self.done}]
        self._mark = time.perf_counter()
        say(f"{self.settings.run_id}: resumed in epoch {self.epoch + 1} after {self.done} steps of it")

    # the record

    def finish(self, folder: Path, snapshots: Path) -> None:
        sparse, settings = self.sparse, self.settings
        if self.team.rank == 0 and settings.training.snapshots:
            save_snapshot(self.model, snapshots, settings.training.epochs)
        state = {f"mask.{layer.name}": layer.active for layer in sparse.masks}
        if sparse.sieve:
            state |= {"partial_set": sparse.sieve.partial, "removed_queue": sparse.sieve.queue}
        trace = sparse.trace()
        values = self.summary(trace), self.model.state_dict(), state
        if self.team.rank == 0:
            record.write(folder, settings, self.rows, trace, *values, snapshots)
            shutil.rmtree(snapshots, ignore_errors=True)

    def summary(self, trace: Any) -> dict[str, Any]:
        """summary.json: accuracies in percent, shares as fractions, FLOPs, bytes and seconds as plain numbers."""
        sparse, settings = self.sparse, self.settings
        flops, memory = sparse.plan.costs(trace)
        best = max(self.rows, key=lambda row: row["val_accuracy"]) if self.validation else None  # the first of equals
        peak = torch.cuda.max_memory_allocated(self.device) if self.device.type == "cuda" else None
        return {
            "run_id": settings.run_id,
            "row": settings.row,
            "accuracy": {
                "test_last": self.rows[-1]["test_accuracy"],
                "test_at_best_val": best["test_accuracy"] if best else None,
                "best_val_epoch": best["epoch"] if best else None,
            },
            "sparsity": {"target": settings.sparsity.target, "achieved": sparse.masks.sparsity},
            "freezing": {
                "wanted": settings.freezing.flops_reduction,
                "achieved": sparse.plan.saved_by_freezing(trace),
                "t_frz": sparse.plan.schedule.t_frz,
            },
            "sieving": {
                "removed": sparse.sieve.removed if sparse.sieve else 0,
                "exchanges": sparse.sieve.updates if sparse.sieve else 0,
            },
            "masks": {
                "explored": sparse.masks.explored(),
                "overlap_first": sparse.masks.overlap_first(),
                "overlap_updates": sparse.masks.overlap_updates(),
            },
            "flops": flops,
            "memory": {**memory, "measured_peak": peak},
            "time": {"total": sum(self.times.values()), **self.times},
            "environment": {**record.environment(self.device), "processes": self.team.size},
            "resumed_from": self.resumed_from,
        }

    def _lap(self, part: str) -> None:
        """Adds the time since the last lap to a part of the run."""
        now = time.perf_counter()
        self.times[part] += now - self._mark
        self._mark = now


def _autocast(settings: RunSettings, device: torch.device) -> contextlib.AbstractContextManager[Any]:
    return torch.autocast(device.type, torch.bfloat16) if settings.precision == "bf16" else contextlib.nullcontext()


def _set_arithmetic(settings: RunSettings) -> None:
    """Threads and matrix arithmetic of the process; convolutions whose results do not depend on timing."""
    torch.set_num_threads(settings.threads)
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = settings.precision == "tf32"
    torch.backends.cudnn.deterministic = True
