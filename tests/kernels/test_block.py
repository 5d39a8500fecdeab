"""Residual blocks on sparse kernels against torch in double precision, and BatchNorm in all its modes."""

import copy

import pytest
import torch
from torch import nn
from torchvision.models import resnet as torchvision_resnet

from spfde import kernels
from spfde.models.resnet import BasicBlock, CifarResNet
from spfde.models.vgg import Vgg

TIGHT = 1e-5


def error(found, wanted):
    return float((found.double() - wanted).norm() / wanted.norm().clamp_min(1e-30))


def prepared(module, density=0.3, seed=0):
    """The module with random BatchNorm parameters and masked 3x3 convolutions, and the masks by layer name."""
    torch.manual_seed(seed)
    masks = {}
    with torch.no_grad():
        for name, inner in module.named_modules():
            if isinstance(inner, nn.BatchNorm2d) and inner.affine:
                inner.weight.uniform_(0.5, 1.5)
                inner.bias.normal_(0, 0.3)
            elif isinstance(inner, nn.Conv2d) and inner.kernel_size == (3, 3):
                masks[name] = torch.rand_like(inner.weight) < density
                inner.weight.mul_(masks[name])
    return module, masks


def compare(module, masks, x, threads=1, tolerance=TIGHT, inputs=True):
    """Output, gradients and buffers of one training step against the same module in double precision."""
    exact = copy.deepcopy(module).double()
    handle = kernels.attach(module, masks, threads=threads)
    try:
        mine, theirs = x.clone().requires_grad_(inputs), x.double().requires_grad_(inputs)
        z, wanted = module(mine), exact(theirs)
        assert handle.executed, "it ran sparse"
        assert error(z.detach(), wanted.detach()) < tolerance
        torch.manual_seed(1)
        g = torch.randn_like(z)
        if wanted.requires_grad:
            z.backward(g)
            wanted.backward(g.double())
        if inputs:
            assert error(mine.grad, theirs.grad) < tolerance
        for (name, p), q in zip(module.named_parameters(), exact.parameters(), strict=True):
            assert (p.grad is None) == (q.grad is None), name
            if p.grad is not None:
                mask = masks.get(name.removesuffix(".weight"))
                assert error(p.grad, q.grad if mask is None else q.grad * mask) < tolerance, name
                assert mask is None or not p.grad[~mask].any()
        for (name, a), b in zip(module.named_buffers(), exact.buffers(), strict=True):
            assert error(a, b.double()) < tolerance, name
    finally:
        handle.detach()


@pytest.mark.parametrize("threads", [1, 3])
@pytest.mark.parametrize(
    ("inputs", "outputs", "size", "stride", "batch", "density"),
    [
        (32, 32, 9, 1, 20, 0.02),
        (16, 32, 8, 2, 16, 0.2),
        (24, 40, 7, 2, 5, 1.0),
        (48, 48, 4, 1, 33, 0.1),
        (64, 64, 2, 1, 64, 0.05),
    ],
)
def test_block(isa, inputs, outputs, size, stride, batch, density, threads):
    module, masks = prepared(BasicBlock(inputs, outputs, stride, False), density)
    compare(module, masks, torch.rand(batch, inputs, size, size), threads)


def test_block_with_padded_shortcut(isa):
    module, masks = prepared(BasicBlock(8, 16, 2, True))
    compare(module, masks, torch.rand(18, 8, 7, 7))


@pytest.mark.parametrize("stride", [1, 2])
def test_block_of_torchvision(isa, stride):
    down = nn.Sequential(nn.Conv2d(8, 16, 1, stride, bias=False), nn.BatchNorm2d(16)) if stride == 2 else None
    module, masks = prepared(torchvision_resnet.BasicBlock(8 if down else 16, 16, stride, down))
    compare(module, masks, torch.rand(18, 8 if down else 16, 7, 7))


@pytest.mark.parametrize("stride", [1, 2])
def test_bottleneck_of_torchvision(isa, stride):
    down = nn.Sequential(nn.Conv2d(12, 32, 1, stride, bias=False), nn.BatchNorm2d(32)) if stride == 2 else None
    module, masks = prepared(torchvision_resnet.Bottleneck(12 if down else 32, 8, stride, down))
    compare(module, masks, torch.rand(18, 12 if down else 32, 7, 7))


def test_whole_network(isa):
    module, masks = prepared(CifarResNet(10, 3, (8, 16, 32), 2))
    compare(module, masks, torch.rand(20, 3, 16, 16))


