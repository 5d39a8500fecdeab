"""The numbers of a run's record: a row of epochs.csv per epoch, and summary.json."""

from typing import TYPE_CHECKING, Any, Literal

import pandas as pd
import torch

from spfde.experiments.files import protocol_of
from spfde.training import record

if TYPE_CHECKING:
    from spfde.training.run import Trained, Training


def epoch_row(
    run: "Training", trained: "Trained", tested: tuple[float, float] | None, validated: tuple[float, float] | None
) -> dict[str, Any]:
    """The row of epochs.csv for the epoch that has just ended, or in which the run diverged.

    Args:
        run: the run.
        trained: loss, accuracy and learning rates of the training steps.
        tested: loss and accuracy in percent on the test set; None if the run diverged.
        validated: the same on the held-out samples, if there are any.
    """
    sparse = run.sparse
    row = (
        sparse.epoch,
        trained.lr_first,
        trained.lr_last,
        trained.loss,
        trained.accuracy,
        validated[1] if validated else None,
        *(tested or (None, None)),
        trained.samples,
        sparse.plan.schedule.counts[sparse.epoch],
        sparse.masks.sparsity,
    )
    return dict(zip(record.EPOCH_COLUMNS, row, strict=True))


def summary(run: "Training", trace: pd.DataFrame, status: Literal["finished", "diverged"]) -> dict[str, Any]:
    """summary.json: accuracies in percent, shares as fractions, FLOPs, bytes and seconds as plain numbers.

    A run that diverged has the costs of the epochs that it trained, and no accuracy.
    """
    sparse, settings = run.sparse, run.settings
    flops, memory = sparse.plan.costs(trace)
    known = [row for row in run.rows if row["val_accuracy"] is not None]
    best = max(known, key=lambda row: row["val_accuracy"]) if known else None  # the first one if several are equal
    peak = torch.cuda.max_memory_allocated(run.device) if run.device.type == "cuda" else None
    decided = sparse.sieve.decided if sparse.sieve else torch.zeros(0)
    return {
        "run_id": settings.run_id,
        "row": settings.row,
        "status": status,
        "protocol": protocol_of(settings.scale),
        "epochs": len(run.rows),
        "accuracy": {
            "test_last": run.rows[-1]["test_accuracy"],
            "test_at_best_val": best["test_accuracy"] if best else None,
            "best_val_epoch": best["epoch"] if best else None,
        },
        "sparsity": {"target": settings.sparsity.target, "achieved": sparse.masks.sparsity},
        "freezing": {
            "wanted": settings.freezing.flops_reduction,
            "achieved": sparse.plan.saved_by_freezing(trace) if status == "finished" else None,
            "t_frz": sparse.plan.schedule.t_frz,
        },
        "sieving": {
            "removed": sparse.sieve.removed if sparse.sieve else 0,
            "exchanges": sparse.sieve.updates if sparse.sieve else 0,
            # The share of the leaving samples, at each exchange, that the score decided and not chance among equal
            # scores.
            "decided": decided.mean().item() if len(decided) else None,
            "decided_by_exchange": decided.tolist(),
        },
        "masks": {
            "explored": sparse.masks.explored(),
            "overlap_first": sparse.masks.overlap_first(),
            "overlap_updates": sparse.masks.overlap_updates(),
        },
        "flops": flops,
        "memory": {**memory, "measured_peak": peak},
        "time": {"total": sum(run.times.values()), "cpu": run.cpu, **run.times},
        "environment": {**run.environment, "kernels": sparse.execution.describe()},
        "resumed_from": run.resumed_from,
    }
