"""Lottery tickets: rounds and their cost in closed form, rewinding bit for bit, resuming in the middle of a round."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from spfde.api import SparseTraining
from spfde.cost.flops import flops
from spfde.cost.trace import EXECUTED, read_trace
from spfde.data import load
from spfde.errors import SpfdeWarning, Stopped
from spfde.execution import Wanted
from spfde.experiments.resolve import nested, resolve
from spfde.plans import plan_settings
from spfde.settings import RunSettings, parse
from spfde.training.clock import Clock
from spfde.training.loop import train


def lottery(target: float, **settings: object) -> RunSettings:
    dotted = {key.replace("__", "."): value for key, value in settings.items()}
    return parse(RunSettings, nested({"sparsity.method": "lottery", "sparsity.target": target, **dotted}))


def network() -> nn.Sequential:
    torch.manual_seed(1)
    return nn.Sequential(nn.Flatten(), nn.Linear(12, 20), nn.BatchNorm1d(20), nn.ReLU(), nn.Linear(20, 5))


def prepared(settings: RunSettings, kernels: Wanted = "dense") -> SparseTraining:
    model = network()
    optimizer = torch.optim.SGD(model.parameters(), 0.1, momentum=0.9, weight_decay=1e-3)
    return SparseTraining(model, optimizer, settings, input_shape=(3, 2, 2), samples=16, kernels=kernels)


def train_epoch(run: SparseTraining, epoch: int) -> None:
    run.begin_epoch(epoch)
    draws = torch.Generator().manual_seed(epoch)
    for _ in range(2):
        images, labels = torch.randn(8, 3, 2, 2, generator=draws), torch.randint(5, (8,), generator=draws)
        nn.functional.cross_entropy(run.model(images), labels).backward()
        run.optimizer.step()
        run.optimizer.zero_grad()
        run.observe(torch.arange(8), torch.zeros(8, 5), labels)


def copied(model: nn.Module) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in model.state_dict().items()}


@pytest.mark.parametrize(("target", "prunings", "trainings"), [(0.9, 11, 4.67), (0.95, 14, 4.83), (0.98, 18, 4.93)])
def test_rounds_and_their_cost(target: float, prunings: int, trainings: float) -> None:
    """5 (1 - 0.8^n) trainings of the dense network before the last one, and 1 - s for that."""
    common = {"sparsity.dense_layers": "none", "training.epochs": 3}
    plan = plan_settings(resolve("smoke", {"sparsity.method": "lottery", "sparsity.target": target, **common}))
    dense = plan_settings(resolve("smoke", {"sparsity.method": "dense", **common}))
    assert plan.method.rounds == prunings + 1
    cost, whole = (flops(each.profile, each.trace())["full"] for each in (plan, dense))
    assert cost / whole == pytest.approx(5 * (1 - 0.8**prunings) + 1 - target, rel=1e-4)
    assert cost / whole == pytest.approx(trainings, abs=0.005)


def test_each_round_prunes_the_smallest_of_what_remains_and_rewinds_the_rest() -> None:
    settings = lottery(0.6, training__epochs=1, sparsity__dense_layers="none")
    run = prepared(settings)
    initial = copied(run.model)
    layers = list(run.masks)
    size = sum(layer.weight.numel() for layer in layers)
    assert run.epochs == 6  # 0.8^4 = 0.41 is more than 0.4: the fifth round prunes the rest of the way
    train_epoch(run, 0)
    assert all(bool(layer.active.all()) for layer in layers)
    for done in range(1, 6):
        trained = torch.cat([layer.weight.detach().abs().flatten() for layer in layers])
        before = torch.cat([layer.active.flatten() for layer in layers])
        run.method.next_round(run)
        after = torch.cat([layer.active.flatten() for layer in layers])
        assert int(after.sum()) == int(max(0.4, 0.8**done) * size + 0.5)
        assert not (after & ~before).any()
        assert trained[after].min() >= trained[before & ~after].max()
        masks = {f"{layer.name}.weight": layer.mask for layer in layers}
        for name, value in run.model.state_dict().items():
            assert torch.equal(value, initial[name] * masks[name] if name in masks else initial[name])
        assert not run.optimizer.state
        for layer in layers:  # a round's worth of change
            layer.weight.data.add_(torch.randn(layer.weight.shape)).mul_(layer.mask)
    assert run.masks.overlap_first() == 1 and run.masks.explored() == 1


def test_the_trace_counts_earlier_rounds_with_their_real_densities() -> None:
    run = prepared(lottery(0.5, training__epochs=2, sparsity__dense_layers="none"))
    costs = np.array([240, 100])
    expected, densities = np.zeros(2), []
    for epoch in range(run.epochs):
        train_epoch(run, epoch)
        density = np.array([float(layer.mask.mean()) for layer in run.masks])
        densities.append(density)
        if epoch < run.epochs - 2:
            expected += 16 * costs * density * [2, 3]  # the first layer has no input gradient
    trace = run.trace()
    assert trace.groupby("layer", sort=False).extra_macs.sum().to_numpy() == pytest.approx(expected)
    assert trace.forward_density[:2].to_numpy() == pytest.approx(densities[-1])
    assert densities[-1][0] != densities[-1][1]


def test_what_ran_are_dense_kernels_in_every_round() -> None:
    """90 % takes 12 trainings: each costs a dense one whatever is masked, and the first one as much memory."""
    settings = {"training.epochs": 10, "training.batch_size": 64}
    dense, ticket = (
        plan_settings(resolve("smoke", {"sparsity.method": name, **target, **settings}))
        for name, target in (("dense", {}), ("lottery", {"sparsity.target": 0.9}))
    )
    (once, memory), (twelve, peak) = (plan.costs(plan.trace()) for plan in (dense, ticket))
    assert twelve["executed"] == pytest.approx(12 * once["executed"])
    assert twelve["full"] < 0.5 * twelve["executed"]
    assert peak["full_peak"] >= memory["full_peak"]
    assert peak["paper_min"] < memory["paper_min"]


def test_the_trace_counts_what_ran_in_earlier_rounds() -> None:
    """Where kernels skip the zeros, an earlier round is no dense training; nor is what is still to come known."""
    run = prepared(lottery(0.5, training__epochs=2, sparsity__dense_layers="none"), "sparse")
    costs, expected = np.array([240, 100]), np.zeros(2)
    for epoch in range(run.epochs):
        train_epoch(run, epoch)
        if epoch < run.epochs - 2:
            trace = run.trace()
            ran = trace[trace.epoch == run.epoch][EXECUTED].to_numpy().sum(axis=1)
            expected += 16 * costs * ran
    trace = run.trace()
    found = trace.groupby("layer", sort=False).executed_extra_macs.sum().to_numpy()
    assert found == pytest.approx(expected)
    dense = 16 * 2 * (run.method.rounds - 1) * costs * [2, 3]  # the first layer has no input gradient
    assert (found < 0.9 * dense).all()
    planned = run.plan.method.__class__(run.method.plan, run.method.options).earlier_executed(run.plan.profile.rows)
    assert (planned == run.method.rounds - 1).all()


def test_rounds_that_an_earlier_version_did_not_count_are_dense() -> None:
    settings = lottery(0.5, training__epochs=2, sparsity__dense_layers="none")
    run = prepared(settings, "sparse")
    for epoch in range(5):  # two rounds are over, the second of them sparse
        train_epoch(run, epoch)
    older = {name: value for name, value in run.state_dict().items() if name != "method.ran"}
    resumed = prepared(settings, "sparse")
    resumed.model.load_state_dict(copied(run.model))
    with pytest.warns(SpfdeWarning, match="counts them as dense"):
        resumed.load_state_dict(older)
    assert resumed.trace().executed_extra_macs.sum() == pytest.approx(16 * 2 * (run.method.rounds - 1) * 780)
    assert run.trace().executed_extra_macs.sum() < resumed.trace().executed_extra_macs.sum()


def test_earlier_rounds_freeze_like_the_last() -> None:
    common = {"sparsity.method": "lottery", "sparsity.target": 0.5, "training.epochs": 10}
    frozen = plan_settings(resolve("smoke", {**common, "freezing.flops_reduction": 0.1}))
    trace = frozen.trace()
    ordinary = (
        (trace.forward_density > 0).astype(float) + (trace.input_grad_density > 0) + (trace.weight_grad_density > 0)
    )
    first = trace.extra_macs / ordinary
    assert first.groupby(trace.layer).std().max() == pytest.approx(0, abs=1e-6)
    assert trace[trace.frozen].extra_macs.gt(0).any()


def test_state_goes_on_from_the_middle_of_a_round() -> None:
    settings = lottery(0.5, training__epochs=2)
    straight, stopped = prepared(settings), prepared(settings)
    for epoch in range(straight.epochs):
        train_epoch(straight, epoch)
    for epoch in range(3):  # half of the second round
        train_epoch(stopped, epoch)
    model, sparse, optimizer = copied(stopped.model), stopped.state_dict(), stopped.optimizer.state_dict()
    resumed = prepared(settings)
    resumed.model.load_state_dict(model)
    resumed.optimizer.load_state_dict(optimizer)
    resumed.load_state_dict({name: value.clone() for name, value in sparse.items()})
    for epoch in range(3, resumed.epochs):
        train_epoch(resumed, epoch)
    for name, value in straight.model.state_dict().items():
        assert torch.equal(value, resumed.model.state_dict()[name])
    pd.testing.assert_frame_equal(straight.trace(), resumed.trace())


def test_no_target_is_one_dense_training() -> None:
    run = prepared(lottery(0.0, training__epochs=1))
    assert run.epochs == 1
    train_epoch(run, 0)
    assert run.masks.sparsity == 0 and not run.trace().extra_macs.any()


class StopAfter(Clock):
    """Stops after a number of steps."""

    def __init__(self, steps: int) -> None:
        super().__init__()
        self.left = steps

    def due(self) -> bool:
        self.left -= 1
        return self.left == 0

    @property
    def stopped(self) -> str:
        return "the test"


SMALL = {
    "sparsity.method": "lottery",
    "sparsity.target": 0.5,
    "training.epochs": 3,
    "data.train_limit": 256,
    "training.batch_size": 64,
    "training.snapshots": 1,
}


def test_a_run_is_recorded_by_its_last_round_whether_stopped_or_not(tmp_path: Path) -> None:
    settings = resolve("smoke", SMALL)
    splits = load(settings.data, None, None)
    folder = train(settings, splits, tmp_path / "whole")
    epochs, trace = pd.read_csv(folder / "epochs.csv"), read_trace(folder / "layers.csv")
    summary = json.loads((folder / "summary.json").read_text())
    assert epochs.epoch.tolist() == [0, 1, 2] and trace.epoch.nunique() == 3
    assert (epochs.samples == 256).all() and epochs.sparsity.to_numpy() == pytest.approx(0.5, abs=1e-4)
    assert trace.groupby("layer").forward_density.nunique().eq(1).all()
    assert summary["flops"]["extra"] == pytest.approx(2 * trace.extra_macs.sum())
    assert summary["flops"]["extra"] > 3 * (summary["flops"]["full"] - summary["flops"]["extra"])
    assert summary["masks"]["overlap_first"] == 1
    model = load_file(folder / "model.safetensors")
    density = {name: float((model[f"{name}.weight"] != 0).float().mean()) for name in trace.layer.unique()}
    last = trace[trace.epoch == 2].set_index("layer").forward_density
    assert last.to_dict() == pytest.approx(density, abs=1e-6)
    with pytest.raises(Stopped):
        train(settings, splits, tmp_path / "stopped", clock=StopAfter(4 * 3 + 6))  # in the second epoch of round two
    resumed = train(settings, splits, tmp_path / "stopped")
    names = sorted(path.relative_to(folder) for path in folder.rglob("*") if path.is_file())
    assert Path("snapshots/epoch-0003.safetensors") in names and Path("snapshots/epoch-0004.safetensors") not in names
    for name in names:
        if "summary" not in name.name:
            assert (resumed / name).read_bytes() == (folder / name).read_bytes()
