"""Weights, BatchNorms and inputs that kernels cannot read or that do not fit each other; images of many sizes."""

import copy

import pytest
import torch
from torch import nn
from torchvision.models.resnet import BasicBlock as TorchvisionBlock
from torchvision.models.resnet import ResNet

from spfde import kernels
from spfde.kernels import memory
from spfde.models.resnet import BasicBlock, CifarResNet
from tests.kernels.test_block import prepared

pytestmark = pytest.mark.usefixtures("sparse")


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("layer", ["conv", "linear"])
@pytest.mark.filterwarnings("ignore:sparse kernels are not used")
def test_weights_that_are_views_of_larger_ones(layer, when):
    """Their gradients have other strides than they: kernels would write beside them."""
    torch.manual_seed(0)
    whole = torch.randn(8, 32, 3, 3) if layer == "conv" else torch.randn(8, 32)
    module = nn.Conv2d(16, 8, 3, padding=1, bias=False) if layer == "conv" else nn.Linear(16, 8)
    x = torch.randn(4, 16, 6, 6) if layer == "conv" else torch.randn(4, 16)
    model = nn.Sequential(module)
    masks = {"0": torch.rand(module.weight.shape) < 0.5}
    view = nn.Parameter(whole[:, :16])
    if when == "before":
        module.weight = view
    handle = kernels.attach(model, masks)
    module.weight = view
    model(x).square().sum().backward()
    found = module.weight.grad.clone()
    handle.rebuild()  # now the structure is one of the view
    module.weight.grad = None
    model(x).square().sum().backward()
    again = module.weight.grad.clone()
    handle.detach()
    module.weight.grad = None
    model(x).square().sum().backward()
    torch.testing.assert_close(found, module.weight.grad)
    torch.testing.assert_close(again, module.weight.grad)


def test_transposed_weights_run_sparse():
    layer = nn.Linear(16, 8)
    layer.weight = nn.Parameter(torch.randn(16, 8).t())
    mask = torch.rand(8, 16) < 0.5
    with torch.no_grad():
        layer.weight.mul_(mask)
    plain = copy.deepcopy(layer)
    handle, x = kernels.attach(layer, {"": mask}), torch.randn(5, 16)
    torch.testing.assert_close(layer(x), plain(x))
    assert handle.executed == {""}
    layer(x).square().sum().backward()
    plain(x).square().sum().backward()
    torch.testing.assert_close(layer.weight.grad, plain.weight.grad * mask)
    handle.detach()


def test_inputs_that_do_not_fit_are_torchs_errors():
    module, masks = prepared(CifarResNet(10, 3, (8, 8, 16), 1))
    kernels.attach(module, masks)
    with pytest.raises(RuntimeError, match="to have 3 channels, but got 1 channels"):
        module(torch.rand(4, 1, 8, 8))
    linear = nn.Linear(64, 8)
    handle = kernels.attach(linear, {"": torch.ones(8, 64)})
    with pytest.raises(RuntimeError, match="shapes cannot be multiplied"):
        linear(torch.rand(3, 32))
    handle.detach()
    row = [nn.Conv2d(3, 8, 1, bias=False), nn.BatchNorm2d(8), nn.ReLU(), nn.MaxPool2d(2)]
    more = [nn.Conv2d(16, 8, 1, bias=False), nn.BatchNorm2d(8), nn.ReLU()]
    for model in (
        nn.Sequential(*row),
        nn.Sequential(*row[:3], *more),
        nn.Sequential(row[0], nn.BatchNorm2d(4), row[2]),
    ):
        handle = kernels.attach(model, {"0": torch.ones(8, 3, 1, 1)})
        with pytest.raises(RuntimeError, match=r"too small|to have 16 channels|running_mean should contain"):
            model(torch.rand(4, 3, 1, 1).expand(4, 3, 1, 1 if len(model) == 4 else 3))
        handle.detach()


def test_a_block_whose_shortcut_does_not_fit_its_path():
    """torch adds one pixel to all of them."""
    block, masks = prepared(BasicBlock(8, 8, 1, False))
    block.conv1.stride = (2, 2)
    plain = copy.deepcopy(block)
    handle, x = kernels.attach(block, masks), torch.rand(3, 8, 2, 2)
    torch.testing.assert_close(block(x), plain(x))
    handle.detach()


