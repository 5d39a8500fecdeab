"""Whole trainings on kernels that skip the zeros, against the same trainings on dense kernels under masks."""

import copy
import pickle
import warnings
from collections.abc import Iterator
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from spfde import kernels
from spfde.api import SparseTraining
from spfde.cost.profile import profile
from spfde.experiments.resolve import nested
from spfde.methods import METHODS
from spfde.models import build
from spfde.settings import RunSettings, parse
from spfde.sparsity.masks import SparseLayer

pytestmark = pytest.mark.skipif(not kernels.available(), reason="no sparse kernels here")

COSTS = profile(build("resnet8", 4, 3, 8, 0.5), (3, 8, 8))
IMAGES = torch.randn(40, 3, 8, 8, generator=torch.Generator().manual_seed(1))
LABELS = torch.arange(40) % 4
STEPS = 5  # an epoch


def make(method: str = "static", wanted: str = "sparse", **dotted: Any) -> SparseTraining:
    torch.manual_seed(0)
    model = build("resnet8", 4, 3, 8, 0.5)
    optimizer = torch.optim.SGD(model.parameters(), 0.02, 0.9, weight_decay=1e-4)
    values = {"sparsity.method": method, "sparsity.target": 0.75, "training.epochs": 10, "training.batch_size": 8}
    values |= {"sparsity.interval": 2, "training.lr": 0.02} | {k.replace("__", "."): v for k, v in dotted.items()}
    settings = parse(RunSettings, nested(values))
    fetch = lambda positions: (IMAGES[positions], LABELS[positions])  # noqa: E731
    told = {"input_shape": (3, 8, 8), "samples": len(IMAGES), "costs": COSTS, "fetch": fetch, "kernels": wanted}
    return SparseTraining(model, optimizer, settings, **told)


def steps(sparse: SparseTraining, epochs: range) -> Iterator[float]:
    """The losses of these epochs, step by step; the last batch of an epoch is short."""
    sparse.model.train()
    for epoch in epochs:
        sparse.begin_epoch(epoch)
        for batch in [*torch.arange(34).split(8)]:
            logits = sparse.model(IMAGES[batch])
            loss = F.cross_entropy(logits, LABELS[batch])
            loss.backward()
            sparse.optimizer.step()
            sparse.optimizer.zero_grad()
            sparse.observe(batch, logits, LABELS[batch])
            yield loss.item()


def state(sparse: SparseTraining) -> dict[str, Tensor]:
    momentum = {
        f"momentum.{index}": values["momentum_buffer"]
        for index, values in sparse.optimizer.state_dict()["state"].items()
        if values.get("momentum_buffer") is not None
    }
    return {**sparse.model.state_dict(), **momentum, **sparse.state_dict()}


def gradient(layer: SparseLayer) -> Tensor:
    assert layer.weight.grad is not None
    return layer.weight.grad


def trainable(name: str) -> bool:
    return METHODS[name].sparse and not METHODS[name].dense_kernels and name != "small-dense"


@pytest.mark.parametrize("method", [name for name in METHODS if trainable(name)])
def test_fifty_steps_are_those_of_masked_dense_kernels(method: str) -> None:
    """The first ten losses to 1e-4, all fifty to 2 %: rounding is all that differs, and training makes it grow."""
    sparse, dense = make(method), make(method, "dense")
    losses, expected = (torch.tensor(list(steps(run, range(10)))) for run in (sparse, dense))
    assert len(losses) == 50 and sparse.execution.choices
    assert torch.allclose(losses[:10], expected[:10], rtol=1e-4)
    assert torch.allclose(losses, expected, rtol=2e-2, atol=2e-3)
    # the first of the lottery's rounds is dense
    ran = sparse.trace().query("layer == 'layer1.0.conv1'").executed_forward
    assert ((ran < 1).all() or method == "lottery") and (dense.trace().executed_forward.dropna() == 1).all()
    for run in (sparse, dense):
        assert all(int(layer.weight[~layer.active].count_nonzero()) == 0 for layer in run.masks)
        run.finish()
    same = [(a.active == b.active).float().mean() for a, b in zip(sparse.masks, dense.masks, strict=True)]
    assert min(same, default=1) > 0.97


