"""GSE: its sample, what it looks at, what it grows and prunes, how it draws, what it costs."""

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from spfde.cost.profile import LayerProfile
from spfde.data import load
from spfde.experiments.resolve import resolve, settings_for
from spfde.methods import METHODS
from spfde.methods import gse as module
from spfde.methods.gse_mass import Mass, unit_sums
from spfde.plans import plan_settings
from spfde.rounding import count_of
from spfde.training.clock import Clock
from spfde.training.run import Training
from tests.test_own_model import DATA, network, plain_step, sgd, wrap

Build = Callable[..., tuple]
NAMES = ["gse-uniform", "gse-grabo", "gse-graest"]
UPDATE = 19  # the first update of 160 epochs of 10 steps follows this one, in epoch 1


@pytest.fixture
def samples(monkeypatch: pytest.MonkeyPatch) -> list[list[torch.Tensor]]:
    """The samples S of each update, as the method records them."""
    seen: list[list[torch.Tensor]] = []
    record = METHODS["gse-uniform"]._record

    def spy(self, run, layers, sampled) -> None:
        seen.append([sample.clone() for sample in sampled])
        record(self, run, layers, sampled)

    monkeypatch.setattr(METHODS["gse-uniform"], "_record", spy)
    return seen


@pytest.mark.parametrize("scope", ["global", "layer"])
@pytest.mark.parametrize("name", NAMES)
def test_looks_at_no_gradient_outside_the_sample(
    build: Build, samples: list, monkeypatch: pytest.MonkeyPatch, name: str, scope: str
) -> None:
    """Whatever gradients are outside S, not a number or huge, the masks come out the same."""
    shapes = [(10, 20), (8, 4, 3, 3)]
    options = {"scope": scope}
    method, run = build(name, shapes, target=0.8, sparsity__options=options)
    method.after_step(run, UPDATE)
    inside = samples[0]
    grad = torch.autograd.grad
    for poison in (torch.nan, torch.inf, 1e30):
        other, again = build(name, shapes, target=0.8, sparsity__options=options)

        def poisoned(outputs, inputs, *rest, poison=poison, **named):
            found = grad(outputs, inputs, *rest, **named)
            whole = isinstance(inputs, list)
            return [g.masked_fill(~s, poison) for g, s in zip(found, inside, strict=True)] if whole else found

        monkeypatch.setattr(module.torch.autograd, "grad", poisoned)
        other.after_step(again, UPDATE)
        monkeypatch.setattr(module.torch.autograd, "grad", grad)
        for layer in run.masks:
            assert torch.equal(layer.mask, again.masks[layer.name].mask)
            assert torch.equal(layer.weight, again.masks[layer.name].weight)


@pytest.mark.parametrize("scope", ["global", "layer"])
def test_grows_the_largest_of_the_sample_and_prunes_the_smallest(build: Build, samples: list, scope: str) -> None:
    """A reference with sorted lists, over all layers together or each on its own."""
    method, run = build("gse-uniform", [(10, 20), (8, 4, 3, 3)], target=0.8, sparsity__options={"scope": scope})
    old = {layer.name: layer.active for layer in run.masks}
    weights = {layer.name: layer.weight.detach().clone() for layer in run.masks}
    loss = F.cross_entropy(run.model(run.values), run.labels)  # 64 samples: all there are
    gradients = dict(zip(old, torch.autograd.grad(loss, [layer.weight for layer in run.masks]), strict=True))
    method.after_step(run, UPDATE)
    sample = dict(zip(old, samples[0], strict=True))
    assert all(not (sample[name] & old[name]).any() for name in old)
    share = 0.1 * (1 + math.cos(math.pi * 20 / (0.6 * 1600)))
    for names in [list(old)] if scope == "global" else [[name] for name in old]:

        def ranked(values: dict, where: dict, names: list[str] = names) -> list[tuple[float, str, int]]:
            flat = [(name, *pair) for name in names for pair in enumerate(values[name].abs().flatten().tolist())]
            return sorted((value, name, i) for name, i, value in flat if where[name].flatten()[i])

        active, found = ranked(weights, old), ranked(gradients, sample)
        count = min(math.ceil(share * len(active)), len(found))
        expected = {pair[1:] for pair in active[count:]} | {pair[1:] for pair in found[len(found) - count :]}
        new = {(name, i) for name in names for i in run.masks[name].active.flatten().nonzero().flatten().tolist()}
        assert count > 0 and new == expected
        for name in names:
            grown = run.masks[name].active & ~old[name]
            assert not run.masks[name].weight[grown].any()


