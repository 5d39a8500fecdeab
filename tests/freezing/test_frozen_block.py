"""BatchNorm in a frozen block: statistics that stay, or statistics that follow the batches."""

import pytest
import torch
from torch import nn

from spfde.freezing.frozen_block import FrozenBlock, freezing_together
from spfde.models import Block
from tests.test_api import block_state, make, train_epochs


@pytest.mark.parametrize("mode", ["evaluation", "training"])
def test_statistics_stay_or_follow_and_nothing_else_moves(mode: str) -> None:
    model, optimizer, sparse = make(freezing__flops_reduction=0.2, freezing__batch_norm=mode)
    counts, held = sparse.plan.schedule.counts, None
    for epoch in train_epochs(model, optimizer, sparse, range(12)):
        if not counts[epoch]:
            continue
        assert model.one[1].training == (mode == "training") and not model.one[0].training
        now = block_state(model, optimizer, sparse, 0)
        if held:
            moved = {name for name in now if not torch.equal(now[name], held[name])}
            followed = {"1.running_mean", "1.running_var", "1.num_batches_tracked"}
            assert moved == (followed if mode == "training" else set())
        held = now
    assert held
    model.eval()
    assert not model.one[1].training  # evaluation uses the statistics in both modes
    model.train()
    assert model.one[1].training == (mode == "training")


def test_what_two_blocks_share_freezes_with_the_last_of_them() -> None:
    """And what is used outside of the blocks too never does; a shared parameter freezes with its first block."""
    shared, everywhere, weight = nn.ReLU(), nn.Dropout(), nn.Linear(2, 2)
    first, second = nn.Sequential(weight, shared, everywhere), nn.Sequential(nn.Linear(2, 2), shared, weight)
    model = nn.ModuleDict({"first": first, "second": second, "head": everywhere})
    together = freezing_together(model, [Block("first", ("first",)), Block("second", ("second",))])
    assert [set(modules) for _, modules in together] == [{first}, {second, second[0], shared, weight}]
    assert [set(parameters) for parameters, _ in together] == [set(weight.parameters()), set(second[0].parameters())]


def test_a_batch_norm_that_follows_hears_of_the_mode_through_frozen_containers() -> None:
    block = nn.Sequential(nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4), nn.Dropout()), nn.ReLU())
    network = nn.Sequential(block, nn.Flatten(), nn.Linear(4, 2))
    frozen = FrozenBlock(block.parameters(), block.modules(), "training")
    modes = []
    for mode in (True, False, True):
        network.train(mode)
        modes.append((block[0][1].training, block[0][2].training, network[2].training))
    assert modes == [(True, False, True), (False, False, False), (True, False, True)]
    block.eval()
    assert block.train() is block and block[0][1].training and not block[0][2].training  # to training mode, by default
    frozen.thaw(True)
    assert all(module.training for module in network.modules())
    network.eval()
    assert not any(module.training for module in network.modules())