@pytest.mark.parametrize("method", ["spfde", "rigl", "gse-uniform", "deepr"])
def test_resuming_goes_on_bit_for_bit(method: str) -> None:
    told: dict[str, Any] = {"freezing__flops_reduction": 0.15} if method == "spfde" else {}
    whole = make(method, **told)
    list(steps(whole, range(10)))
    first = make(method, **told)
    list(steps(first, range(7)))
    second = make(method, **told)
    second.model.load_state_dict(first.model.state_dict())
    second.optimizer.load_state_dict(copy.deepcopy(first.optimizer.state_dict()))
    second.load_state_dict({name: value.clone() for name, value in first.state_dict().items()})
    assert second.execution.choices == first.execution.choices != {}
    list(steps(second, range(7, 10)))
    for name, value in state(whole).items():
        assert torch.equal(value, state(second)[name]), name


def test_frozen_blocks_and_what_is_outside_the_masks_stay_as_they_are() -> None:
    sparse = make("spfde", freezing__flops_reduction=0.2, sparsity__target=0.5)
    counts, before = sparse.plan.schedule.counts, None
    for epoch in range(10):
        list(steps(sparse, range(epoch, epoch + 1)))
        block = {name: value.clone() for name, value in sparse.model.layer1.state_dict().items()}
        if before and counts[epoch] and counts[epoch - 1]:
            assert all(torch.equal(value, before[name]) for name, value in block.items())
        elif before and not counts[epoch]:
            assert any(not torch.equal(value, before[name]) for name, value in block.items())
        before = block
        for layer in sparse.masks:
            buffer = sparse.optimizer.state[layer.weight]["momentum_buffer"]
            assert not layer.weight[~layer.active].any() and not buffer[~layer.active].any()
    assert max(counts) > 0


def test_copies_are_plain_and_state_dicts_have_the_same_keys() -> None:
    sparse, plain = make(), build("resnet8", 4, 3, 8, 0.5)
    list(steps(sparse, range(1)))
    averaged = torch.optim.swa_utils.AveragedModel(sparse.model)
    averaged.update_parameters(sparse.model)
    for copied in (copy.deepcopy(sparse.model), pickle.loads(pickle.dumps(sparse.model)), averaged.module):
        assert type(copied) is type(plain) and type(copied.layer1[0]) is type(plain.layer1[0])
        assert list(copied.state_dict()) == list(plain.state_dict()) == list(sparse.model.state_dict())
        copied.load_state_dict(sparse.model.state_dict())
        with torch.no_grad():
            expected = copied.eval()(IMAGES)
            assert torch.allclose(sparse.model.eval()(IMAGES), expected, atol=1e-5)
    sparse.finish()
    assert type(sparse.model) is type(plain)


def test_what_sparse_kernels_cannot_have_runs_dense_and_is_said_once() -> None:
    sparse = make()
    list(steps(sparse, range(1)))
    with pytest.warns(UserWarning, match="autocast") as said, torch.autocast("cpu", torch.bfloat16):
        for _ in range(2):
            sparse.model(IMAGES)
    assert len(said) == 1 and not sparse.execution.executed.any()
    seen: list[tuple[int, ...]] = []
    hook = sparse.model.layer2[0].conv1.register_forward_hook(lambda *told: seen.append(tuple(told[2].shape)))
    with pytest.warns(UserWarning, match="hook"):
        sparse.model(IMAGES)
    assert seen == [(40, 16, 4, 4)]
    hook.remove()
    with warnings.catch_warnings(action="error"):
        sparse.model(IMAGES)
    assert sparse.execution.executed.any()