def test_what_has_just_grown_is_safe(build: Build, samples: list) -> None:
    """Grown weights are 0, the smallest of all, and stay nevertheless; a layer that is all sample grows at most |S|."""
    method, run = build("gse-uniform", [(10, 20)], target=0.6, sparsity__options={"gamma": 0.02, "drop_fraction": 0.9})
    before = run.masks["l0"].active
    method.after_step(run, UPDATE)
    sample = samples[0][0]
    assert 0 < int(sample.sum()) <= math.ceil(0.02 * 80)  # fewer than alpha |A|
    assert torch.equal(run.masks["l0"].active & ~before, sample)
    assert run.masks.counts.tolist() == [80]


def test_updates_end_at_sixty_percent_and_keep_their_share_of_training(build: Build) -> None:
    method, _ = build("gse-uniform", steps=391, training__epochs=200)
    updates = [step + 1 for step in range(200 * 391) if method.is_update(step)]
    assert updates == list(range(1000, 46_920, 1000))
    assert method.drop_fraction(-1) == pytest.approx(0.2)
    assert method.drop_fraction(23_459) == pytest.approx(0.1) and method.drop_fraction(46_919) == pytest.approx(0)


def test_no_update_comes_at_the_very_end_of_updating(build: Build) -> None:
    """Where 60 % of training is a multiple of the interval, the share that it would replace is 0."""
    options = {"interval_steps": 100, "scale_interval": False}
    method, _ = build("gse-uniform", steps=1000, training__epochs=1, sparsity__options=options)
    assert [step + 1 for step in range(1000) if method.is_update(step)] == [100, 200, 300, 400, 500]


def test_starts_from_erdos_renyi_with_exact_counts_everywhere() -> None:
    settings = resolve("smoke", {"sparsity.method": "gse-uniform", "sparsity.target": 0.9})
    plan = plan_settings(settings)
    assert list(plan.shapes) == [layer.name for layer in plan.profile.layers]  # first layer and classifier too
    sizes = {name: math.prod(shape) for name, shape in plan.shapes.items()}
    ratios = {name: (shape[0] + sizes[name] / shape[0]) / sizes[name] for name, shape in plan.shapes.items()}
    densities = plan.method.densities(0)
    sparse = [name for name in densities if densities[name] < 1]
    epsilon = {densities[name] / ratios[name] for name in sparse}
    assert max(epsilon) == pytest.approx(min(epsilon)) and len(sparse) > 5
    assert sum(densities[name] * sizes[name] for name in sizes) == pytest.approx(0.1 * sum(sizes.values()))
    counts = [count_of(densities[name], sizes[name]) / sizes[name] for name in sizes]
    assert plan.forward[0].tolist() == pytest.approx(counts)


@given(
    groups=st.sampled_from([1, 2]), rows=st.sampled_from([2, 6]), columns=st.integers(1, 7), seed=st.integers(0, 999)
)
def test_positions_are_inside_and_never_without_mass(groups: int, rows: int, columns: int, seed: int) -> None:
    draws = torch.Generator().manual_seed(seed)
    outputs = torch.rand(rows, generator=draws) * torch.randint(2, (rows,), generator=draws)
    units = torch.rand(groups, columns, generator=draws) * torch.randint(2, (groups, columns), generator=draws)
    positions = Mass(outputs, units).draw(200, draws)
    assert positions.shape == (200,) and int(positions.min()) >= 0 and int(positions.max()) < rows * columns
    row, column = positions // columns, positions % columns
    group = row // (rows // groups)
    if outputs.any():
        assert outputs[row].all()
    assert all(units[g, c] or not units[g].any() for g, c in zip(group.tolist(), column.tolist(), strict=True))


def test_draws_follow_the_product_of_the_masses() -> None:
    mass = Mass(torch.tensor([1.0, 3.0]), torch.tensor([[1.0, 0.0, 4.0]]))
    count = torch.bincount(mass.draw(40_000, torch.Generator().manual_seed(0)), minlength=6) / 40_000
    assert count.tolist() == pytest.approx([0.05, 0, 0.2, 0.15, 0, 0.6], abs=0.01)


LAYERS = [
    (nn.Linear(6, 4), (5, 6)),
    (nn.Linear(6, 4), (5, 3, 6)),
    (nn.Conv2d(4, 6, 3, stride=2, padding=1), (5, 4, 7, 7)),
    (nn.Conv2d(4, 6, (3, 1), dilation=2, padding="same"), (5, 4, 7, 7)),
]


def columns(layer: Any, values: torch.Tensor) -> torch.Tensor:
    """The im2col view, (samples x positions, units)."""
    if isinstance(layer, nn.Linear):
        return values.reshape(-1, values.shape[-1])
    if layer.padding == "same":
        values, padding = F.pad(values, (0, 0, 2, 2)), 0
    else:
        padding = layer.padding
    view = F.unfold(values, layer.kernel_size, layer.dilation, padding, layer.stride)
    return view.transpose(1, 2).flatten(0, 1)


