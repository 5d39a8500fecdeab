"""The training loop of one run, and the one step that training and `spfde bench` share.

    train(settings, load(settings.data, root, cache), out)  ->  out/<run id>/

What a run is made of, and its checkpoint, is in `run.py`; what it leaves behind is in `summary.py` and `record.py`.
"""

import math
from contextlib import closing
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from spfde.data import LoaderBase, Splits
from spfde.errors import Diverged
from spfde.execution import Wanted
from spfde.settings import RunSettings
from spfde.training import checkpoint, record
from spfde.training.clock import Clock
from spfde.training.distributed import Team
from spfde.training.lock import alone
from spfde.training.progress import Progress, say
from spfde.training.recorded import Steps, own_stream
from spfde.training.run import Training
from spfde.training.summary import epoch_row, summary


def train(
    settings: RunSettings,
    splits: Splits,
    out: Path,
    device: torch.device | None = None,
    clock: Clock | None = None,
    team: Team | None = None,
    kernels: Wanted = "auto",
) -> Path:
    """Trains one run and writes its record; a finished run is left as it is, an interrupted one goes on.

    Args:
        settings: resolved settings.
        splits: the data that they name.
        out: folder of the records.
        device: where to train; the CPU by default.
        clock: says when to write checkpoints and when to stop.
        team: the processes that train the run together; by default this process trains it alone.
        kernels: as in `SparseTraining`; they do not belong to the run's identity.

    Returns:
        The record's folder.

    Raises:
        Stopped: the clock stopped the run; there is a checkpoint, from which the same call goes on.
        Diverged: loss or weights became infinite or NaN, now or when the run trained before; its record says so.
        SpfdeError: bad settings, a bad checkpoint, or a disk that cannot be written.
    """
    folder, path = out / settings.run_id, checkpoint.path_of(out, settings.run_id)
    device, clock, team = device or torch.device("cpu"), clock or Clock(), team or Team()
    if finished_before(settings, out, team):
        return folder
    with alone(path, settings.run_id, team, clock), own_stream(device):
        if finished_before(settings, out, team):  # another process was training it
            return folder
        if team.rank == 0:
            record.make_room(folder, path)
        run = Training(settings, splits, device, clock, team, kernels)
        run.resume(path)
        try:
            run_epochs(run)
        except Diverged:
            run.rows.append(epoch_row(run, run.trained(), None, None))
            run.sparse.history.close(run.sparse.epoch)
            run.finish(folder, run.trace(), summary(run, run.trace(), "diverged"))
            raise
        predictions = predict(run, run.test)
        run.finish(folder, run.trace(), summary(run, run.trace(), "finished"), predictions)
    return folder


def finished_before(settings: RunSettings, out: Path, team: Team) -> bool:
    """Whether there is the record of a finished run already; no data are needed to say so.

    Raises:
        Diverged: there is the record of a run that diverged.
    """
    folder = out / settings.run_id
    endings = ("", "finished", "diverged")
    ended = endings[team.first(endings.index(record.ending(folder)) if team.rank == 0 else 0)]
    if ended == "diverged":
        raise Diverged(f"{settings.run_id} diverged before", f"remove {folder} to train it again")
    if ended:
        if team.rank == 0:  # where the run was killed right after it wrote its record, it left a checkpoint
            record.discard(checkpoint.path_of(out, settings.run_id))
        say(f"{settings.run_id}: finished before, skipped")
    return bool(ended)


def run_epochs(run: Training) -> None:
    """The epochs that a run has still to do.

    Raises:
        Stopped, Diverged: as `train`.
    """
    steps = Steps(run, step)
    with closing(Progress(run.settings.run_id, run.sparse.epochs, run.steps_per_epoch)) as progress:
        for epoch in range(run.epoch, run.sparse.epochs):
            run.begin(epoch)  # mask update, sieve update, freezing, learning rates
            progress.begin(epoch, run.done)
            for indices, images, labels in run.batches():
                steps(indices, images, labels)
                progress.step()
                run.save_if_due()
            steps.forget()
            trained = run.end()
            tested = evaluate(run, run.test)
            validated = evaluate(run, run.validation) if run.validation else None
            run.rows.append(epoch_row(run, trained, tested, validated))
            progress.end(epoch, trained.loss, tested[1])


def step(run: Training, indices: Tensor, images: Tensor, labels: Tensor) -> None:
    """One training step. Nothing in it waits for the device.

    Args:
        run: the run.
        indices: (batch,) indices of the whole batch in the training set.
        images: (share, channels, height, width), of this process's share of the batch.
        labels: (share,) classes of the same.
    """
    run.team.before_step(run.model)
    with run.autocast():
        logits = run.model(images)
        loss = F.cross_entropy(logits, labels, label_smoothing=run.settings.training.label_smoothing)
    loss.backward()
    correct = logits.detach().argmax(dim=1) == labels
    loss, correct = run.team.merge(run.model, loss.detach(), correct, len(indices))
    # All that is sparse about a step happens in two hooks that SparseTraining has registered on the optimizer (api.py).
    # Before the step, the method may look at the dense gradients (RigL, GSE); then every gradient outside of a mask is
    # set to 0, so that momentum and weight decay do not gather what a masked weight would have learned. After the step,
    # every weight outside of a mask is set to 0, the step is counted in the trace, and methods that change their masks
    # between steps (RigL, DeepR) do so. Blocks that are frozen have no gradient, and the optimizer leaves them alone.
    run.optimizer.step()
    run.optimizer.zero_grad()
    run.sparse.count(indices, correct)
    run.count(loss, correct)


@torch.no_grad()
def evaluate(run: Training, loader: LoaderBase) -> tuple[float, float]:
    """Mean loss, and accuracy in percent, over all samples of a split.

    Raises:
        Diverged: the loss is not finite.
    """
    run.model.eval()
    sums = torch.zeros(2, dtype=torch.float64, device=run.device)
    for _, images, labels in loader.epoch(0, share=run.team.share):
        with run.autocast():
            logits = run.model(images).float()
        loss = F.cross_entropy(logits, labels, reduction="sum")
        sums += torch.stack([loss.double(), (logits.argmax(dim=1) == labels).sum().double()])
    loss_per_sample, share_correct = (run.team.total(sums) / len(loader)).tolist()
    run.lap("evaluate")
    if not math.isfinite(loss_per_sample):
        raise run.diverged("the loss of evaluation")
    return loss_per_sample, 100 * share_correct


@torch.no_grad()
def predict(run: Training, loader: LoaderBase) -> dict[str, Tensor]:
    """What the network says of every sample of a split, one number for each in the order of the split.

    Returns:
        `predicted`, the class (uint8, or int16 where there are more than 256 classes), and `correct` (uint8, 0 or 1).
    """
    run.model.eval()
    found = torch.zeros(2, len(loader), dtype=torch.int64, device=run.device)
    for indices, images, labels in loader.epoch(0, share=run.team.share):
        with run.autocast():
            classes = run.model(images).argmax(dim=1)
        found[:, run.team.share(indices)] = torch.stack([classes, (classes == labels).long()])
    predicted, correct = run.team.total(found)
    run.lap("evaluate")
    small = torch.uint8 if int(predicted.max()) < 256 else torch.int16
    return {"predicted": predicted.to(small), "correct": correct.to(torch.uint8)}
