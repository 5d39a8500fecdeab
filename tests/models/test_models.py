import math

import pytest
import torch
import torchvision

from spfde.errors import SpfdeError
from spfde.models import MODELS, blocks, build, register_model
from spfde.models.resnet import CifarResNet


def parameters(model):
    return sum(parameter.numel() for parameter in model.parameters())


def test_resnet32_2x_is_the_published_network():
    model = build("resnet32_2x", 100)
    assert parameters(model) == 1_872_132
    convolutions = {name: module for name, module in model.named_modules() if isinstance(module, torch.nn.Conv2d)}
    assert len(convolutions) == 33
    shortcuts = {name: module for name, module in convolutions.items() if "shortcut" in name}
    assert [(m.in_channels, m.out_channels, m.kernel_size, m.stride) for m in shortcuts.values()] == [
        (32, 64, (1, 1), (2, 2)),
        (64, 128, (1, 1), (2, 2)),
    ]
    assert all(module.bias is None for module in convolutions.values())


def test_resnet32_2x_computes_what_its_definition_says():
    model = build("resnet32_2x", 10).eval()
    state = model.state_dict()
    relu, conv = torch.relu, torch.nn.functional.conv2d

    def norm(x, name):
        keys = ("running_mean", "running_var", "weight", "bias")
        return torch.nn.functional.batch_norm(x, *(state[f"{name}.{key}"] for key in keys))

    x = torch.randn(2, 3, 32, 32)
    out = relu(norm(conv(x, state["conv1.weight"], padding=1), "bn1"))
    for stage in (1, 2, 3):
        for index in range(5):
            name, stride = f"layer{stage}.{index}", 2 if stage > 1 and index == 0 else 1
            inner = relu(norm(conv(out, state[f"{name}.conv1.weight"], stride=stride, padding=1), f"{name}.bn1"))
            inner = norm(conv(inner, state[f"{name}.conv2.weight"], padding=1), f"{name}.bn2")
            if stride == 2:
                out = norm(conv(out, state[f"{name}.shortcut.0.weight"], stride=2), f"{name}.shortcut.1")
            out = relu(inner + out)
    expected = out.mean(dim=(2, 3)) @ state["classifier.weight"].T + state["classifier.bias"]
    torch.testing.assert_close(model(x), expected)


def test_initialisation():
    torch.manual_seed(0)
    model = build("resnet32_2x", 100)
    weight = model.layer3[4].conv2.weight  # fan-out 128 * 9
    assert weight.std().item() == pytest.approx((2 / (128 * 9)) ** 0.5, rel=0.02)
    assert model.layer3[0].shortcut[0].weight.std().item() == pytest.approx((2 / 128) ** 0.5, rel=0.05)
    assert model.classifier.weight.std().item() == pytest.approx(0.01, rel=0.05)
    assert not model.classifier.bias.any()


@pytest.mark.parametrize(
    ("name", "channels", "size"),
    [
        ("resnet8", 1, 8),
        ("resnet20", 3, 32),
        ("resnet32_2x", 3, 32),
        ("resnet56", 1, 8),
        ("vgg19", 3, 32),
        ("vgg16-small", 3, 32),
        ("resnet50", 1, 64),
        ("simple-vit-tiny", 1, 8),
    ],
)
def test_every_model_gives_logits_and_gradients(name, channels, size):
    model = build(name, 7, channels, size, width=0.25)
    logits = model(torch.randn(2, channels, size, size))
    assert logits.shape == (2, 7)
    logits.square().sum().backward()
    assert all(parameter.grad is not None for parameter in model.parameters())


def test_width_scales_hidden_channels_alone():
    model = build("resnet20", 10, width=0.5)
    assert isinstance(model, CifarResNet)
    widths = (model.conv1.out_channels, model.layer2[0].conv1.out_channels, model.classifier.in_features)
    assert widths == (8, 16, 32)
    assert (model.conv1.in_channels, model.classifier.out_features) == (3, 10)
    assert build("resnet8", 10, width=1e-3).layer3[0].conv1.out_channels == 1
    half = build("resnet50", 10, width=0.5)
    assert (half.conv1.out_channels, half.fc.in_features) == (32, 1024)
    assert parameters(build("resnet50", 1000)) == 25_557_032


def test_wide_resnet50_is_the_same_network_at_width_one():
    torch.manual_seed(0)
    grey = build("resnet50", 10, channels=1)
    shapes = {name: value.shape for name, value in torchvision.models.resnet50(num_classes=10).state_dict().items()}
    shapes["conv1.weight"] = (64, 1, 7, 7)
    assert {name: value.shape for name, value in grey.state_dict().items()} == shapes
    assert grey.layer2[0].conv2.stride == (2, 2)
    assert grey.layer1[0].conv2.weight.std().item() == pytest.approx((2 / (64 * 9)) ** 0.5, rel=0.02)


def test_vgg19_has_the_layers_of_the_published_profile():
    model = build("vgg19", 100)
    convolutions = [index for index, module in enumerate(model.features) if isinstance(module, torch.nn.Conv2d)]
    assert convolutions == [0, 3, 7, 10, 14, 17, 20, 23, 27, 30, 33, 36, 40, 43, 46, 49]
    assert parameters(model) == 20_081_188
    assert len(blocks(model)) == 16


