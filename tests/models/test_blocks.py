import pytest
import torchvision
from torch import nn

from spfde.models import Block, blocks, build


def names(model):
    return [block.name for block in blocks(model)]


class Residual(nn.Module):
    """A block whose body is a sequence of layers."""

    def __init__(self, width):
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(width, width, 3, padding=1), nn.ReLU(), nn.Conv2d(width, width, 3, padding=1)
        )

    def forward(self, x):
        return x + self.body(x)


class Backbone(nn.Module):
    def __init__(self, *children):
        super().__init__()
        self.stages = nn.ModuleList(children)


class Wrapper(nn.Module):
    def __init__(self, inner):
        super().__init__()
        self.inner = inner
        self.head = nn.Linear(4, 2)


def test_resnet32_has_fifteen_blocks_and_the_stem_in_the_first():
    found = blocks(build("resnet32_2x", 100))
    assert [block.name for block in found] == [f"layer{stage}.{index}" for stage in (1, 2, 3) for index in range(5)]
    assert found[0].modules == ("conv1", "bn1", "layer1.0")
    assert all(block.modules == (block.name,) for block in found[1:])


@pytest.mark.parametrize("name", ["resnet8", "resnet32_2x", "resnet56", "vgg19", "vgg16-small", "resnet50"])
def test_blocks_hold_every_parameter_but_the_classifiers_once(name):
    model = build(name, 10, size=32)
    owners = [
        parameter
        for block in blocks(model)
        for module in block.modules
        for parameter, _ in model.get_submodule(module).named_parameters(prefix=module)
    ]
    rest = set(dict(model.named_parameters())) - set(owners)
    assert len(owners) == len(set(owners))
    classifier = next(iter(rest)).rpartition(".")[0]
    assert rest == {f"{classifier}.weight", f"{classifier}.bias"} and classifier in ("classifier", "fc", "classifier.4")


def test_torchvision_resnet():
    found = blocks(torchvision.models.resnet18())
    assert [block.name for block in found] == [f"layer{stage}.{index}" for stage in (1, 2, 3, 4) for index in (0, 1)]
    assert found[0].modules == ("conv1", "bn1", "relu", "maxpool", "layer1.0")


def test_other_torchvision_networks():
    assert names(torchvision.models.mobilenet_v2()) == [f"features.{index}" for index in range(1, 18)]
    assert len(names(torchvision.models.efficientnet_b0())) == 16
    convnext = blocks(torchvision.models.convnext_tiny())
    assert len(convnext) == 18
    assert convnext[0].modules == ("features.0", "features.1.0")
    assert convnext[3].modules == ("features.2", "features.3.0")  # between two stages: with the later


def test_plain_sequential_has_a_block_a_layer_and_no_head():
    model = nn.Sequential(
        nn.Identity(), nn.Linear(4, 4), nn.BatchNorm1d(4), nn.ReLU(), nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 2)
    )
    assert blocks(model) == [Block("1", ("0", "1", "2", "3")), Block("4", ("4", "5"))]


def test_what_follows_the_last_block_is_in_none():
    model = nn.Sequential(
        nn.Conv2d(3, 4, 3), Residual(4), Residual(4), nn.Conv2d(4, 8, 1), nn.Flatten(), nn.Linear(8, 2)
    )
    assert blocks(model) == [Block("1", ("0", "1")), Block("2", ("2",))]


def test_backbones_and_wrappers_are_opened():
    backbone = Backbone(nn.Sequential(Residual(4), Residual(4)), nn.Sequential(Residual(4)))
    assert names(Wrapper(backbone)) == ["inner.stages.0.0", "inner.stages.0.1", "inner.stages.1.0"]
    assert names(Wrapper(Wrapper(nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4))))) == [
        "inner.inner.0",
        "inner.inner.1",
        "inner.head",
    ]
    assert names(nn.Sequential(torchvision.models.resnet18()))[0] == "0.layer1.0"


def test_a_model_may_say_its_own_blocks():
    class Known(nn.Sequential):
        def freezing_blocks(self):
            return [Block("all", ("0", "1"))]

    assert blocks(Known(nn.Linear(2, 2), nn.Linear(2, 2))) == [Block("all", ("0", "1"))]


def test_nothing_to_freeze():
    assert blocks(nn.Sequential(nn.Flatten(), nn.Linear(4, 2))) == []
    assert blocks(nn.Linear(4, 2)) == []
    assert blocks(nn.ReLU()) == []
