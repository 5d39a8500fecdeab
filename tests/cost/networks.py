"""Networks of torchvision and timm of many kinds, small, each with the size of its images."""

from collections.abc import Callable

import timm
import torchvision.models as tv
from timm.models.convmixer import ConvMixer
from timm.models.mlp_mixer import MlpMixer
from torch import nn
from torchvision.models.convnext import CNBlockConfig

NETWORKS: dict[str, tuple[Callable[[], nn.Module], int]] = {
    "resnet18": (lambda: tv.resnet18(num_classes=10), 32),
    "mobilenet_v3": (lambda: tv.mobilenet_v3_small(num_classes=10), 32),  # depthwise, squeeze and excitation
    "densenet": (lambda: tv.DenseNet(8, (2, 3), 16, num_classes=10), 32),
    "convnext": (lambda: tv.ConvNeXt([CNBlockConfig(16, 32, 2), CNBlockConfig(32, None, 2)], 0.2, num_classes=10), 32),
    "googlenet": (lambda: tv.googlenet(num_classes=10, aux_logits=True, init_weights=False), 64),  # two more heads
    "vit": (lambda: tv.VisionTransformer(32, 8, 3, 2, 32, 64, num_classes=10), 32),  # torch's own attention
    "swin": (lambda: tv.SwinTransformer([4, 4], 16, [2, 2], [2, 4], [2, 2], num_classes=10), 32),  # F.linear on weights
    "convmixer": (lambda: ConvMixer(32, 3, kernel_size=5, patch_size=4, num_classes=10), 32),  # padding="same"
    "beit": (
        lambda: timm.create_model(
            "beit_base_patch16_224", img_size=32, depth=2, embed_dim=64, num_heads=2, num_classes=10
        ),
        32,
    ),
    "mixer": (lambda: MlpMixer(10, img_size=32, patch_size=8, num_blocks=3, embed_dim=32), 32),
    "resnext": (lambda: timm.create_model("resnext26ts", num_classes=10), 64),  # grouped, with attention of channels
    "efficientnet": (lambda: timm.create_model("efficientnet_lite0", num_classes=10, drop_path_rate=0.2), 32),
    "mobilevit": (lambda: timm.create_model("mobilevit_xxs", num_classes=10), 64),
    "levit": (lambda: timm.create_model("levit_128s", num_classes=10, img_size=64), 64),
}