def test_a_shortcut_of_two_convolutions_runs_dense():
    module = ResNet(TorchvisionBlock, [1, 1, 1, 1], num_classes=5)
    pair = [nn.Conv2d(128, 128, 1, bias=False), nn.BatchNorm2d(128)]
    module.layer2[0].downsample = nn.Sequential(*module.layer2[0].downsample, *pair)
    module.layer3[0].downsample = nn.Conv2d(128, 256, 1, 2, bias=False)
    module, masks = prepared(module)
    plain = copy.deepcopy(module)
    handle, x = kernels.attach(module, masks), torch.rand(4, 3, 64, 64)
    torch.testing.assert_close(module(x), plain(x), rtol=1e-3, atol=1e-4)
    blocks = [unit.name for unit in handle.units if unit.kind == "residual block"]
    assert blocks == ["layer1.0", "layer4.0"]
    handle.detach()


@pytest.mark.parametrize("change", ["double", "shorter"])
def test_batch_norms_that_kernels_cannot_read(change):
    module, masks = prepared(CifarResNet(10, 3, (8, 8, 16), 1))
    handle = kernels.attach(module, masks)
    bn = module.layer2[0].bn1
    if change == "double":
        bn.double()
    else:
        bn.weight = nn.Parameter(torch.ones(4))
    with (
        pytest.warns(UserWarning, match="a weight or a BatchNorm is no dense tensor of torch.float32"),
        pytest.raises(RuntimeError),
    ):
        module(torch.rand(4, 3, 8, 8))
    assert handle.executed == set()


def test_a_part_that_changes_the_number_of_images():
    class Halves(nn.Module):
        def forward(self, x):
            return torch.cat(x.chunk(2, dim=3))

    row = [Halves(), nn.Conv2d(3, 8, 1, bias=False), nn.BatchNorm2d(8), nn.ReLU()]
    model, masks = prepared(nn.Sequential(*row))
    masks["1"] = torch.ones(8, 3, 1, 1)
    plain = copy.deepcopy(model)
    handle, x = kernels.attach(model, masks), torch.rand(12, 3, 4, 8)
    torch.testing.assert_close(model(x), plain(x))
    assert handle.executed == {"1"}
    handle.detach()


def test_keywords_and_several_inputs_are_passed_on():
    linear = nn.Linear(16, 8)
    handle, x = kernels.attach(linear, {"": torch.rand(8, 16) < 0.5}), torch.rand(3, 16)
    plain = copy.deepcopy(linear)
    with pytest.warns(UserWarning, match="not one tensor, given without a keyword"):
        torch.testing.assert_close(linear(input=x), plain(x))
    with pytest.raises(TypeError):
        linear(x, x)
    with pytest.raises(TypeError):
        linear(None)
    handle.detach()


def test_memory_and_structures_of_many_image_sizes_are_bounded():
    row = [nn.Conv2d(3, 64, 3, padding=1, bias=False), nn.BatchNorm2d(64), nn.ReLU()]
    model, masks = prepared(nn.Sequential(*row))
    handle = kernels.attach(model.eval(), masks)
    memory.release_memory()
    before, memory._peak = memory._owned, 0
    x = torch.rand(16, 3, 80, 80)
    sizes = range(41, 81)
    with torch.no_grad():
        wanted = model(x)
        lent = memory._peak
        for size in sizes:
            model(x[:, :, :size, :size])
        assert torch.equal(model(x), wanted)
    assert memory._owned - before <= 3 * max(lent, memory._peak)
    assert 3 * memory._peak < sum(64 * 16 * size * size for size in sizes) / 4
    assert len(handle._structures["0"]._walks) <= 32
    mask_size = x[:, :, :41, :41].clone().requires_grad_()
    model.train()(mask_size).sum().backward()  # both walks of one pass are there while it lasts
    memory.release_memory()
    assert not any(memory._idle.values())
    handle.detach()