@pytest.mark.parametrize("threads", [1, 2])
def test_vgg(isa, threads):
    module, masks = prepared(Vgg(((8, 2), (16, 1), (24, 2)), 10, 3, 1.0))
    compare(module, masks, torch.rand(20, 3, 12, 12), threads)


def test_sequence_of_vgg_with_other_modules_between(sparse):
    layers = [nn.Conv2d(3, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8), nn.ReLU(), nn.MaxPool2d(2), nn.Hardswish()]
    layers += [nn.Conv2d(8, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8), nn.ReLU(), nn.MaxPool2d(2, stride=1)]
    module, masks = prepared(nn.Sequential(*layers))
    compare(module, masks, torch.rand(20, 3, 12, 12))


@pytest.mark.parametrize("what", ["evaluation", "second in evaluation", "no momentum", "no statistics", "not affine"])
def test_modes_of_batch_norm(sparse, what):
    module, masks = prepared(BasicBlock(8, 16, 2, False))
    for bn in (module.bn1, module.bn2, module.shortcut[1]):
        bn.running_mean.normal_()
        bn.running_var.uniform_(0.5, 2)
    if what == "evaluation":
        module.eval()
    elif what == "second in evaluation":
        module.bn2.eval()
    elif what == "no momentum":
        module.bn1.momentum = module.bn2.momentum = None
    elif what == "no statistics":
        module.bn1, module.shortcut[1] = (nn.BatchNorm2d(16, track_running_stats=False) for _ in range(2))
    else:
        module.bn1, module.bn2 = (nn.BatchNorm2d(16, affine=False) for _ in range(2))
    for _ in range(2):
        compare(module, masks, torch.rand(5, 8, 6, 6))
        module.zero_grad()
    if what != "evaluation":
        module.eval()
        compare(module, masks, torch.rand(5, 8, 6, 6))


def test_large_means(sparse):
    """A variance that is a difference of two large numbers would be lost: means here are 1,000 deviations."""
    module, masks = prepared(BasicBlock(8, 8, 1, False), density=0.5)
    x = torch.rand(20, 8, 6, 6) + 1000
    with torch.no_grad():
        exact = module.double().bn1(module.conv1(x.double()))[..., 1:-1, 1:-1]  # no border: all pixels alike
        module.float()
    found = copy.deepcopy(module)
    compare(found, masks, x, tolerance=1e-3, inputs=False)
    assert exact.isfinite().all()


def test_a_single_value_has_no_variance(sparse):
    module, masks = prepared(BasicBlock(4, 4, 1, False))
    handle = kernels.attach(module, masks)
    with pytest.raises(ValueError, match="more than 1 value per channel"):
        module(torch.rand(1, 4, 1, 1))
    module.eval()
    assert module(torch.rand(1, 4, 1, 1)).shape == (1, 4, 1, 1)
    handle.detach()


def test_nothing_is_kept_or_changed_in_a_frozen_block(sparse):
    module, masks = prepared(CifarResNet(10, 3, (8, 8, 16), 1))
    for part in (module.conv1, module.bn1, module.layer1):
        part.eval().requires_grad_(False)
    before = {name: value.clone() for name, value in module.state_dict().items()}
    compare(module, masks, torch.rand(20, 3, 8, 8), inputs=False)
    for name, value in module.state_dict().items():
        if name.startswith(("conv1", "bn1", "layer1")):
            assert torch.equal(value, before[name]), name
    assert all(p.grad is None for part in (module.conv1, module.bn1, module.layer1) for p in part.parameters())
    handle = kernels.attach(module, masks)
    assert not module.layer1(torch.rand(20, 8, 8, 8)).requires_grad
    handle.detach()


def test_frozen_weights_behind_trained_ones_pass_the_gradient_on(sparse):
    module, masks = prepared(BasicBlock(8, 16, 2, False))
    module.conv2.weight.requires_grad_(False)
    module.bn1.bias.requires_grad_(False)
    compare(module, masks, torch.rand(5, 8, 6, 6))


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_divergence_is_seen(sparse, value):
    """As in torch every output of the image's channel is NaN, and so is every gradient that the loss reaches."""
    module, masks = prepared(BasicBlock(8, 8, 1, False), density=1.0)
    x = torch.rand(5, 8, 4, 4)
    x[2, 3, 1, 1] = value
    plain = copy.deepcopy(module)
    handle = kernels.attach(module, masks)
    z, wanted = module(x), plain(x)
    assert torch.equal(z.isnan(), wanted.isnan())
    assert z.isnan().any()
    z.sum().backward()
    wanted.sum().backward()
    for p, q in zip(module.parameters(), plain.parameters(), strict=True):
        assert torch.equal(p.grad.isnan(), q.grad.isnan())
    handle.detach()
