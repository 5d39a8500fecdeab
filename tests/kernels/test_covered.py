"""Networks that are not what their class says, and modules that change under the kernels: torch computes them."""

import copy
import functools

import pytest
import torch
from torch import nn
from torch.nn.modules import module as torch_module
from torchvision.models import resnet as torchvision_resnet
from torchvision.models.resnet import BasicBlock, Bottleneck, ResNet

from spfde import kernels
from spfde.models import resnet as our_resnet
from spfde.models.resnet import CifarResNet
from spfde.models.vgg import Vgg
from tests.kernels.test_block import prepared

pytestmark = pytest.mark.usefixtures("sparse")


class Twice(nn.Module):
    def __init__(self, inner):
        super().__init__()
        self.inner = inner

    def forward(self, x):
        return 2 * self.inner(x)


def torchvision(block=BasicBlock):
    return ResNet(block, [2, 1, 1, 1], num_classes=5)


def ours():
    return CifarResNet(5, 3, (8, 8, 16), 2)


def row():
    first = [nn.Conv2d(3, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8), nn.ReLU(), nn.MaxPool2d(2)]
    return nn.Sequential(*first, our_resnet.BasicBlock(8, 8, 1, False), nn.Conv2d(8, 4, 1), nn.AdaptiveAvgPool2d(1))


def smooth(module):
    for inner in module.modules():
        for name, child in list(inner.named_children()):
            if isinstance(child, nn.ReLU):
                setattr(inner, name, nn.SiLU())


def scaled(module, name="forward"):
    """Gives a module a method that scales what the old one computes."""
    old = getattr(module, name)
    setattr(module, name, lambda *told: 3 * old(*told))


def wrapped(model, name):
    setattr(model, name, Twice(getattr(model, name)))


def dilated(model):
    model.layer4[0].conv2.dilation = model.layer4[0].conv2.padding = (2, 2)


def assigned(model, path, module):
    parent, _, name = path.rpartition(".")
    setattr(model.get_submodule(parent), name, module)


CHANGES = {
    "another activation": (torchvision, smooth),
    "another activation in bottlenecks": (functools.partial(torchvision, Bottleneck), smooth),
    "another activation in a sequence": (row, lambda m: assigned(m, "2", nn.SiLU())),
    "a patched convolution": (torchvision, lambda m: scaled(m.layer1[0].conv1)),
    "a patched inner method": (torchvision, lambda m: scaled(m.layer1[0].conv1, "_conv_forward")),
    "a patched BatchNorm": (ours, lambda m: scaled(m.layer2[0].bn2)),
    "a patched block": (ours, lambda m: scaled(m.layer2[0])),
    "a patched pooling": (row, lambda m: scaled(m[3])),
    "a patched stage": (ours, lambda m: scaled(m.layer3)),
    "a patched network": (torchvision, lambda m: scaled(m, "_forward_impl")),
    "a patched lone layer": (row, lambda m: scaled(m[5], "_conv_forward")),
    "a wrapped stage": (torchvision, lambda m: wrapped(m, "layer2")),
    "a wrapped stage of ours": (ours, lambda m: wrapped(m, "layer2")),
    "a block for a stage": (torchvision, lambda m: setattr(m, "layer1", BasicBlock(64, 64))),
    "wrapped features": (functools.partial(Vgg, ((8, 1), (8, 1)), 5, 3, 1.0), lambda m: wrapped(m, "features")),
    "another block": (torchvision, lambda m: assigned(m, "layer4.0", Twice(m.layer4[0]))),
    "no block": (torchvision, lambda m: assigned(m, "layer1.1", nn.Identity())),
    "one block more": (ours, lambda m: m.layer1.append(our_resnet.BasicBlock(8, 8, 1, False))),
    "one block less": (ours, lambda m: m.layer1.__delitem__(0)),
    "a module more in a sequence": (row, lambda m: m.append(nn.Softmax(1))),
    "a module between": (row, lambda m: m.insert(3, nn.Sigmoid())),
    "the same block twice": (ours, lambda m: m.layer1.append(m.layer1[0])),
    "another pooling": (torchvision, lambda m: setattr(m, "avgpool", nn.AdaptiveMaxPool2d(1))),
    "another shortcut": (ours, lambda m: m.layer2[0].shortcut.append(nn.Sigmoid())),
    "another dilation": (torchvision, dilated),
    "a bias": (ours, lambda m: setattr(m.layer2[0].conv1, "bias", nn.Parameter(torch.ones(8)))),
    "another classifier": (ours, lambda m: setattr(m, "classifier", nn.Linear(16, 2))),
}


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize(("make", "change"), CHANGES.values(), ids=list(CHANGES))
@pytest.mark.filterwarnings("ignore:sparse kernels are not used")
def test_what_was_changed_is_what_is_computed(make, change, when):
    model, masks = prepared(make())
    model.eval()
    x = torch.rand(2, 3, 40, 40)
    plain = copy.deepcopy(model)
    torch.manual_seed(1)
    change(plain)
    if when == "before":
        torch.manual_seed(1)
        change(model)
        known = dict(model.named_modules())  # what was taken away has no mask
        masks = {name: mask for name, mask in prepared(model)[1].items() if name in known}
        plain = copy.deepcopy(plain)
        plain.load_state_dict(model.state_dict())
    handle = kernels.attach(model, masks)
    if when == "after":
        torch.manual_seed(1)
        change(model)
        plain.load_state_dict(model.state_dict())
    assert torch.isfinite(plain.eval()(x)).all()
    torch.testing.assert_close(model.eval()(x), plain(x), rtol=1e-3, atol=1e-4)
    handle.detach()
    torch.testing.assert_close(model(x), plain(x))


