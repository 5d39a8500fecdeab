"""BatchNorm in a frozen block: statistics that stay, or statistics that follow the batches."""

import pytest
import torch
from torch import nn

from spfde.freezing.frozen_block import FrozenBlock
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


def test_a_batch_norm_that_follows_hears_of_the_mode_through_frozen_containers() -> None:
    block = nn.Sequential(nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4), nn.Dropout()), nn.ReLU())
    network = nn.Sequential(block, nn.Flatten(), nn.Linear(4, 2))
    frozen = FrozenBlock(block.parameters(), block.modules(), "training")
    modes = []
    for mode in (True, False, True):
        network.train(mode)
        modes.append((block[0][1].training, block[0][2].training, network[2].training))
    assert modes == [(True, False, True), (False, False, False), (True, False, True)]
    frozen.thaw(True)
    assert all(module.training for module in network.modules())
    network.eval()
    assert not any(module.training for module in network.modules())
