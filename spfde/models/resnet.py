"""Residual networks: the CIFAR family of He et al. (2016), and torchvision's ResNet-50."""

import torch
from torch import Tensor, nn
from torch.nn import functional

from spfde.models.registry import register_model, scaled


class PaddedShortcut(nn.Module):
    """Shortcut without parameters (He et al. 2016, option A): every other pixel, new channels are zero."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.stride, self.before = stride, (outputs - inputs) // 2
        self.after = outputs - inputs - self.before

    def forward(self, x: Tensor) -> Tensor:
        return functional.pad(x[:, :, :: self.stride, :: self.stride], (0, 0, 0, 0, self.before, self.after))


class BasicBlock(nn.Module):
    """Two 3x3 convolutions and a shortcut: nothing, or where the shape changes a 1x1 convolution with BatchNorm, or
    padding."""

    def __init__(self, inputs: int, outputs: int, stride: int, padded: bool) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(outputs)
        self.shortcut = nn.Sequential()
        if padded and (stride != 1 or inputs != outputs):
            self.shortcut.append(PaddedShortcut(inputs, outputs, stride))
        elif stride != 1 or inputs != outputs:
            self.shortcut.append(nn.Conv2d(inputs, outputs, 1, stride, bias=False))
            self.shortcut.append(nn.BatchNorm2d(outputs))

    def forward(self, x: Tensor) -> Tensor:
        out = functional.relu(self.bn1(self.conv1(x)))
        return functional.relu(self.bn2(self.conv2(out)) + self.shortcut(x))


class CifarResNet(nn.Module):
    """Stem, three stages of `depth` basic blocks at strides 1, 2, 2, average pooling, classifier.

    As in MEST's code (models/resnet32_cifar10_grasp.py), which is GraSP's: convolutions start from Kaiming's normal
    distribution over the fan-out, the classifier from N(0, 0.01).
    """

    def __init__(
        self, classes: int, channels: int, widths: tuple[int, int, int], depth: int, padded: bool = False
    ) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, widths[0], 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(widths[0])
        self.layer1 = _stage(widths[0], widths[0], depth, 1, padded)
        self.layer2 = _stage(widths[0], widths[1], depth, 2, padded)
        self.layer3 = _stage(widths[1], widths[2], depth, 2, padded)
        self.classifier = nn.Linear(widths[2], classes)
        initialise(self)

    def forward(self, x: Tensor) -> Tensor:
        x = functional.relu(self.bn1(self.conv1(x)))
        x = self.layer3(self.layer2(self.layer1(x)))
        return self.classifier(torch.mean(x, dim=(2, 3)))


def _stage(inputs: int, outputs: int, depth: int, stride: int, padded: bool) -> nn.Sequential:
    first = BasicBlock(inputs, outputs, stride, padded)
    return nn.Sequential(first, *(BasicBlock(outputs, outputs, 1, padded) for _ in range(depth - 1)))


def initialise(model: nn.Module) -> None:
    """Kaiming normal over the fan-out for convolutions, N(0, 0.01) and bias 0 for linear layers."""
    for module in model.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
        elif isinstance(module, nn.Linear):
            nn.init.normal_(module.weight, std=0.01)
            nn.init.zeros_(module.bias)


def _cifar(base: int, depth: int, classes: int, channels: int, width: float, padded: bool = False) -> CifarResNet:
    widths = (scaled(base, width), scaled(2 * base, width), scaled(4 * base, width))
    return CifarResNet(classes, channels, widths, depth, padded)


@register_model("resnet8")
def resnet8(classes: int, channels: int, size: int, width: float) -> nn.Module:
    """One basic block per stage, 16/32/64 channels: small enough for 8x8 images on a CPU."""
    return _cifar(16, 1, classes, channels, width)


@register_model("resnet20")
def resnet20(classes: int, channels: int, size: int, width: float) -> nn.Module:
    """Three basic blocks per stage, 16/32/64 channels."""
    return _cifar(16, 3, classes, channels, width)


@register_model("resnet32_2x")
def resnet32_2x(classes: int, channels: int, size: int, width: float) -> nn.Module:
    """Five basic blocks per stage, 32/64/128 channels: the twice widened ResNet-32 of MEST and SpFDE."""
    return _cifar(32, 5, classes, channels, width)


@register_model("resnet56")
def resnet56(classes: int, channels: int, size: int, width: float) -> nn.Module:
    """Nine basic blocks per stage, 16/32/64 channels, shortcuts without parameters: the ResNet-56 of GSE."""
    return _cifar(16, 9, classes, channels, width, padded=True)


@register_model("resnet50")
def resnet50(classes: int, channels: int, size: int, width: float) -> nn.Module:
    """torchvision's ResNet-50; for another width or input its layers are made anew with those channels."""
    from torchvision.models import resnet  # slow to import, and no other network needs it

    model = resnet.resnet50(weights=None, num_classes=classes)
    if channels == 3 and width == 1:
        return model
    model.inplanes = scaled(64, width)
    model.conv1 = nn.Conv2d(channels, model.inplanes, 7, stride=2, padding=3, bias=False)
    model.bn1 = nn.BatchNorm2d(model.inplanes)
    for index, depth in enumerate((3, 4, 6, 3)):
        planes, stride = scaled(64 * 2**index, width), 1 if index == 0 else 2
        setattr(model, f"layer{index + 1}", model._make_layer(resnet.Bottleneck, planes, depth, stride))
    model.fc = nn.Linear(model.inplanes, classes)
    for module in model.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
    return model