@pytest.mark.parametrize(
    ("kind", "name"),
    [(BasicBlock, "forward"), (ResNet, "_forward_impl"), (nn.BatchNorm2d, "forward"), (nn.Conv2d, "_conv_forward")],
)
@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.filterwarnings("ignore:sparse kernels are not used")
def test_classes_with_another_forward_pass(monkeypatch, kind, name, when):
    model, masks = prepared(torchvision())
    old = getattr(kind, name)
    new = functools.wraps(old)(lambda self, *told: 0.5 * old(self, *told))
    x, plain = torch.rand(2, 3, 32, 32), copy.deepcopy(model).eval()
    if when == "before":
        monkeypatch.setattr(kind, name, new)
    handle = kernels.attach(model.eval(), masks)
    if when == "after":
        assert handle.problems(x) == []
        monkeypatch.setattr(kind, name, new)
        assert handle.problems(x) == ["a layer was replaced or changed"]
        assert not handle.intact()
    torch.testing.assert_close(model(x), plain(x), rtol=1e-3, atol=1e-5)
    handle.detach()


def test_changed_parts_run_dense_and_the_rest_does_not():
    model, masks = prepared(torchvision())
    smooth(model.layer3)
    handle = kernels.attach(model, masks)
    assert [unit.name for unit in handle.units if unit.kind == "residual block"] == [
        "layer1.0",
        "layer1.1",
        "layer2.0",
        "layer4.0",
    ]
    handle.detach()


HOOKED = {
    "layer4": torchvision,
    "avgpool": torchvision,
    "layer2.0.conv1": ours,
    "layer2": ours,
    "features": functools.partial(Vgg, ((8, 1), (8, 1)), 5, 3, 1.0),
    "3": row,
}


@pytest.mark.parametrize(
    "register",
    [
        "register_forward_hook",
        "register_forward_pre_hook",
        "register_full_backward_hook",
        "register_full_backward_pre_hook",
    ],
)
@pytest.mark.parametrize(("name", "make"), HOOKED.items())
def test_hooks_of_all_modules_inside_are_called(name, make, register):
    model, masks = prepared(make())
    handle, seen, x = kernels.attach(model, masks), [], torch.rand(2, 3, 32, 32)
    assert handle.problems(x) == []
    hook = getattr(model.get_submodule(name), register)(lambda *_: seen.append(1))
    with pytest.warns(UserWarning, match="a layer inside has a hook"):
        model(x).sum().backward()
    assert seen == [1]
    hook.remove()
    model(x)
    assert handle.executed
    handle.detach()


def test_hooks_of_parts_that_run_dense_are_no_hindrance():
    model, masks = prepared(row())
    handle, seen = kernels.attach(model, masks), []
    model[6].register_forward_hook(lambda *_: seen.append(1))
    model(torch.rand(2, 3, 32, 32))
    assert seen == [1]
    assert "0" in handle.executed
    handle.detach()


@pytest.mark.parametrize("kind", ["forward", "forward_pre", "full_backward"])
def test_hooks_of_every_module_are_called(kind):
    model, masks = prepared(ours())
    handle, x, seen = kernels.attach(model, masks), torch.rand(2, 3, 8, 8), []
    plain = copy.deepcopy(model)
    hook = getattr(torch_module, f"register_module_{kind}_hook")(lambda *_: seen.append(1))
    try:
        plain(x).sum().backward()
        wanted = len(seen)
        seen.clear()
        with pytest.warns(UserWarning, match="a hook of all modules"):
            model(x).sum().backward()
        assert len(seen) == wanted > 20
    finally:
        hook.remove()
        handle.detach()


def test_the_file_of_torchvision_is_the_one_that_kernels_know():
    """Should torchvision write another forward pass, then what it computes must be compared anew with `networks`."""
    assert torchvision_resnet.ResNet.forward.__code__.co_names == ("_forward_impl",)
    assert torchvision_resnet.BasicBlock.forward.__code__.co_names == (
        "conv1", "bn1", "relu", "conv2", "bn2", "downsample",
    )  # fmt: skip
