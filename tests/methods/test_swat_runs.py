"""SWAT's runs: thresholds, dense master weights, costs, resuming, freezing, and shares by momentum."""

import copy
import dataclasses
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from spfde.api import SparseTraining
from spfde.cost import flops, make_trace, memory, profile
from spfde.data import load
from spfde.errors import SpfdeError, SpfdeWarning
from spfde.experiments.resolve import nested, resolve
from spfde.freezing.schedule import Schedule
from spfde.methods.swat import shares
from spfde.models import build
from spfde.plans import plan_settings
from spfde.rounding import up
from spfde.settings import RunSettings, parse
from spfde.training.clock import Clock
from spfde.training.run import Training
from tests.test_api import DATA, LABELS, SAMPLES, Net


class Loop:
    """A plain training loop of four steps an epoch."""

    def __init__(self, method: str, epochs: int = 12, **dotted: Any) -> None:
        values = {"training.epochs": epochs, "training.batch_size": 10, "sparsity.interval": 2}
        values |= {"sparsity.method": method} | {key.replace("__", "."): value for key, value in dotted.items()}
        self.model = Net()
        self.optimizer = torch.optim.SGD(self.model.parameters(), 0.05, 0.9, weight_decay=1e-3)
        self.sparse = SparseTraining(
            self.model, self.optimizer, parse(RunSettings, nested(values)), input_shape=(1, 6, 6), samples=SAMPLES
        )

    def step(self, batch: Tensor) -> None:
        logits = self.model(DATA[batch])
        F.cross_entropy(logits, LABELS[batch]).backward()
        self.optimizer.step()
        self.optimizer.zero_grad()
        self.sparse.observe(batch, logits, LABELS[batch])

    def run(self, begin: int, end: int) -> "Loop":
        for epoch in range(begin, end):
            self.model.train()
            self.sparse.begin_epoch(epoch)
            for batch in torch.tensor(list(self.sparse.sampler)).split(10):
                self.step(batch)
        return self


def test_thresholds_are_exact_every_period_and_cached_between() -> None:
    loop = Loop("swat-u", epochs=3)
    method, layer = loop.sparse.method, loop.sparse.masks["two.0"]
    assert method.period == 10
    loop.sparse.begin_epoch(0)
    count = up(0.1 * layer.weight.numel())
    assert count == 58 and int(layer.count) == 58
    weights, activations = [], []
    for step in range(21):
        magnitude = layer.weight.detach().abs()
        exact = magnitude.flatten().sort(descending=True).values[count - 1]
        loop.step(torch.arange(10) + 10 * (step % 4))
        weights.append((float(method.forwards["two.0"].weight_threshold), float(exact)))
        activations.append(float(method.forwards["two.0"].threshold))
        if (step + 1) % 10:  # the mask is that of the threshold in force; at the tenth step the old one stays for now
            assert (layer.weight.detach().abs() >= weights[-1][0]).equal(layer.active)
    assert [now == exact for now, exact in weights] == [step % 10 == 0 for step in range(21)]
    assert [len({now for now, _ in weights[begin : begin + 10]}) for begin in (0, 10)] == [1, 1]
    assert [len(set(activations[begin : begin + 10])) for begin in (0, 10)] == [1, 1]
    assert len(set(activations)) == 3


@pytest.mark.parametrize("name", ["swat-u", "swat-erk", "swat-m"])
def test_masters_are_dense_in_training_and_the_end_has_exact_zeros(name: str) -> None:
    settings = {"sparsity__dense_layers": "first" if name == "swat-u" else "none"}
    loop = Loop(name, sparsity__distribution="erk" if name == "swat-erk" else "uniform", **settings).run(0, 12)
    masks = loop.sparse.masks
    assert ("one.0" in masks.layers) == (name != "swat-u")
    for layer in masks:
        assert layer.weight.detach().ne(0).all()
        assert loop.optimizer.state[layer.weight]["momentum_buffer"].ne(0).float().mean() > 0.9
    loop.model.eval()
    before = loop.model(DATA)
    method = loop.sparse.method
    for layer in masks:
        assert int(layer.count) == pytest.approx(
            method.forwards[layer.name].count, rel=0.1
        )  # a few steps after exact ones
    trace = loop.sparse.trace()
    in_force = copy.deepcopy(loop.model.state_dict())
    for layer in masks:
        in_force[f"{layer.name}.weight"] *= layer.mask
    loop.sparse.finish()
    for layer in masks:
        assert int(layer.weight.count_nonzero()) == method.forwards[layer.name].count == int(layer.count)
    loop.model.load_state_dict(in_force)
    torch.testing.assert_close(loop.model(DATA), before)  # evaluation used the sparse weights before
    sizes = {layer.name: layer.weight.numel() for layer in masks}
    planned = {layer: round(density * sizes[layer]) for layer, density in method.plan.densities.items()}
    counts = {layer.name: int(layer.count) for layer in masks}
    assert sum(counts.values()) == sum(planned.values())
    assert (counts == planned) == (name != "swat-m")
    assert len({count / sizes[layer] for layer, count in counts.items()}) > 1 or name == "swat-u"
    assert 0 < masks.overlap_first() < 1
    macs = {layer.name: layer.macs for layer in loop.sparse.plan.profile.layers}
    work = 2 * trace["samples"] * trace["layer"].map(macs)
    extra = work * (1 - trace["forward_density"]) * trace["activation_density"]
    assert extra.sum() > 0
    assert flops(loop.sparse.plan.profile, trace)["extra"] == pytest.approx(extra.sum())