def test_vgg16_small_has_a_quarter_of_the_channels_and_three_linear_layers():
    model = build("vgg16-small", 100)
    channels = [module.out_channels for module in model.features if isinstance(module, torch.nn.Conv2d)]
    assert channels == [16, 16, 32, 32, 64, 64, 64, 128, 128, 128, 128, 128, 128]
    linear = [(module.in_features, module.out_features) for module in model.classifier[::2]]
    assert linear == [(128, 512), (512, 512), (512, 100)]
    assert model.features(torch.zeros(2, 3, 32, 32)).shape == (2, 128, 1, 1)
    assert [block.name for block in blocks(model)][-3:] == ["features.40", "classifier.0", "classifier.2"]


def test_resnet56_is_the_published_network():
    """He et al. (2016), Table 6: 0.85 million parameters, none of them on a shortcut."""
    model = build("resnet56", 10)
    assert parameters(model) == 853_018
    assert sum(isinstance(module, torch.nn.Conv2d) for module in model.modules()) == 55
    assert len(blocks(model)) == 27


def test_padded_shortcut_by_hand():
    x = torch.arange(2 * 4 * 4.0).view(1, 2, 4, 4)
    shortcut = build("resnet56", 10, width=1 / 8).layer2[0].shortcut  # from 2 channels to 4
    out = shortcut(x)
    assert not list(shortcut.parameters())
    assert out[0, 1].tolist() == [[0, 2], [8, 10]] and out[0, 2].tolist() == [[16, 18], [24, 26]]
    assert not out[0, 0].any() and not out[0, 3].any()


def test_simple_vit_tiny_computes_what_its_definition_says():
    torch.manual_seed(0)
    model = build("simple-vit-tiny", 10, 1, 8, width=1 / 3)  # 4 patches, 172 dimensions, 2 heads, 85 hidden
    state = {name: value.double() for name, value in model.state_dict().items()}
    functional = torch.nn.functional

    def norm(x, name):
        return functional.layer_norm(x, x.shape[-1:], state[f"{name}.weight"], state[f"{name}.bias"])

    def linear(x, name):
        return x @ state[f"{name}.weight"].T + state.get(f"{name}.bias", 0)

    images = torch.randn(3, 1, 8, 8, dtype=torch.double)
    patches = [images[:, 0, i : i + 4, j : j + 4].flatten(1) for i in (0, 4) for j in (0, 4)]
    x = norm(linear(norm(torch.stack(patches, dim=1), "embed.0"), "embed.1"), "embed.2")
    angles = [1 / 10_000 ** (index / 42) for index in range(43)]
    for patch in range(4):
        row, column = divmod(patch, 2)
        waves = [wave(place * angle) for place in (column, row) for wave in (math.sin, math.cos) for angle in angles]
        x[:, patch] += torch.tensor(waves, dtype=torch.double)
    for index in range(4):
        name = f"blocks.{index}"
        query, key, value = linear(norm(x, f"{name}.attention.norm"), f"{name}.attention.qkv").split(128, dim=2)
        heads = []
        for head in (slice(0, 64), slice(64, 128)):
            share = torch.softmax(query[..., head] @ key[..., head].transpose(1, 2) / 8, dim=2)
            heads.append(share @ value[..., head])
        x = x + linear(torch.cat(heads, dim=2), f"{name}.attention.out")
        x = x + linear(functional.gelu(linear(norm(x, f"{name}.mlp.0"), f"{name}.mlp.1")), f"{name}.mlp.3")
    expected = linear(norm(x.mean(dim=1), "norm"), "classifier")
    torch.testing.assert_close(model.double()(images), expected, rtol=1e-5, atol=1e-5)


def test_simple_vit_tiny_at_its_published_size():
    model = build("simple-vit-tiny", 100)
    assert (model.embed[1].in_features, model.embed[1].out_features) == (48, 512)
    assert [model.blocks[0].attention.qkv.out_features, model.blocks[3].mlp[1].out_features] == [3 * 6 * 64, 256]
    assert [block.modules for block in blocks(model)][:2] == [("embed", "blocks.0"), ("blocks.1",)]
    assert len(blocks(model)) == 4


def test_errors_name_the_cause_and_the_remedy():
    with pytest.raises(SpfdeError, match='unknown model "resnet32_x2"; did you mean "resnet32_2x"'):
        build("resnet32_x2", 10)
    with pytest.raises(SpfdeError, match="8x8 images; use images of at least 16x16"):
        build("vgg19", 10, size=8)
    with pytest.raises(SpfdeError, match="16x16 images; use images of at least 32x32"):
        build("vgg16-small", 10, size=16)
    with pytest.raises(SpfdeError, match="10x10 images; use images whose side is a multiple of 4"):
        build("simple-vit-tiny", 10, size=10)
    with pytest.raises(SpfdeError, match="width 0; use positive numbers"):
        build("resnet8", 10, width=0)


def test_a_registered_model_is_built_by_name(monkeypatch):
    monkeypatch.setattr("spfde.models.registry.MODELS", MODELS.copy())
    register_model("line")(lambda classes, channels, size, width: torch.nn.Linear(channels * size, classes))
    assert build("line", 3, channels=2, size=4).weight.shape == (3, 8)
