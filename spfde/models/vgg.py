"""VGG-19 for small images (Simonyan and Zisserman, 2015), in the form that GraSP and MEST train."""

import torch
from torch import Tensor, nn

from spfde.errors import SpfdeError
from spfde.models.registry import register_model, scaled
from spfde.models.resnet import initialise

STAGES = ((64, 2), (128, 2), (256, 4), (512, 4), (512, 4))  # channels, convolutions


class Vgg(nn.Module):
    """Sixteen 3x3 convolutions with BatchNorm in five stages, pooled between them, then one linear classifier.

    A freezing block is one convolution with its BatchNorm (and the pooling after it): sixteen blocks, about as fine
    as the fifteen of ResNet-32, where whole stages would move the saving in jumps of a quarter of the network.
    """

    def __init__(self, classes: int, channels: int, width: float) -> None:
        super().__init__()
        self.features = nn.Sequential()
        for base, depth in STAGES:
            if len(self.features):
                self.features.append(nn.MaxPool2d(2))
            for _ in range(depth):
                outputs = scaled(base, width)
                self.features.append(nn.Conv2d(channels, outputs, 3, padding=1, bias=False))
                self.features.append(nn.BatchNorm2d(outputs))
                self.features.append(nn.ReLU())
                channels = outputs
        self.classifier = nn.Linear(channels, classes)
        initialise(self)

    def forward(self, x: Tensor) -> Tensor:
        return self.classifier(torch.mean(self.features(x), dim=(2, 3)))


@register_model("vgg19")
def vgg19(classes: int, channels: int, size: int, width: float) -> nn.Module:
    """VGG-19 with BatchNorm; its four poolings need images of at least 16x16.

    Raises:
        SpfdeError: smaller images.
    """
    if size < 16:
        raise SpfdeError(f"vgg19 cannot take {size}x{size} images", "use images of at least 16x16 or a resnet")
    return Vgg(classes, channels, width)