def test_the_trace_has_the_weights_and_activations_that_were_used() -> None:
    """Between exact thresholds both shares move, and the zeros behind a ReLU are never used."""
    loop = Loop("swat-u", epochs=3)
    layer, forward = loop.sparse.masks["three.0"], loop.sparse.method.forwards["three.0"]
    used, seen, kept = [], [], []

    def look(_: torch.nn.Module, inputs: tuple[Tensor, ...], __: Tensor) -> None:
        seen.append(int(layer.active.sum()))
        kept.append(float(((inputs[0].abs() >= forward.threshold) & (inputs[0] != 0)).double().mean()))

    loop.model.three[0].register_forward_hook(look)
    for epoch in range(3):
        loop.sparse.begin_epoch(epoch)
        for step in range(4):
            loop.step(torch.arange(10) + 10 * step)
            used.append(seen.pop() / layer.weight.numel())
    trace = loop.sparse.trace()
    found = trace[trace["layer"] == "three.0"]
    assert found["forward_density"].tolist() == pytest.approx(np.reshape(used, (3, 4)).mean(axis=1).tolist())
    assert found["activation_density"].tolist() == pytest.approx(np.reshape(kept, (3, 4)).mean(axis=1).tolist())
    assert (found["activation_density"] - found["forward_density"]).abs().max() > 0.005
    assert loop.sparse.plan.trace()["activation_density"].equals(loop.sparse.plan.trace()["forward_density"])
    assert (trace["weight_grad_density"] == 1).all()


@pytest.mark.parametrize("name", ["swat-u", "swat-m"])
@pytest.mark.parametrize("at", [5, 7])
def test_resumes_bit_for_bit(name: str, at: int) -> None:
    """Saved at the end of an epoch whose last step is no multiple of the period."""
    whole = Loop(name).run(0, 12)
    half = Loop(name).run(0, at)
    resumed = Loop(name)
    resumed.model.load_state_dict(copy.deepcopy(half.model.state_dict()))
    resumed.optimizer.load_state_dict(copy.deepcopy(half.optimizer.state_dict()))
    resumed.sparse.load_state_dict({key: value.clone() for key, value in half.sparse.state_dict().items()})
    resumed.run(at, 12)
    for loop in (whole, resumed):
        loop.sparse.finish()
    for key, value in whole.model.state_dict().items():
        assert torch.equal(value, resumed.model.state_dict()[key]), key
    assert whole.sparse.trace().equals(resumed.sparse.trace())


def test_a_checkpoint_of_before_activations_were_counted_goes_on_with_a_warning() -> None:
    half = Loop("swat-u").run(0, 5)
    state = half.sparse.state_dict()
    older = {key: value for key, value in state.items() if "method.used." not in key and key != "history.activations"}
    assert len(older) < len(state)
    resumed = Loop("swat-u")
    resumed.model.load_state_dict(half.model.state_dict())
    resumed.optimizer.load_state_dict(half.optimizer.state_dict())
    with pytest.warns(SpfdeWarning, match="until here the record has the planned shares"):
        resumed.sparse.load_state_dict(older)
    trace = resumed.run(5, 6).sparse.trace()
    found = trace[trace["layer"] == "three.0"]
    assert (found["activation_density"] == found["forward_density"]).tolist() == [True] * 5 + [False] + [True] * 6