@pytest.mark.parametrize(("layer", "shape"), LAYERS)
def test_unit_sums_are_those_of_the_im2col_view(layer: nn.Module, shape: tuple) -> None:
    values = torch.randn(shape)
    output = layer(values)
    axis = -1 if isinstance(layer, nn.Linear) else 1
    factors = torch.randn_like(output.narrow(axis, 0, 1))
    expected = (columns(layer, values) * factors.flatten()[:, None]).sum(0)
    torch.testing.assert_close(unit_sums(layer, values, factors)[0], expected, rtol=1e-4, atol=1e-4)


def test_each_group_of_a_grouped_convolution_has_its_own_units() -> None:
    layer, values = nn.Conv2d(4, 6, 3, groups=2), torch.randn(5, 4, 7, 7)
    found = unit_sums(layer, values, torch.ones(5, 1, 5, 5))
    every = F.unfold(values, 3).sum((0, 2)).view(2, 18)
    torch.testing.assert_close(found, every, rtol=1e-4, atol=1e-4)


def test_the_gradient_is_the_mean_over_batches_of_different_sizes(build: Build) -> None:
    """All 64 samples in batches of 40 and 24."""
    settings = {"training__batch_size": 40, "sparsity__options": {"per_class": 20}}
    method, run = build("gse-uniform", [(10, 20), (8, 4, 3, 3)], target=0.8, **settings)
    found, _ = method.gradients(run, list(run.masks), UPDATE)
    loss = F.cross_entropy(run.model(run.values), run.labels)
    for gradient, whole in zip(found, torch.autograd.grad(loss, [layer.weight for layer in run.masks]), strict=True):
        torch.testing.assert_close(gradient, whole, rtol=1e-4, atol=1e-6)


def test_grabo_bounds_the_gradient(build: Build) -> None:
    method, run = build("gse-grabo", [(10, 20), (8, 4, 3, 3)], target=0.5)
    for gradient, mass in zip(*method.gradients(run, list(run.masks), UPDATE), strict=True):
        assert len(mass.units) == 1  # one group
        bound = torch.outer(mass.outputs, mass.units[0])
        assert (gradient.flatten(1).abs() <= bound * 1.001 + 1e-6).all() and (bound > 0).all()
    _, (linear, _) = method.gradients(run, list(run.masks), UPDATE)
    torch.testing.assert_close(linear.units[0], run.values[:, :20].abs().sum(0))  # of all 64 samples, and nothing else


def test_graest_estimates_the_gradient(build: Build) -> None:
    """The product of its two sketches is the gradient in the mean over many signs."""
    method, run = build("gse-graest", [(4, 6)], target=0.5)
    draws = [method.gradients(run, list(run.masks), step) for step in range(300)]
    products = torch.stack([torch.outer(masses[0].outputs, masses[0].units[0]) for _, masses in draws])
    error = products.mean(0) - draws[0][0][0]
    assert (error.abs() < 5 * products.std(0) / math.sqrt(len(products))).all()
    assert products.std(0).min() > 0


def test_costs_forward_input_gradient_and_sample(build: Build) -> None:
    """(1 + 1 + |S| / size) f a sample and update, with the real counts, and 2 + gamma f_S at most."""
    method, run = build("gse-uniform", [(10, 20), (8, 4, 3, 3)], target=0.8, training__batch_size=64)
    layers = [
        LayerProfile("first", "conv", 1000, 50, 1, 1, 0, -1),
        LayerProfile("l0", "linear", 200, 200, 10, 20, 0, 0),
        LayerProfile("l1", "conv", 9000, 288, 8, 36, 1, 0),
    ]
    extra = math.ceil(10 * 3 / 64) * 64  # the network of these tests tells three classes apart
    counts = run.masks.counts.numpy() / [200, 288]
    planned = method.extra_macs(1, layers, 640)  # ten steps: one update
    run.epoch = 1
    method.after_step(run, UPDATE)
    happened = method.extra_macs(1, layers, 640)
    sampled = method.sampled[1] / [200, 288]
    assert happened.tolist() == pytest.approx(
        (extra * np.array([1000, 200 * (2 * counts[0] + sampled[0]), 9000 * (2 * counts[1] + sampled[1])])).tolist()
    )
    assert planned[1:] == pytest.approx(happened[1:], rel=0.1)
    assert (happened[1:] <= extra * np.array([200, 9000]) * 3 * counts + 1).all()
    assert not method.extra_macs(159, layers, 640).any()  # after 60 % of training
    assert method.executed_extra_macs(1, layers, 640).tolist() == [extra * 1000, extra * 600, extra * 27000]
    method.skipped[1] = 1  # as sparse kernels say: forward, input gradient and weight gradient at the mask, and S
    ran = (3 * counts + sampled) * [extra * 200, extra * 9000]
    assert method.executed_extra_macs(1, layers, 640) == pytest.approx([extra * 1000, *ran])
    frozen, other = build("gse-grabo", [(10, 20), (8, 4, 3, 3)], target=0.8, training__batch_size=64)
    other.epoch, other.frozen_blocks = 1, 1
    other.masks.select(1)
    frozen.after_step(other, UPDATE)
    less = frozen.extra_macs(1, layers, 640)
    assert less[0] == extra * 1000 and less[1] == pytest.approx(extra * 200 * counts[0])  # frozen: forward alone
    share = counts[1] + frozen.sampled[1, 1] / 288 + 1 / 8 + 1 / 36  # no input gradient, and the two sums
    assert less[2] == pytest.approx(extra * 9000 * share)
    # Where kernels skip the zeros, the sums take a forward pass of their own, before the one that has the gradients.
    frozen.skipped[1] = 1
    share += counts[1] + counts[1]  # the weight gradient at the mask, and that forward pass
    assert frozen.executed_extra_macs(1, layers, 640)[2] == pytest.approx(extra * 9000 * share)


