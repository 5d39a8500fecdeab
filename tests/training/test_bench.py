"""The benchmarks' arithmetic, with seconds put in by hand; and that each of them runs."""

import gc
from functools import partial
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

from spfde.experiments.resolve import resolve
from spfde.freezing import freezing_together
from spfde.models import blocks
from spfde.plans import plan_settings
from spfde.training.bench import composed, epochs, speed, turns
from spfde.training.bench.networks import Network, dense_step, known_profile, sparse_step
from spfde.training.bench.random_data import random_splits
from spfde.training.bench.research_loop import ResearchLoop
from spfde.training.run import Training

SHORT: dict[str, Any] = {"model": None, "epochs": 20, "samples": 48, "repeats": 2, "batch_size": 16}


@pytest.fixture
def hand(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """A clock that training moves: dense steps take 1 s, sparse ones 4 s less 1 s per frozen block; updates 2 s."""
    now, begin = [0.0], Training.begin

    def step(run: Training, *batch: Any) -> None:
        now[0] += 4.0 - run.sparse.frozen_blocks if len(run.sparse.masks) else 1.0
        run.done += 1

    def between(run: Training, epoch: int) -> None:
        begin(run, epoch)
        run.sparse.history.samples[run.sparse.epoch] = run.sparse.history.steps[run.sparse.epoch] = 1
        now[0] += 2.0

    monkeypatch.setattr(epochs, "step", step)
    monkeypatch.setattr(Training, "begin", between)
    monkeypatch.setattr(epochs, "_now", lambda device: now[0])
    monkeypatch.setattr("spfde.api.SparseTraining._end_epoch", lambda run: None)
    return now


def test_seconds_are_those_of_consecutive_epochs(hand: list[float]) -> None:
    frame = epochs.summarise(epochs.bench("smoke", torch.device("cpu"), **SHORT)).set_index(["kind", "flops_reduction"])
    assert frame.seconds_per_epoch["dense", 0.0] == 3 * 1 + 2  # 48 samples in batches of 16
    assert frame.seconds_per_epoch["masks", 0.0] == 3 * 4 + 2
    told = {"training.epochs": 20, "sparsity.interval": 2, "training.batch_size": 16, "sieving.removed": 0.0}
    for level in epochs.LEVELS:
        settings = resolve("smoke", {**told, "sparsity.method": "spfde", "freezing.flops_reduction": level})
        counts = np.array(plan_settings(settings).schedule.counts)
        assert frame.seconds_per_epoch["freezing", level] == pytest.approx((3 * (4 - counts) + 2).mean())
        assert frame.speedup["freezing", level] == pytest.approx(14 / (3 * (4 - counts) + 2).mean())
    assert frame.seconds_per_epoch["sieving", 0.25] == 3 * 4 + 2  # 36 of 48 samples are three batches too
    assert (frame.n == 2).all() and (frame["std"] == 0).all()
    assert set(frame.reset_index().kind) == {"dense", "masks", "freezing", "sieving", "both"}


def test_real_epochs_are_timed_in_every_case(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(epochs, "LEVELS", (0.25,))
    frame = epochs.bench("smoke", torch.device("cpu"), **{**SHORT, "epochs": 16, "repeats": 1, "samples": 20})
    assert len(frame) == 5 and (frame.seconds_per_epoch > 0).all() and (frame.mask_updates > 0).all()
    steps = frame.set_index(["kind", "flops_reduction"]).steps
    assert steps["masks", 0.0] == 2 and steps["sieving", 0.25] == 1  # 20 and 15 samples in batches of 16


def test_ratios_are_medians_over_the_turns() -> None:
    found = turns.ratio("x", [2, 9, 4, 2, 2], [1, 3, 1, 1, 2], goal=2.0)
    assert found == ("x", 2.0, 1.0, 4.0, 2.0, True, 5)
    assert turns.ratio("x", [3], [1], goal=2.0, at_most=True).met is False
    assert turns.ratio("x", [3], [1]).met is None
    many = turns.ratio("x", np.arange(1, 22), np.ones(21))
    assert (many.ratio, many.low, many.high) == (11, 5 + 1, 17 - 1)  # five values on either side are outside: 2.7 %


def test_jobs_take_turns_and_the_first_turn_is_not_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    order: list[str] = []
    monkeypatch.setattr(turns, "clock", lambda: float(len(order)))
    frame = turns.take_turns({name: partial(order.append, name) for name in "ab"}, 2)
    assert order == ["a", "b"] * 3 and frame.to_numpy().tolist() == [[1.0, 1.0]] * 2


def test_an_epoch_is_composed_of_the_schedules_steps() -> None:
    """Steps take 10 s less half a second a frozen block, evaluation batches 2 s, updates 5 s, exchanges 7 s."""
    plan = plan_settings(resolve("cifar100", speed.SPFDE))
    points = composed.points(plan)
    distinct = list(dict.fromkeys(points))
    assert len(distinct) == 12 and max(point.frozen for point in points) == 10
    seconds: dict[str, Any] = {"dense step": np.array([20.0]), "dense evaluation": np.array([3.0])}
    seconds["update"] = np.array([5.0])
    for number, point in enumerate(distinct):
        seconds[f"step {number}"] = np.array([10 - point.frozen / 2])
        seconds[f"evaluation {number}"] = np.array([2.0])
    spfde, dense = composed.compose(plan, 50_000, seconds, 7.0)
    frozen = np.array(plan.schedule.counts)
    updates = 5 * 32 + 7 * 31  # masks from epoch 0 on, samples from epoch 5 on, every fifth
    assert spfde == pytest.approx((586 * (10 - frozen / 2) + 20 * 2).mean() + updates / 160)  # 37,500 samples
    assert dense == 782 * 20 + 20 * 3


def test_points_are_arranged_as_the_plan_has_them() -> None:
    plan = plan_settings(resolve("smoke", {**speed.SPFDE, "freezing.flops_reduction": 0.2}))
    network = Network("resnet8", 8)
    point = composed.points(plan)[-1]
    assert point.frozen > 0
    settings = plan.settings
    sparse = composed.arranged(network, plan, point)
    known = dict(zip((layer.name for layer in plan.profile.layers), point.densities, strict=True))
    for layer in sparse.masks:
        assert float(layer.mask.mean()) == pytest.approx(known[layer.name], abs=0.02)
    assert sparse.frozen_blocks == point.frozen and settings.sparsity.target == sparse.settings.sparsity.target


def test_steps_train() -> None:
    network = Network("resnet8", 8)
    step = sparse_step(network, 0.8, frozen=1, wanted="dense")
    gc.collect()
    kept = step()  # nobody else holds the training: with it, masks and freezing would be gone
    assert not kept.hold.released and kept.frozen_blocks == 1
    assert all(bool((layer.weight[~layer.active] == 0).all()) for layer in kept.masks) and kept.masks.sparsity > 0.7
    assert network.images().shape == (64, 3, 8, 8)


@pytest.mark.parametrize(
    ("frozen", "bf16", "sparse"),
    [(0, False, False), (2, False, False), (0, True, False), (0, False, True), (1, False, True)],
)
def test_a_step_is_that_of_plain_torch(frozen: int, bf16: bool, sparse: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """SGD at the rate 0.01 with weight decay 1e-4, of labels 0, 1, 2 and so on; its momentum has no past yet."""
    network = Network("resnet8", 8)
    known_profile(network)  # is remembered, and made of another model of this network
    model, reference = network.build(), network.build()
    monkeypatch.setattr(Network, "build", lambda _: model)
    step = sparse_step(network, 0.8, frozen, "dense") if sparse else dense_step(network, frozen, bf16=bf16)
    reference.load_state_dict({name: value.clone() for name, value in model.state_dict().items()})
    layout = torch.contiguous_format if sparse else torch.channels_last
    images = network.images().to(memory_format=layout)
    reference.to(memory_format=layout).train()
    still = freezing_together(reference, blocks(reference))[:frozen]
    for parameters, modules in still:
        for parameter in parameters:
            parameter.requires_grad_(False)
        for module in modules:
            module.training = False
    with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
        loss = torch.nn.functional.cross_entropy(reference(images), torch.arange(64) % 100)
    loss.backward()
    near = {"rtol": 0.02, "atol": 2e-4} if bf16 else {"rtol": 1e-3, "atol": 1e-6}
    before = [parameter.detach().clone() for parameter in reference.parameters()]
    kept = step()
    assert (kept is None) != sparse
    moved = 0
    for old, wanted, found in zip(before, reference.parameters(), model.parameters(), strict=True):
        change = torch.zeros_like(old) if wanted.grad is None else -0.01 * (wanted.grad + 1e-4 * old)
        if sparse and old.dim() == 4:
            change[old == 0] = 0
        torch.testing.assert_close(found.detach() - old, change, **near)
        moved += bool(change.any())
    assert moved == sum(parameter.requires_grad for parameter in reference.parameters())
    assert bool(still) == any(not parameter.requires_grad for parameter in reference.parameters())


def test_the_research_loop_counts_what_is_forgotten() -> None:
    splits = random_splits("cifar100", 12)
    model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(3072, 100))
    mask = (torch.arange(307_200).view(100, 3072) % 2).float()
    loop = ResearchLoop(model, torch.optim.SGD(model.parameters(), 0.1), {"1.weight": mask}, splits.train, 4)
    for _ in range(6):
        loop.step()
    assert not model[1].weight[mask == 0].any() and model[1].weight[mask == 1].all()
    assert len(loop.right) == 12 and set(loop.right.values()) <= {0, 1}


def test_rows_have_what_the_command_prints(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(speed, "take_turns", lambda jobs, count: pd.DataFrame({name: [1.0, 2.0] for name in jobs}))
    monkeypatch.setattr(speed, "sparse_step", lambda *told: None)
    (first, *_) = speed.bench(["resnet20"], 2)
    assert first == ("resnet20 at 80%", 1.0, 1.0, 1.0, 2.5, False, 2)
    assert "MISSED" in turns.line(first)
