"""Schemes on layers whose weight is not (out, in, *kernel): transposed, grouped and depthwise convolutions."""

import pytest
import torch
from torch import nn

from spfde import SparseTraining, settings_for
from spfde.errors import SpfdeError
from spfde.sparsity.distributions import densities
from spfde.sparsity.schemes import Layout, scheme


def used(layer: nn.Module, mask: torch.Tensor, shape: tuple[int, ...]) -> torch.Tensor:
    """Which input channels change the output when each alone is switched on, found by running the layer."""
    with torch.no_grad():
        layer.weight.copy_(mask.to(layer.weight) * torch.rand(mask.shape, generator=torch.Generator().manual_seed(1)))
        layer.bias.zero_()
        inputs = torch.zeros(shape[0], *shape)
        inputs[range(shape[0]), range(shape[0])] = 1.0
        return layer(inputs).flatten(1).any(1)


@pytest.mark.parametrize(
    ("layer", "channels"),
    [
        (nn.Conv2d(8, 12, 3), 8),
        (nn.ConvTranspose2d(8, 4, 2), 8),
        (nn.Conv2d(8, 12, 3, groups=2), 8),
        (nn.ConvTranspose2d(8, 4, 2, groups=2), 8),
        (nn.Conv2d(8, 8, 3, groups=8), 8),
    ],
)
def test_channel_sparsity_takes_input_channels_of_every_convolution(layer: nn.Conv2d, channels: int) -> None:
    form = scheme("channel").of(layer)
    mask = form.random(layer.weight.shape, 0.25, torch.Generator().manual_seed(2))
    assert int(used(layer, mask, (channels, 5, 5)).sum()) == channels // 4
    assert int(mask.sum()) == form.weight_count(layer.weight.shape, 0.25) == layer.weight.numel() // 4


@pytest.mark.parametrize("name", ["block", "2:4", "channel", "unstructured"])
@pytest.mark.parametrize("groups", [1, 2])
def test_a_transposed_convolution_has_the_masks_of_the_ordinary_one(name: str, groups: int) -> None:
    """Each weight of the ordinary layer is put where the transposed one keeps it, group by group."""
    ordinary, transposed = nn.Conv2d(8, 12, 3, groups=groups), nn.ConvTranspose2d(8, 12, 3, groups=groups)
    score = torch.rand(ordinary.weight.shape, generator=torch.Generator().manual_seed(4))
    moved = torch.empty_like(transposed.weight)
    per_out, per_in = 12 // groups, 8 // groups
    for out in range(12):
        for channel in range(per_in):
            moved[out // per_out * per_in + channel, out % per_out] = score[out, channel]
    everywhere = torch.ones_like(score, dtype=torch.bool)
    wanted = scheme(name).of(ordinary).keep(everywhere, score, 0.5)
    found = scheme(name).of(transposed).keep(torch.ones_like(moved, dtype=torch.bool), moved, 0.5)
    for out in range(12):
        for channel in range(per_in):
            assert torch.equal(found[out // per_out * per_in + channel, out % per_out], wanted[out, channel])


def test_densities_do_not_depend_on_the_layout() -> None:
    shape = Layout.of(nn.ConvTranspose2d(8, 4, 3)).shape((8, 4, 3, 3))
    assert shape == (4, 8, 3, 3)
    found = densities("er", {"a": shape, "b": (40, 40)}, 0.5)
    assert found == densities("er", {"a": (4, 8, 3, 3), "b": (40, 40)}, 0.5)


def test_training_with_channels_of_a_transposed_and_a_depthwise_layer() -> None:
    model = nn.Sequential(
        nn.Conv2d(3, 8, 3), nn.ConvTranspose2d(8, 4, 2), nn.Conv2d(4, 4, 3, groups=4), nn.Flatten(), nn.Linear(100, 4)
    )
    settings = settings_for("set", sparsity=0.75, epochs=4, batch_size=8, interval=1, sparsity__scheme="channel")
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    sparse = SparseTraining(model, optimizer, settings, input_shape=(3, 8, 8), samples=8)
    for epoch in range(2):
        sparse.begin_epoch(epoch)
        assert sparse.masks["1"].active.flatten(1).any(1).sum() == 2  # of 8 inputs
        assert sparse.masks["1"].active.transpose(0, 1).flatten(1).any(1).all()
        assert sparse.masks["2"].active.flatten(1).any(1).sum() == 1  # of 4 filters
        assert float(sparse.masks["2"].mask.mean()) == 0.25
        logits = model(torch.randn(8, 3, 8, 8))
        logits.square().mean().backward()
        optimizer.step()
        optimizer.zero_grad()
        sparse.observe(torch.arange(8), logits, torch.arange(8) % 4)


@pytest.mark.parametrize("name", ["unstructured", "block", "channel", "pattern", "1:8"])
def test_a_layer_keeps_a_unit_where_rounding_leaves_none(name: str) -> None:
    form = scheme(name)
    for shape in ((4, 3), (2, 2, 3, 3), (3, 9)):
        mask = form.random(shape, 0.01, torch.Generator().manual_seed(0))
        assert 0 < int(mask.sum()) == form.weight_count(shape, 0.01)
        assert int(form.keep(mask, torch.rand(shape), 0.001).sum()) == int(mask.sum())
        assert form.weight_count(shape, 0.0) == 0


def test_nothing_to_make_sparse_is_refused() -> None:
    class Recurrent(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.rnn, self.fc = nn.LSTM(24, 32, batch_first=True), nn.Linear(32, 4)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.fc(self.rnn(x)[0][:, -1])

    def training(**more: object) -> SparseTraining:
        model = Recurrent()
        settings = settings_for("rigl", sparsity=0.9, epochs=4, batch_size=8, **more)
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        return SparseTraining(model, optimizer, settings, input_shape=(8, 24), samples=40)

    with pytest.raises(SpfdeError, match="method rigl makes convolutions and linear layers sparse, and this network k"):
        training()
    assert list(training(sparsity__dense_layers="none").masks.layers) == ["fc"]