def test_what_freezing_saved_goes_by_the_activations_that_were_used() -> None:
    """Layers of density f and used share a cost 2 f + a, and f once frozen; a frozen layer had gone on using a."""
    values = {"sparsity.method": "swat-u", "sparsity.target": 0.9, "freezing.flops_reduction": 0.1}
    plan = plan_settings(resolve("smoke", values))
    draws = np.random.default_rng(0)
    shape = plan.forward.shape
    forward = np.broadcast_to(draws.uniform(0.02, 0.4, shape[1]), shape)
    used = np.broadcast_to(draws.uniform(0.02, 0.4, shape[1]), shape)
    trace = plan.trace(forward, activations=np.where(plan.frozen, np.nan, used))
    macs = np.array([layer.macs for layer in plan.profile.layers])
    free = np.where(plan.at_target, forward * plan.forward / plan.settled, forward)  # SWAT rounds its counts up
    cost = (macs * np.where(plan.frozen, forward, 2 * forward + used)).sum()
    assert plan.saved_by_freezing(trace) == pytest.approx(1 - cost / (macs * (2 * free + used)).sum())


def test_a_frozen_layer_keeps_its_sparse_weights() -> None:
    loop = Loop("swat-u", freezing__flops_reduction=0.2, freezing__share=0.67)
    seen: dict[str, Tensor] = {}
    for epoch in range(12):
        loop.run(epoch, epoch + 1)
        for layer in loop.sparse.masks:
            if layer.block < loop.sparse.frozen_blocks:
                before = seen.setdefault(layer.name, layer.weight.detach().clone())
                assert torch.equal(before, layer.weight)
                assert int(before.count_nonzero()) == loop.sparse.method.counts[layer.name]
                assert not loop.optimizer.state[layer.weight]["momentum_buffer"][~layer.active].any()
            else:
                assert layer.weight.detach().ne(0).all()
    assert set(seen) == {"two.0"}
    loop.sparse.finish()
    assert torch.equal(seen["two.0"], loop.model.two[0].weight)


def test_the_folded_weights_are_those_of_a_plain_model() -> None:
    loop = Loop("swat-erk", sparsity__dense_layers="none", sparsity__distribution="erk").run(0, 12)
    loop.sparse.finish()
    plain = Net()
    plain.load_state_dict(loop.model.state_dict())
    assert torch.equal(plain.eval()(DATA), loop.model.eval()(DATA))
    assert "forward" not in vars(loop.model.two[0])


def test_ninety_percent_of_both_save_ninety_percent() -> None:
    """Forward 1 - s, input gradient 1 - s, weight gradient 1 - a, a third each (closed form)."""
    settings = resolve("cifar100", {"sparsity.method": "swat-u", "sparsity.dense_layers": "none"})
    plan = plan_settings(settings)
    counted = plan.costs(plan.trace())[0]
    macs = sum(layer.macs for layer in plan.profile.layers)
    assert counted["paper"] / (6 * macs * 160 * 50_000) == pytest.approx(0.1, rel=1e-3)
    assert counted["extra"] / (2 * macs * 160 * 50_000) == pytest.approx((1 - 0.1) * 0.1, rel=1e-3)
    assert counted["executed"] > 9 * counted["full"]


def test_first_convolution_is_dense_in_weights_and_activations() -> None:
    trace = plan_settings(resolve("smoke", {"sparsity.method": "swat-u"})).trace()
    first = trace[trace["layer"] == "conv1"]
    assert (first[["forward_density", "activation_density", "weight_grad_density"]] == 1).all(axis=None)
    for name in ("swat-erk", "swat-m"):
        trace = plan_settings(resolve("smoke", {"sparsity.method": name})).trace()
        assert (trace["forward_density"] < 1).any() and resolve("smoke", {"sparsity.method": name}).row == f"{name}-s90"
    assert (trace[trace["layer"] == "conv1"]["forward_density"] < 1).all()


def test_memory_keeps_dense_masters_and_sparse_activations() -> None:
    found = profile(build("resnet8", 10, 1, 8), (1, 8, 8))
    densities = np.full((1, len(found.layers)), 0.1)
    trace = make_trace(found, densities, 100, weight_grad=1.0, activation_density=0.1)
    ledger = memory(found, trace, 64, dense_masters=True)["breakdown"]
    assert ledger["weights"] == ledger["gradients"] == ledger["momentum"] == 4 * found.parameters
    images, features = 8 * 8, found.layers[-1].input_elements  # what BatchNorm or ReLU do not keep as well
    inputs = sum(layer.input_elements for layer in found.layers)
    dense = found.saved_bytes[0] - 4 * (images + features)
    assert ledger["activations"] == pytest.approx(64 * (dense + 8 * 0.1 * inputs))


