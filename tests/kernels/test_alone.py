"""Layers in networks that there are no fused blocks for: convolutions one by one, and linear layers."""

import copy

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional

from spfde import kernels
from spfde.kernels.alone import linear
from spfde.kernels.structure import Structure
from spfde.models.resnet import CifarResNet
from spfde.models.vgg import Vgg
from tests.kernels.test_block import compare, prepared
from tests.kernels.test_convolution import close


@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    rows=st.integers(1, 150),
    inputs=st.integers(1, 70),
    outputs=st.integers(1, 70),
    threads=st.sampled_from([1, 3]),
    density=st.sampled_from([0.0, 0.1, 1.0]),
    biased=st.booleans(),
)
def test_linear(isa, rows, inputs, outputs, threads, density, biased):
    torch.manual_seed(rows)
    mask = torch.rand(outputs, inputs) < density
    mask.view(-1)[torch.randint(mask.numel(), (1,))] = True
    weight, x = torch.randn(mask.shape) * mask, torch.randn(rows, inputs)
    bias = torch.randn(outputs) if biased else None
    leaves = [t.clone().requires_grad_() for t in (x, weight, bias) if t is not None]
    exact = [t.double().detach().requires_grad_() for t in leaves]
    structure = Structure(weight, 1, mask)
    y = linear(leaves[0], leaves[1], leaves[2] if biased else None, structure, structure, threads)
    wanted = functional.linear(*exact)
    close(y.detach(), wanted.detach())
    g = torch.randn(y.shape)
    found = torch.autograd.grad(y, leaves, g)
    right = list(torch.autograd.grad(wanted, exact, g.double()))
    right[1] = right[1] * mask
    for one, other in zip(found, right, strict=True):
        close(one, other)
    assert not found[1][~mask].any()


class Mixed(nn.Module):
    """A convolution with a bias, a grouped one, attention, and two linear layers of which one has no mask."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 12, 3, stride=2, padding=1)
        self.grouped = nn.Conv2d(12, 12, 3, padding=1, groups=3)
        self.point = nn.Conv2d(12, 16, 1)
        self.attention = nn.MultiheadAttention(16, 2, batch_first=True)
        self.wide = nn.Linear(16, 40)
        self.narrow = nn.Linear(40, 7)

    def forward(self, x):
        x = self.point(functional.gelu(self.grouped(functional.gelu(self.conv(x)))))
        x = x.flatten(2).transpose(1, 2)
        x = x + self.attention(x, x, x)[0]
        return self.narrow(functional.gelu(self.wide(x)).mean(dim=1))


@pytest.mark.parametrize("threads", [1, 2])
def test_any_network(sparse, threads):
    torch.manual_seed(0)
    model = Mixed()
    masks = {name: torch.rand(model.get_submodule(name).weight.shape) < 0.3 for name in ("conv", "point", "wide")}
    with torch.no_grad():
        for name, mask in masks.items():
            model.get_submodule(name).weight.mul_(mask)
    compare(model, masks, torch.randn(19, 3, 9, 9), threads)
    handle = kernels.attach(model, masks)
    assert {unit.name: unit.kind for unit in handle.units} == {
        "conv": "lone convolution",
        "point": "lone convolution",
        "wide": "linear",
    }
    model(torch.randn(2, 3, 9, 9))
    assert handle.executed == set(masks)
    handle.choose({"wide": "dense"})
    seen = []
    model.conv.register_forward_hook(lambda *_: seen.append(1))
    model(torch.randn(2, 3, 9, 9))
    assert handle.executed == {"conv", "point"}
    assert seen == [1], "hooks of the layers themselves work"
    copied = copy.deepcopy(model)
    assert type(copied.conv) is nn.Conv2d
    assert type(copied.wide) is nn.Linear
    handle.detach()


def test_every_unit_can_be_timed(sparse):
    resnet, masks = prepared(CifarResNet(10, 3, (8, 8, 16), 1))
    vgg, more = prepared(Vgg(((8, 1), (16, 1)), 10, 3, 1.0))
    mixed = Mixed()
    most = {"conv": torch.ones(mixed.conv.weight.shape), "wide": torch.ones(mixed.wide.weight.shape)}
    for model, named in ((resnet, masks), (vgg, more), (mixed, most)):
        before = {name: value.clone() for name, value in model.state_dict().items()}
        handle = kernels.attach(model, named)
        with pytest.raises(RuntimeError, match="not known before a forward pass"):
            handle.units[0].measure(2)
        handle.trace_shapes(torch.randn(2, 3, 8, 8))
        assert handle.units[0].input_shape == (3, 8, 8)
        for unit in handle.units:
            for frozen in (False, True):
                sparse_seconds, dense_seconds = unit.measure(4, frozen=frozen)
                assert 0 < sparse_seconds < 10
                assert 0 < dense_seconds < 10
        assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
        assert all(p.grad is None for p in model.parameters())
        handle.detach()
