"""`SparseTraining` in a plain PyTorch loop: what moves, what must not, and where every event happens."""

import copy
import itertools
from collections.abc import Iterator
from typing import Any, cast

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from spfde.api import SparseTraining
from spfde.errors import SpfdeError
from spfde.experiments.resolve import nested
from spfde.methods import METHODS
from spfde.settings import RunSettings, parse

SAMPLES = 40


class Net(nn.Module):
    """Three blocks of convolution and BatchNorm, and a classifier."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.one = nn.Sequential(nn.Conv2d(1, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8), nn.ReLU())
        self.two = nn.Sequential(nn.Conv2d(8, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8), nn.ReLU())
        self.three = nn.Sequential(nn.Conv2d(8, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8), nn.ReLU())
        self.classifier = nn.Linear(8, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.classifier(self.three(self.two(self.one(x))).mean(dim=(2, 3)))


def make(epochs: int = 12, fetch: Any = None, **dotted: Any) -> tuple[Net, torch.optim.SGD, SparseTraining]:
    values = {"training.epochs": epochs, "training.batch_size": 10, "sparsity.interval": 2, "sparsity.method": "spfde"}
    values |= {key.replace("__", "."): value for key, value in dotted.items()}
    settings = parse(RunSettings, nested(values))
    model = Net()
    optimizer = torch.optim.SGD(model.parameters(), 0.1, 0.9, weight_decay=1e-2)
    shape: Any = {"input_shape": (1, 6, 6), "samples": SAMPLES, "fetch": fetch}
    return model, optimizer, SparseTraining(model, optimizer, settings, **shape)


DATA = torch.randn(SAMPLES, 1, 6, 6, generator=torch.Generator().manual_seed(3))
LABELS = torch.arange(SAMPLES) % 4


def train_epochs(model: Net, optimizer: torch.optim.Optimizer, sparse: SparseTraining, epochs: range) -> Iterator[int]:
    """Trains, and yields after each epoch."""
    for epoch in epochs:
        model.train()
        sparse.begin_epoch(epoch)
        for batch in torch.tensor(list(sparse.sampler)).split(10):
            logits = model(DATA[batch])
            F.cross_entropy(logits, LABELS[batch]).backward()
            optimizer.step()
            optimizer.zero_grad()
            sparse.observe(batch, logits, LABELS[batch])
        yield epoch


def block_state(model: Net, optimizer: torch.optim.Optimizer, sparse: SparseTraining, index: int) -> dict[str, Tensor]:
    """Weights, statistics, momentum and mask of a block."""
    module = model.get_submodule(sparse.blocks[index].modules[0])
    state = {name: value.clone() for name, value in module.state_dict().items()}
    for name, parameter in module.named_parameters():
        state[f"momentum {name}"] = optimizer.state[parameter]["momentum_buffer"].clone()
    masks = {f"mask {layer.name}": layer.mask.clone() for layer in sparse.masks if layer.block == index}
    return state | masks


def test_nothing_in_a_frozen_block_moves_and_the_rest_does() -> None:
    model, optimizer, sparse = make(freezing__flops_reduction=0.2)
    counts = sparse.plan.schedule.counts
    assert counts[0] == 0 and counts[-1] == 2
    held: dict[int, dict[str, Tensor]] = {}
    before = block_state_of_last(model)
    for epoch in train_epochs(model, optimizer, sparse, range(12)):
        for index in range(counts[epoch]):
            now = block_state(model, optimizer, sparse, index)
            if index in held:
                assert now.keys() == held[index].keys()
                assert all(torch.equal(now[name], held[index][name]) for name in now)
            held.setdefault(index, now)
        after = block_state_of_last(model)
        assert not all(torch.equal(before[name], after[name]) for name in before)
        before = after
    assert set(held) == {0, 1}


def block_state_of_last(model: Net) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in model.three.state_dict().items()}


def test_the_first_frozen_state_is_the_one_it_froze_in() -> None:
    """Weight decay, momentum and BatchNorm may not act even once after the boundary at which a block freezes."""
    model, optimizer, sparse = make(freezing__flops_reduction=0.2)
    t_frz = sparse.plan.schedule.t_frz
    assert t_frz
    for _ in train_epochs(model, optimizer, sparse, range(t_frz)):
        pass
    sparse.begin_epoch(t_frz)
    frozen = block_state(model, optimizer, sparse, 0)
    model.train()  # a user's call must not wake the frozen BatchNorm
    for batch in torch.arange(SAMPLES).split(10):
        logits = model(DATA[batch])
        F.cross_entropy(logits, LABELS[batch]).backward()
        optimizer.step()
        optimizer.zero_grad()
        sparse.observe(batch, logits, LABELS[batch])
    after = block_state(model, optimizer, sparse, 0)
    assert all(torch.equal(frozen[name], after[name]) for name in frozen)


def test_the_frozen_prefix_stores_nothing_for_backward() -> None:
    model, optimizer, sparse = make(freezing__flops_reduction=0.2)
    for _ in train_epochs(model, optimizer, sparse, range(12)):
        pass
    assert sparse.frozen_blocks == 2
    model.train()
    saved: list[Tensor] = []

    def keep(tensor: Tensor) -> Tensor:
        saved.append(tensor)
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda t: t):
        hidden = model.two(model.one(DATA[:10]))
        assert not hidden.requires_grad and not saved
        model.classifier(model.three(hidden).mean(dim=(2, 3)))
    assert saved


def test_a_block_is_pruned_to_the_target_at_its_freeze_epoch() -> None:
    model, optimizer, sparse = make(freezing__flops_reduction=0.2, sparsity__target=0.5)
    t_frz = sparse.plan.schedule.t_frz
    for _ in train_epochs(model, optimizer, sparse, range(t_frz)):
        pass
    assert sparse.blocks[1].modules == ("two",)
    second = sparse.masks["two.0"]
    assert int(second.active.sum()) == round(576 * 0.55)
    for _ in train_epochs(model, optimizer, sparse, range(t_frz, t_frz + 3)):
        pass
    assert int(second.active.sum()) == 288
    assert int(sparse.masks["three.0"].active.sum()) > 288


def test_learning_rates_follow_each_block() -> None:
    model, optimizer, sparse = make(freezing__flops_reduction=0.2)
    rates = sparse.plan.schedule.learning_rates(3, 0.1, 4e-8)
    for epoch in train_epochs(model, optimizer, sparse, range(12)):
        assert [group["lr"] for group in optimizer.param_groups] == pytest.approx(rates[epoch].tolist())


def test_groups_are_split_once_and_keep_their_options() -> None:
    model = Net()
    decayed = [p for p in model.parameters() if p.ndim > 1]
    plain = [p for p in model.parameters() if p.ndim == 1]
    groups = [{"params": decayed, "weight_decay": 0.1}, {"params": plain, "lr": 0.5}]
    optimizer = torch.optim.SGD(groups, lr=0.1, momentum=0.9)
    SparseTraining(model, optimizer, RunSettings(), input_shape=(1, 6, 6), samples=SAMPLES)
    assert [(group["weight_decay"], group["lr"]) for group in optimizer.param_groups] == [(0.1, 0.1)] * 4 + [
        (0, 0.5)
    ] * 4
    assert sum(len(group["params"]) for group in optimizer.param_groups) == len(list(model.parameters()))


def test_every_sample_is_seen_once_an_epoch_and_only_from_the_partial_set() -> None:
    _, _, sparse = make(sieving__removed=0.25)
    sparse.begin_epoch(0)
    seen = list(sparse.sampler)
    assert len(sparse.sampler) == 30
    assert sorted(seen) == sparse.partial_set.nonzero().flatten().tolist()


@pytest.mark.parametrize("method", METHODS)
def test_the_state_before_the_first_epoch_is_one_to_begin_from(method: str) -> None:
    told = {"sparsity__method": method, "sparsity__target": 0.5 if METHODS[method].uses_target else 0.0}
    fetch = lambda indices: (DATA[indices], LABELS[indices])  # noqa: E731
    (_, _, first), (_, _, second), (_, _, third) = (
        make(2, sparsity__interval=1, fetch=fetch, **told) for _ in range(3)
    )
    state = first.state_dict()
    second.load_state_dict(state)
    for sparse in (second, third):
        for _ in train_epochs(cast(Net, sparse.model), cast(Any, sparse.optimizer), sparse, range(1)):
            pass
    after = second.state_dict(), third.state_dict()
    assert after[0].keys() == after[1].keys()
    assert all(torch.equal(value, after[1][name]) for name, value in after[0].items() if name != "kernels.json")
    assert all(map(torch.equal, second.model.state_dict().values(), third.model.state_dict().values()))


def test_a_trace_before_the_end_goes_on_as_planned() -> None:
    """Blocks that will be frozen are planned at their final density, also while the bound of the others is higher."""
    model, optimizer, sparse = make(sparsity__method="spfde", sparsity__target=0.5, freezing__flops_reduction=0.25)
    planned = sparse.plan.trace()
    assert (planned.frozen & (planned.forward_density == 0.5) & (planned.epoch < 8)).any()
    columns = ["forward_density", "weight_grad_density", "frozen", "samples", "extra_macs"]
    assert sparse.trace()[columns].equals(planned[columns])
    for _ in train_epochs(model, optimizer, sparse, range(2)):
        pass
    assert sparse.trace()[columns].equals(planned[columns])


def test_the_trace_tells_what_happened() -> None:
    model, optimizer, sparse = make(freezing__flops_reduction=0.2, sieving__removed=0.25, sparsity__target=0.5)
    for _ in train_epochs(model, optimizer, sparse, range(12)):
        pass
    trace = sparse.trace()
    last = trace[trace.epoch == 11].set_index("layer")
    assert last.frozen.tolist() == [True, True, False, False]
    assert last.forward_density["two.0"] == 0.5 and last.weight_grad_density["two.0"] == 0
    assert last.input_grad_density.tolist()[:3] == [0, 0, 0]  # the third layer reads the frozen prefix alone
    assert (trace.samples == 30).all() and sparse.history.samples.tolist() == [30] * 12
    planned = sparse.plan.trace()
    assert np.allclose(planned.forward_density, trace.forward_density)


def test_the_trace_has_the_explored_share_and_the_overlaps_of_every_epoch() -> None:
    model, optimizer, sparse = make(sparsity__method="set", sparsity__target=0.5)
    layer, masks = sparse.masks["two.0"], []
    for _ in train_epochs(model, optimizer, sparse, range(12)):
        masks.append(layer.active.clone())  # masks of SET change between epochs
    sparse.finish()
    rows = sparse.trace().query("layer == 'two.0'")
    size, held, ever = layer.first.numel(), int(layer.first.sum()), layer.first.clone()
    for epoch, (before, now) in enumerate(itertools.pairwise([layer.first, *masks])):
        ever |= now
        assert rows.explored.iloc[epoch] == int(ever.sum()) / size
        assert rows.overlap_first.iloc[epoch] == int((layer.first & now).sum()) / held
        assert rows.overlap_updates.iloc[epoch] == int((before & now).sum()) / held
    assert 0 < rows.overlap_updates.min() < 1 and (rows.overlap_updates == 1).sum() > 6


@pytest.mark.parametrize("name", ["single-shot-resume", "periodic", "delayed-periodic", "random"])
def test_thawed_blocks_train_again_and_end_at_the_target(name: str) -> None:
    epochs = 24
    model, optimizer, sparse = make(epochs, freezing__flops_reduction=0.15, freezing__scheme=name, sparsity__target=0.5)
    counts = sparse.plan.schedule.counts
    assert max(counts) > 0 and (name == "random" or any(b < a for a, b in itertools.pairwise(counts)))
    first = sparse.masks["two.0"]
    before = block_state(model, optimizer, sparse, 1) if optimizer.state else {}
    for epoch in train_epochs(model, optimizer, sparse, range(epochs)):
        after = block_state(model, optimizer, sparse, 1)
        still = bool(before) and all(torch.equal(before[key], after[key]) for key in before)
        if epoch and counts[epoch - 1] > 1:  # what froze at a boundary is held from the epoch after it
            assert still == (counts[epoch] > 1)
        if counts[epoch] > 1:
            assert int(first.active.sum()) == 288
        assert all(p.requires_grad == (counts[epoch] < 2) for p in model.two.parameters())
        before = after
    planned, happened = sparse.plan.trace(), sparse.trace()
    assert np.allclose(planned.forward_density, happened.forward_density)
    assert planned.frozen.equals(happened.frozen)
    sparse.finish()
    assert sparse.masks.sparsity == 0.5
    assert all(int(layer.weight.count_nonzero()) <= layer.weight.numel() / 2 for layer in sparse.masks)


def test_optimizer_without_momentum_and_adam_keep_zeros() -> None:
    for kind in (torch.optim.Adam, torch.optim.AdamW, torch.optim.SGD):
        model = Net()
        optimizer = kind(model.parameters(), lr=0.01, weight_decay=0.1)
        settings = parse(RunSettings, nested({"sparsity.method": "set", "training.epochs": 6, "sparsity.interval": 2}))
        sparse = SparseTraining(model, optimizer, settings, input_shape=(1, 6, 6), samples=SAMPLES)
        for _ in train_epochs(model, optimizer, sparse, range(6)):
            for layer in sparse.masks:
                assert int(layer.weight.count_nonzero()) <= int(layer.active.sum())
                assert not layer.weight[~layer.active].any()


def test_epochs_come_in_order() -> None:
    _, _, sparse = make()
    with pytest.raises(SpfdeError, match="epoch 1 where epoch 0 is next"):
        sparse.begin_epoch(1)


def test_finishing_thaws_and_leaves_a_plain_state_dict() -> None:
    model, optimizer, sparse = make(freezing__flops_reduction=0.2)
    for _ in train_epochs(model, optimizer, sparse, range(12)):
        pass
    sparse.finish()
    assert all(parameter.requires_grad for parameter in model.parameters())
    model.train()
    assert all(module.training for module in model.modules())
    Net().load_state_dict(model.state_dict())
    for layer in sparse.masks:
        assert int(layer.weight.count_nonzero()) == int(layer.active.sum())


def test_state_goes_round_in_the_middle_of_training() -> None:
    one = make(freezing__flops_reduction=0.2, sieving__removed=0.25)
    for _ in train_epochs(*one, range(9)):
        pass
    two = make(freezing__flops_reduction=0.2, sieving__removed=0.25)
    two[0].load_state_dict(one[0].state_dict())
    two[1].load_state_dict(copy.deepcopy(one[1].state_dict()))
    two[2].load_state_dict({name: value.clone() for name, value in one[2].state_dict().items()})
    for run in (one, two):
        for _ in train_epochs(*run, range(9, 12)):
            pass
    assert all(
        torch.equal(a, b) for a, b in zip(one[0].state_dict().values(), two[0].state_dict().values(), strict=True)
    )
    assert one[2].trace().equals(two[2].trace())
    assert torch.equal(one[2].partial_set, two[2].partial_set)
