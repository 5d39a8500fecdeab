"""Data-efficient MEST: its row, its cost at the paper's scale, and one removal in a training loop."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from spfde.api import SparseTraining
from spfde.experiments.resolve import nested, resolve
from spfde.plans import plan_settings
from spfde.settings import RunSettings, parse


def test_cost_at_the_papers_scale() -> None:
    """70 epochs of 50,000 samples and 90 of 38,000, at the densities of EM&S."""
    settings = resolve("cifar100", {"sparsity.method": "mest-data-efficient", "sparsity.target": 0.9})
    assert settings.row == "mest-data-efficient-s90-d24"
    plan = plan_settings(settings)
    assert plan.samples.sum() == 70 * 50_000 + 90 * 38_000
    steps = np.diff(plan.first_steps)
    assert steps[:70].tolist() == [782] * 70 and steps[70:].tolist() == [594] * 90
    bounds = {"sparsity.options": {"preset": "scripts"}}  # +0.05, +0.025, 0
    full = plan_settings(resolve("cifar100", {"sparsity.method": "mest-ems", "sparsity.target": 0.9, **bounds}))
    by_epoch = full.trace().assign(work=full.trace()["forward_density"] * full.trace()["samples"])
    macs = {layer.name: layer.macs for layer in full.profile.layers}
    work = (by_epoch["work"] * by_epoch["layer"].map(macs)).groupby(by_epoch["epoch"]).sum()
    share = (work[:70].sum() + 0.76 * work[70:].sum()) / work.sum()
    counted, without = plan.costs(plan.trace())[0], full.costs(full.trace())[0]
    assert counted["paper"] / without["paper"] == pytest.approx(share)
    upper = [plan.method.densities(epoch)["layer1.0.conv1"] for epoch in (0, 89, 90, 119, 120, 159)]
    assert upper == pytest.approx([0.15, 0.15, 0.125, 0.125, 0.1, 0.1])  # the bounds of MEST's scripts


def test_removal_in_a_training_loop() -> None:
    values = nested({"training.epochs": 16, "training.batch_size": 10, "sparsity.interval": 1})
    values["sparsity"]["method"] = "mest-data-efficient"
    values["sieving"] = {"removed": 0.24, "schedule": "once"}
    model = nn.Sequential(nn.Linear(6, 12), nn.ReLU(), nn.Linear(12, 12), nn.ReLU(), nn.Linear(12, 2))
    optimizer = torch.optim.SGD(model.parameters(), 0.1, 0.9)
    sparse = SparseTraining(model, optimizer, parse(RunSettings, values), input_shape=(6,), samples=50)
    data = torch.randn(50, 6, generator=torch.Generator().manual_seed(1))
    labels = (data[:, 0] > 0).long()
    for epoch in range(16):
        sparse.begin_epoch(epoch)
        order = torch.tensor(list(sparse.sampler))
        assert len(order) == len(sparse.sampler) == (50 if epoch < 7 else 38)
        for batch in order.split(10):
            logits = model(data[batch])
            F.cross_entropy(logits, labels[batch]).backward()
            optimizer.step()
            optimizer.zero_grad()
            sparse.observe(batch, logits, labels[batch])
    sparse.finish()
    assert sparse.history.samples.tolist() == sparse.plan.samples.tolist() == [50] * 7 + [38] * 9
    assert sparse.sieve is not None and sparse.sieve.updates == 1
    assert sparse.masks["2"].active.sum() == 14  # 10 % of 144, half up