@pytest.mark.parametrize("left_out", [0, 1])
def test_work_is_counted_in_the_epochs_of_the_updates(left_out: int) -> None:
    """Ten steps an epoch, five once half of the data are removed; a loop may also leave the last batch out."""
    model = network()
    told = {"sieving": 0.5, "sieving__schedule": "once", "sieving__start": 0.2, "batch_size": 4, "epochs": 20}
    options = {"interval_steps": 11, "scale_interval": False}
    settings = settings_for("gse-uniform", sparsity=0.8, interval=1, options=options, **told)
    images, labels = DATA.tensors
    sparse = wrap(model, sgd(model), settings, fetch=lambda indices: (images[indices], labels[indices]))
    planned = sparse.plan.trace()
    happened = np.zeros(20, int)
    for epoch in range(20):
        sparse.begin_epoch(epoch)
        before = sparse.method.updates.sum()
        batches = torch.tensor(list(sparse.sampler)).split(4)
        for batch in batches[: len(batches) - left_out]:
            logits = plain_step(model, sparse.optimizer, images[batch], labels[batch])
            sparse.observe(batch, logits, labels[batch])
        happened[epoch] = sparse.method.updates.sum() - before
    sparse.finish()
    assert happened.any() and not happened[12:].any()
    columns = ["mask_updates", "extra_macs", "executed_extra_macs"]
    by_epoch = {
        name: trace.groupby("epoch")[columns].max() for name, trace in (("real", sparse.trace()), ("plan", planned))
    }
    assert by_epoch["real"].mask_updates.tolist() == happened.tolist()
    if not left_out:
        assert by_epoch["plan"].mask_updates.tolist() == happened.tolist()
    for trace in by_epoch.values():
        for column in columns[1:]:
            assert ((trace[column] > 0) == (trace.mask_updates > 0)).all()


@pytest.mark.parametrize("target", [0.4, 0.5])
def test_a_plan_expects_all_positions_of_a_dense_layer(build: Build, target: float) -> None:
    method, _ = build("gse-uniform", [(10, 20)], target=target, training__batch_size=64)
    layers = [LayerProfile("l0", "linear", 200, 200, 10, 20, 0, 0)]
    extra, density = math.ceil(10 * 3 / 64) * 64, 1 - target
    planned = method.extra_macs(1, layers, 640)  # forward and input gradient, and the weight gradient everywhere else
    assert planned == pytest.approx([extra * 200 * (2 * density + (1 - density))])


def test_what_ran_of_an_update_is_what_torch_counts() -> None:
    """Whole weight gradients of a dense network, though only a sample of them is looked at."""
    settings = resolve("smoke", {"sparsity.method": "gse-uniform", "sparsity.target": 0.9, "data.train_limit": 200})
    run = Training(settings, load(settings.data, None, None), torch.device("cpu"), Clock()).sparse
    run.begin_epoch(0)
    with FlopCounterMode(display=False) as counter:
        run.method.gradients(run, list(run.masks), UPDATE)
    run.epoch, layers = 1, run.plan.profile.layers
    run.method.after_step(run, UPDATE)
    executed, needed = (
        of(1, layers, run.samples).sum() for of in (run.method.executed_extra_macs, run.method.extra_macs)
    )
    assert 0 < needed < 0.5 * executed
    updates = sum(map(run.method.is_update, (UPDATE,)))
    assert counter.get_total_flops() * updates == 2 * executed
