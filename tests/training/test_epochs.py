"""The rows of epochs.csv, each number counted again from what the steps and the networks gave."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from torch import Tensor

from spfde.data import info, load
from spfde.experiments.resolve import resolve
from spfde.models import build
from spfde.plans import plan_settings
from spfde.training import loop
from spfde.training.run import Training

TOLD = {
    "sparsity.method": "spfde",
    "freezing.flops_reduction": 0.2,
    "freezing.share": 1.0,
    "training.epochs": 8,
    "training.batch_size": 48,
    "training.warmup_epochs": 2,
    "training.label_smoothing": 0.1,
    "data.train_limit": 250,
    "data.validation": 0.2,
}


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, pd.DataFrame]:
    """A record, and what its steps gave: epoch, samples, mean loss, correct predictions."""
    steps: list[tuple[int, int, float, int]] = []
    count = Training.count

    def listen(run: Training, loss: Tensor, correct: Tensor) -> None:
        steps.append((run.epoch, len(correct), float(loss), int(correct.sum())))
        count(run, loss, correct)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Training, "count", listen)
        settings = resolve("smoke", TOLD)
        folder = loop.train(settings, load(settings.data, None, None), tmp_path_factory.mktemp("runs"))
    return folder, pd.DataFrame(steps, columns=["epoch", "samples", "loss", "correct"])


def test_training_columns_are_means_over_the_samples_of_all_steps(trained: tuple[Path, pd.DataFrame]) -> None:
    folder, steps = trained
    epochs, by_epoch = pd.read_csv(folder / "epochs.csv"), steps.groupby("epoch")
    samples = by_epoch["samples"].sum()
    assert epochs["samples"].tolist() == samples.tolist() and set(steps["samples"]) > {48}  # a last batch is short
    weighted = (steps["loss"] * steps["samples"]).groupby(steps["epoch"]).sum() / samples
    np.testing.assert_allclose(epochs["train_loss"], weighted, rtol=1e-6)
    np.testing.assert_allclose(epochs["train_accuracy"], 100 * by_epoch["correct"].sum() / samples, rtol=1e-12)
    assert epochs["train_accuracy"].between(0, 100).all() and epochs["train_accuracy"].nunique() > 3


def test_the_last_row_is_of_the_network_in_the_record(trained: tuple[Path, pd.DataFrame]) -> None:
    """Evaluated here by hand: without label smoothing, in evaluation mode, over all samples of both splits."""
    folder, _ = trained
    last = pd.read_csv(folder / "epochs.csv").iloc[-1]
    settings, data = resolve("smoke", TOLD), info("digits")
    model = build(settings.model.name, data.classes, data.channels, data.size, settings.model.width).eval()
    model.load_state_dict(load_file(folder / "model.safetensors"))
    splits = load(settings.data, None, None)
    assert splits.validation
    for split, accuracy in ((splits.test, last["test_accuracy"]), (splits.validation, last["val_accuracy"])):
        images = (split.images.float() / 255 - data.mean[0]) / data.std[0]
        with torch.no_grad():
            logits = model(images)
        assert accuracy == pytest.approx(100 * float((logits.argmax(1) == split.labels).double().mean()))
        if split is splits.test:
            assert last["test_loss"] == pytest.approx(float(F.cross_entropy(logits, split.labels)), rel=1e-4)


def test_rates_blocks_and_sparsity_are_those_of_the_plan(trained: tuple[Path, pd.DataFrame]) -> None:
    folder, _ = trained
    epochs, settings = pd.read_csv(folder / "epochs.csv"), resolve("smoke", TOLD)
    schedule = plan_settings(settings).schedule
    assert epochs["epoch"].tolist() == list(range(8)) and epochs["frozen_blocks"].tolist() == list(schedule.counts)
    assert epochs["frozen_blocks"].iloc[-1] == 3 and (epochs["lr_first"][epochs["frozen_blocks"] > 0] == 0).all()
    lr = settings.training.lr
    cosine = [lr / 2 * (1 + np.cos(np.pi * epoch / 8)) for epoch in range(8)]  # of the classifier, which never freezes
    warm = [min(1.0, (epoch + 1) / 2) for epoch in range(8)]
    np.testing.assert_allclose(epochs["lr_last"], np.array(cosine) * warm, rtol=1e-3, atol=1e-6)
    assert epochs["sparsity"].iloc[-1] == pytest.approx(0.9, abs=1e-3) and epochs["sparsity"].is_monotonic_increasing
