"""Whatever way a network multiplies by its weights, the work is the layer's; what is no layer's is a product."""

import random
import warnings

import pytest
import timm
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils import parametrizations
from torch.utils.checkpoint import checkpoint

from spfde.cost import flops, profile
from spfde.cost.trace import make_trace
from spfde.models import Block


def trace_of(found, frozen=0):
    return make_trace(found, torch.ones(1, len(found.rows)).numpy(), 1, frozen)


class Net(nn.Module):
    """Two layers whose forward pass is told."""

    def __init__(self, forward):
        super().__init__()
        self.first, self.second = nn.Conv2d(3, 8, 3, padding=1), nn.Linear(8, 8)
        self.head = nn.Linear(8, 4)
        self.how = forward

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(x).relu().mean((2, 3))
        return self.head(self.how(self, x))


def uses(net, shape=(3, 6, 6)):
    with warnings.catch_warnings(action="ignore"):
        found = profile(net, shape)
    return {layer.name: (layer.macs, layer.direct, layer.called) for layer in found.layers}


@pytest.mark.parametrize("padding", [1, "same"])
def test_padding_same_costs_what_padding_does(padding):
    net = nn.Sequential(nn.Conv2d(3, 8, 3, padding=padding), nn.ReLU(), nn.Flatten(), nn.Linear(8 * 64, 4))
    assert [(row.macs, row.output_elements) for row in profile(net, (3, 8, 8)).rows] == [(64 * 216, 512), (2048, 4)]


@pytest.mark.parametrize(
    ("forward", "direct", "called"),
    [
        (lambda net, x: net.second(x), True, True),
        (lambda net, x: F.linear(x, net.second.weight, net.second.bias), True, False),
        (lambda net, x: x @ net.second.weight.t(), True, False),
        (lambda net, x: torch.einsum("bi,oi->bo", x, net.second.weight), True, False),
        (lambda net, x: F.conv1d(x[:, :, None], net.second.weight[:, :, None])[:, :, 0], True, False),
        (lambda net, x: F.linear(x, net.second.weight.double().float()), True, False),  # a copy has the same zeros
        (lambda net, x: F.linear(x, net.second.weight - net.second.weight.mean()), False, False),
        (lambda net, x: F.linear(x, torch.cat([net.second.weight[:4], net.second.weight[4:]])), False, False),
        (lambda net, x: (x[:, None] * net.second.weight).sum(-1), False, False),  # no product of matrices
    ],
)
def test_how_a_weight_reaches_its_operation(forward, direct, called):
    net = Net(forward)
    macs = 64 if direct else 0
    assert uses(net) == {"first": (36 * 216, True, True), "second": (macs, direct, called), "head": (32, True, True)}
    assert not [module for module in net.modules() if module._forward_hooks or module._forward_pre_hooks]


@pytest.mark.parametrize("layer", [timm.layers.StdConv2d, timm.layers.ScaledStdConv2d])
def test_standardised_weights_are_counted_and_known(layer):
    net = nn.Sequential(nn.Conv2d(3, 8, 3), layer(8, 4, 3), nn.Flatten(), nn.Linear(64, 2))
    assert uses(net) == {"0": (16 * 216, True, True), "1": (16 * 288, False, True), "3": (128, True, True)}
    normed = nn.Sequential(nn.Conv2d(3, 8, 3), parametrizations.weight_norm(nn.Conv2d(8, 4, 3)), nn.Flatten())
    assert uses(normed)["1"] == (4 * 288, False, True)


def test_torchs_encoder_is_counted_and_its_fused_path_is_seen():
    """Two of four layers are used by their weight even in training; in evaluation all of them are."""
    encoder = nn.TransformerEncoder(nn.TransformerEncoderLayer(8, 2, 16, batch_first=True, dropout=0.0), 1)
    net = nn.Sequential(nn.Linear(6, 8), encoder, nn.Linear(8, 4))
    with warnings.catch_warnings(action="ignore"):
        found = profile(net, (5, 6))
    assert {layer.name: (layer.macs, layer.called) for layer in found.layers} == {
        "0": (5 * 48, True),
        "1.layers.0.self_attn.out_proj": (5 * 64, False),
        "1.layers.0.linear1": (5 * 128, False),
        "1.layers.0.linear2": (5 * 128, False),
        "2": (5 * 32, True),
    }
    attention = 2 * 25 * 8
    assert {row.name: row.macs for row in found.products} == {
        "1.layers.0.self_attn.in_proj_weight": 5 * 8 * 24,
        "1.layers.0.self_attn.products": attention,
    }


def test_products_are_in_full_and_executed_and_not_in_paper():
    net = nn.Sequential(nn.Linear(6, 8), Attention(), nn.Linear(8, 4))
    found = profile(net, (5, 6), [Block("a", ("0",)), Block("b", ("1",))])
    layers = 5 * (48 + 64 + 32)
    for frozen, factor in ((0, 3), (1, 3), (2, 1)):
        costs = flops(found, trace_of(found, frozen))
        backward = 5 * ((48 if frozen < 1 else 0) + (64 * 2 - 64 * (frozen == 1) if frozen < 2 else 0))
        head = 5 * 32 * (1 + (frozen < 2))
        assert costs["full"] == costs["executed"] == 2 * (layers + backward + head + factor * 2 * 25 * 8)
        assert costs["paper"] == 2 * (layers + 2 * 5 * (48 * (frozen < 1) + 64 * (frozen < 2) + 32))