def test_dense_gradients_come_in_every_forward_pass_of_an_update_step() -> None:
    """RigL's eleventh step, of two accumulated batches: both have the gradients outside the masks."""
    sparse = make("rigl")
    batches = IMAGES[:32].split(8)
    for step in range(11):
        if step % STEPS == 0:
            sparse.begin_epoch(step // STEPS)
        for half in (0, 1):
            (F.cross_entropy(sparse.model(batches[half]), LABELS[:8]) / 2).backward()
            last = [gradient(layer).clone() for layer in sparse.masks]
            outside = any(bool(grad[~layer.active].any()) for grad, layer in zip(last, sparse.masks, strict=True))
            assert outside == (step == 10)
        if step < 10:
            sparse.optimizer.step()
            sparse.optimizer.zero_grad()
            sparse.count(torch.arange(16))
    reference = copy.deepcopy(sparse.model)
    for half in (0, 1):
        (F.cross_entropy(reference(batches[half]), LABELS[:8]) / 2).backward()
    for layer, found in zip(sparse.masks, last, strict=True):
        expected = reference.get_parameter(f"{layer.name}.weight").grad
        assert torch.allclose(found, expected, rtol=1e-3, atol=1e-6)


def test_two_losses_of_one_network_have_buffers_of_their_own() -> None:
    """Two forward passes before the first backward pass, as in siamese networks and SAM."""
    sparse, dense = make(), make(wanted="dense")
    gradients = []
    for run in (sparse, dense):
        run.begin_epoch(0)
        one, two = run.model(IMAGES[:16]), run.model(IMAGES[16:29])
        (F.cross_entropy(one, LABELS[:16]) + F.cross_entropy(two, LABELS[16:29])).backward()
        gradients.append([p.grad for p in run.model.parameters()])
    for gradient, expected in zip(*gradients, strict=True):
        assert torch.allclose(gradient, expected, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("method", ["gse-uniform", "gse-grabo", "gse-graest"])
def test_gse_looks_at_no_gradient_outside_masks_and_sample(method: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """On a tenth of the positions it finds what the dense gradients are there, and draws as the dense path does."""
    sparse, dense = make(method, sparsity__target=0.8), make(method, "dense", sparsity__target=0.8)
    for run in (sparse, dense):
        list(steps(run, range(1)))
    assert sparse.execution.skips_zeros and not dense.execution.skips_zeros
    layers, others = list(sparse.masks), list(dense.masks)
    whole, masses = dense.method.gradients(dense, others, 9)
    with monkeypatch.context() as patch:  # by the kernels under the network itself, not under a copy of it
        patch.setattr(copy, "deepcopy", lambda *_: pytest.fail("the network is copied"))
        own = sparse.method.masses(sparse, layers, 9)
    assert sparse.execution.executed_layers and all(p.requires_grad for p in sparse.model.parameters())
    before = {name: value.clone() for name, value in sparse.model.state_dict().items()}
    samples = dense.method.sample(dense, others, masses, 9)
    found = sparse.method.sampled_gradients(sparse, layers, samples, 9)
    for layer, mass, other, sample, grad, expected in zip(layers, own, masses, samples, found, whole, strict=True):
        assert torch.allclose(mass.outputs, other.outputs, rtol=1e-2, atol=1e-3 * float(other.outputs.abs().max()))
        assert torch.allclose(mass.units, other.units, rtol=1e-2, atol=1e-3 * float(other.units.abs().max()))
        size = float(expected.abs().max())
        assert torch.allclose(grad[sample], expected[sample], rtol=1e-2, atol=1e-3 * size)
        if layer.name in sparse.execution.executed_layers:
            assert not grad[~(sample | layer.active)].any() and 0 < int(sample.sum()) < sample.numel() / 2
    for name, value in sparse.model.state_dict().items():  # BatchNorm's statistics too
        assert torch.equal(value, before[name])
    assert all(parameter.grad is None for parameter in sparse.model.parameters())


@pytest.mark.parametrize(("method", "passes"), [("gse-uniform", 3), ("gse-grabo", 5)])
def test_what_ran_of_gses_updates_is_counted_by_what_skipped_zeros(method: str, passes: int) -> None:
    """Forward, input gradient and weight gradient at the density, and the last on the sample too.

    Guided draws take a forward pass and an input gradient before, and their sums.
    """
    sparse = make(method)
    list(steps(sparse, range(3)))  # the tenth step is an update
    trace = sparse.trace().query("epoch == 1").set_index("layer")
    gse, layer = sparse.method, next(one for one in COSTS.layers if one.name == "layer2.0.conv2")
    column = gse.columns[layer.name]
    assert gse.updates[1] == 1 and gse.skipped[1, column] == 1
    active, sampled = gse.active[1, column] / layer.weights, gse.sampled[1, column] / layer.weights
    extra = gse.samples(34)  # of an epoch
    by_hand = layer.macs * extra * (passes * active + sampled + gse.sketching(layer))
    assert trace.executed_extra_macs[layer.name] == pytest.approx(by_hand)
    assert trace.extra_macs[layer.name] == pytest.approx(
        layer.macs * extra * (2 * active + sampled + gse.sketching(layer))
    )


def test_modules_without_kernels_train_dense() -> None:
    model = nn.Sequential(nn.Flatten(), nn.Linear(192, 8), nn.GELU(), nn.Linear(8, 4))
    settings = parse(RunSettings, nested({"sparsity.method": "set", "training.epochs": 2, "sparsity.interval": 1}))
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    sparse = SparseTraining(model, optimizer, settings, input_shape=(3, 8, 8), samples=8, kernels="sparse")
    sparse.begin_epoch(0)
    F.cross_entropy(model(IMAGES[:8]), LABELS[:8]).backward()
    optimizer.step()
    assert all(not layer.weight[~layer.active].any() for layer in sparse.masks)
