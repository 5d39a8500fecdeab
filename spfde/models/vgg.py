"""VGG networks for small images (Simonyan and Zisserman, 2015), in the forms that GraSP, MEST and GSE train."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from spfde.errors import SpfdeError
from spfde.models.registry import register_model, scaled
from spfde.models.resnet import initialise

VGG19 = ((64, 2), (128, 2), (256, 4), (512, 4), (512, 4))  # channels and convolutions of each stage
VGG16_SMALL = ((16, 2), (32, 2), (64, 3), (128, 3), (128, 3))


class Vgg(nn.Module):
    """3x3 convolutions with BatchNorm in stages, pooled between them, then a linear classifier.

    A freezing block is one convolution with its BatchNorm and the pooling after it. That makes sixteen blocks in
    VGG-19, about as fine as the fifteen of ResNet-32. With whole stages as blocks the saving could only move in steps
    of a quarter of the network.
    """

    def __init__(self, stages: Sequence[tuple[int, int]], classes: int, channels: int, width: float) -> None:
        super().__init__()
        self.features = nn.Sequential()
        for base, depth in stages:
            if len(self.features):
                self.features.append(nn.MaxPool2d(2))
            for _ in range(depth):
                outputs = scaled(base, width)
                self.features.append(nn.Conv2d(channels, outputs, 3, padding=1, bias=False))
                self.features.append(nn.BatchNorm2d(outputs))
                self.features.append(nn.ReLU())
                channels = outputs
        self.classifier: nn.Module = nn.Linear(channels, classes)
        initialise(self)

    def forward(self, x: Tensor) -> Tensor:
        return self.classifier(torch.mean(self.features(x), dim=(2, 3)))


class Vgg16Small(Vgg):
    """VGG-16 with a quarter of its channels and hidden layers of 512, as GSE trains it (models/vgg_cifar.py there).

    Two things are left out: the biases of the convolutions, which BatchNorm takes away again, and the dropout between
    the linear layers, whose draws no checkpoint of a run could bring back. The linear layers start as torch starts
    them; the hidden ones are freezing blocks like the convolutions.
    """

    def __init__(self, classes: int, channels: int, width: float) -> None:
        super().__init__(VGG16_SMALL, classes, channels, width)
        self.features.append(nn.MaxPool2d(2))
        inputs, hidden = scaled(128, width), scaled(512, width)
        self.classifier = nn.Sequential(
            nn.Linear(inputs, hidden), nn.ReLU(), nn.Linear(hidden, hidden), nn.ReLU(), nn.Linear(hidden, classes)
        )


@register_model("vgg19")
def vgg19(classes: int, channels: int, size: int, width: float) -> nn.Module:
    """VGG-19 with BatchNorm; its four poolings need images of at least 16x16.

    Raises:
        SpfdeError: smaller images.
    """
    if size < 16:
        raise SpfdeError(f"vgg19 cannot take {size}x{size} images", "use images of at least 16x16 or a resnet")
    return Vgg(VGG19, classes, channels, width)


@register_model("vgg16-small")
def vgg16_small(classes: int, channels: int, size: int, width: float) -> nn.Module:
    """GSE's small VGG-16 with BatchNorm; its five poolings need images of at least 32x32.

    Raises:
        SpfdeError: smaller images.
    """
    if size < 32:
        raise SpfdeError(f"vgg16-small cannot take {size}x{size} images", "use images of at least 32x32 or a resnet")
    return Vgg16Small(classes, channels, width)