@pytest.mark.parametrize("frozen", [0, 2])
@pytest.mark.parametrize("name", ["swat-u", "swat-m", "static"])
def test_the_ledger_has_what_autograd_saves(name: str, frozen: int) -> None:
    """Distinct storages of a real training forward at smoke, parameters and buffers aside; masks are no activations."""
    settings = resolve("smoke", {"sparsity.method": name, "sparsity.target": 0.9, "data.train_limit": 96})
    run = Training(settings, load(settings.data, None, None), torch.device("cpu"), Clock())
    run.begin(0)
    run.model.train()
    run.sparse.freeze(frozen)
    known = [*run.model.parameters(), *run.model.buffers(), *(layer.mask for layer in run.sparse.masks)]
    aside = {tensor.untyped_storage().data_ptr() for tensor in known}
    kept: dict[int, Tensor] = {}

    def keep(tensor: Tensor) -> Tensor:
        kept[tensor.untyped_storage().data_ptr()] = tensor.detach()
        return tensor

    images = torch.randn(96, 1, 8, 8)
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        output = run.model(images)
    saved = sum(tensor.untyped_storage().nbytes() for key, tensor in kept.items() if key not in aside)
    del output
    plan = dataclasses.replace(run.sparse.plan, schedule=Schedule((frozen,) * settings.training.epochs))
    ledger = memory(plan.profile, plan.trace(), 96, dense_masters=plan.method.dense_masters)["breakdown"]["activations"]
    assert ledger == pytest.approx(saved, rel=0.02)


def test_shares_by_hand() -> None:
    assert shares([1, 1, 2], [100, 100, 100], 40) == [10, 10, 20]
    assert shares([99, 101], [100, 900], 200) == [99, 101]  # 99 % exactly is not above 99 %
    # 36 would be 360 % of the first: it is full with 10, and the other 26 are 13 each for the others
    assert shares([6, 1, 3], [10, 100, 100], 60) == [10, 19, 31]
    assert shares([1, 1], [100, 1000], 199) == [
        100,
        99,
    ]  # 99.5 of 100 is above 99 %: dense, half a weight from the other
    assert shares([1, 1, 1], [10, 10, 10], 10) == [4, 3, 3]
    assert shares([1, 0, 0], [50, 10, 10], 20) == [18, 1, 1]


@given(st.lists(st.tuples(st.floats(0, 1), st.integers(5, 5000)), min_size=1, max_size=8), st.floats(0.01, 1))
def test_shares_always_add_up(layers: list[tuple[float, int]], density: float) -> None:
    momentum, sizes = [mean + 1e-6 for mean, _ in layers], [size for _, size in layers]
    budget = max(len(sizes), round(density * sum(sizes)))
    counts = shares(momentum, sizes, budget)
    assert sum(counts) == budget
    assert all(1 <= count <= size for count, size in zip(counts, sizes, strict=True))


def test_momentum_of_the_active_weights_decides() -> None:
    loop = Loop("swat-m", sparsity__dense_layers="none").run(0, 3)
    loop.sparse.begin_epoch(3)
    method, masks = loop.sparse.method, loop.sparse.masks
    for layer, mean in zip(masks, (4.0, 1.0, 2.0, 1.0), strict=True):
        buffer = loop.optimizer.state[layer.weight]["momentum_buffer"]
        buffer.copy_(torch.where(layer.active, mean, 1000.0))  # what is not active does not count
    method.share_out(loop.sparse)
    # 73 + 577 + 577 + 33 weights, of which ceil(72 / 10) + 2 ceil(576 / 10) + ceil(32 / 10) = 128 are active:
    # 64, 16, 32, 16 in proportion 4 : 1 : 2 : 1
    assert method.counts == {"one.0": 64, "two.0": 16, "three.0": 32, "classifier": 16}


def test_new_shares_are_used_from_the_next_training_step_on() -> None:
    """Not by the evaluation between, nor by the end: nothing has been trained with them."""
    loop = Loop("swat-m", epochs=10, sparsity__dense_layers="none").run(0, 10)  # 40 steps: new shares after the last
    method, masks = loop.sparse.method, loop.sparse.masks
    in_force = {name: forward.count for name, forward in method.forwards.items()}
    assert method.counts != in_force
    loop.sparse.finish()
    assert {layer.name: int(layer.weight.count_nonzero()) for layer in masks} == in_force


def test_shares_need_momentum() -> None:
    with pytest.raises(SpfdeError, match=r"training\.momentum is 0; raise it or use swat-u"):
        plan_settings(resolve("smoke", {"sparsity.method": "swat-m", "training.momentum": 0}))