class Attention(nn.Module):
    def __init__(self):
        super().__init__()
        self.q = nn.Linear(8, 8)

    def forward(self, x):
        q = self.q(x)
        return F.scaled_dot_product_attention(q[:, None], q[:, None], q[:, None])[:, 0]


def test_recurrent_networks_are_counted_step_by_step():
    class Recurrent(nn.Module):
        def __init__(self):
            super().__init__()
            self.rnn, self.fc = nn.LSTM(6, 8, batch_first=True), nn.Linear(8, 4)

        def forward(self, x):
            return self.fc(self.rnn(x)[0][:, -1])

    found = profile(Recurrent(), (5, 6), [])
    macs = {row.name: (row.macs, row.input_block) for row in found.rows}
    assert macs == {
        "fc": (32, 0),
        "rnn.weight_ih_l0": (5 * 6 * 32, -1),
        "rnn.weight_hh_l0": (8 * 32, -1),  # the first step's zeros
        "rnn.weight_hh_l0#2": (4 * 8 * 32, 0),
    }


class Dropped(nn.Module):
    """Its blocks are skipped at random in training, its second head is there in training alone."""

    def __init__(self, p, draw):
        super().__init__()
        self.blocks = nn.ModuleList(nn.Linear(8, 8) for _ in range(6))
        self.head, self.p, self.draw = nn.Linear(8, 4), p, draw

    def forward(self, x):
        for block in self.blocks:
            if not self.training or self.draw() >= self.p:
                x = block(x).relu()
        return self.head(x)


@pytest.mark.parametrize("p", [0.2, 0.9])
@pytest.mark.parametrize("draw", [random.random, lambda: float(torch.rand(()))])
def test_layers_that_are_skipped_at_random_count_as_if_they_never_were(p, draw):
    net = Dropped(p, draw)
    state = random.getstate(), torch.get_rng_state()
    found = profile(net, (8,))
    assert random.getstate() == state[0] and torch.equal(torch.get_rng_state(), state[1])
    assert [layer.macs for layer in found.layers] == [64] * 6 + [32]
    assert [layer.input_block for layer in found.layers] == [-1, 0, 1, 2, 3, 4, 5]
    assert found.saved_bytes[0] == 4 * 8 * 7  # the input of each layer, which ReLU keeps as well


def test_layers_without_work_are_named():
    net = Net(lambda net, x: x)
    with pytest.warns(UserWarning, match="layers without work that grows with the batch, which count as free: second"):
        found = profile(net, (3, 6, 6))
    assert found.unused == ["second"] and found.idle == ("second.weight", "second.bias")


def test_layers_that_work_on_constants_are_as_direct_as_others():
    """As the position bias of SwinV2: two layers on a table, whose result is multiplied with the samples'."""
    net = Net(lambda net, x: F.linear(x, net.table(torch.ones(8, 2))))
    net.table = nn.Sequential(nn.Linear(2, 6), nn.ReLU(), nn.Linear(6, 8))
    assert uses(net) == {
        "first": (36 * 216, True, True),
        "second": (0, True, True),
        "head": (32, True, True),
        "table.0": (0, True, True),
        "table.2": (0, True, True),
    }


@pytest.mark.parametrize("reentrant", [True, False])
def test_checkpointing_is_seen_through(reentrant):
    plain = Net(lambda net, x: net.second(x).relu())
    net = Net(lambda net, x: checkpoint(lambda y: net.second(y).relu(), x, use_reentrant=reentrant))
    with pytest.warns(UserWarning, match="activation checkpointing is not in the costs"):
        found = profile(net, (3, 6, 6))
    without = profile(plain, (3, 6, 6))
    assert (found.layers, found.saved_bytes) == (without.layers, without.saved_bytes)
    assert found.checkpointing == ("reentrant" if reentrant else "other",)


def test_classes_come_from_the_output():
    class Many(nn.Module):
        def __init__(self, give):
            super().__init__()
            self.conv, self.decoder, self.give = nn.Conv2d(3, 5, 1), nn.Linear(2, 192), give

        def forward(self, x):
            return self.give(self.conv(x))

    with warnings.catch_warnings(action="ignore"):
        shapes = [
            profile(Many(give), (3, 4, 4)).output
            for give in (lambda y: y, lambda y: y.mean((2, 3)), lambda y: (y, y), lambda y: {"out": y})
        ]
    assert shapes == [(5, 4, 4), (5,), None, None]


def test_blocks_against_the_forward_order_are_known():
    net = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4), nn.Linear(4, 4), nn.Linear(4, 2))
    order = [Block("b", ("1",)), Block("c", ("2",)), Block("a", ("0",))]
    assert profile(net, (4,), order).against_order == ((0, 2), (1, 2))
    assert profile(net, (4,), [order[2], *order[:2]]).against_order == ()


def test_a_trace_has_a_row_for_each_product():
    found = profile(nn.Sequential(nn.Linear(6, 8), Attention(), nn.Linear(8, 4)), (5, 6))
    assert trace_of(found)["layer"].tolist() == ["0", "1.q", "2", "1.products"]
