"""Networks by name, and the freezing blocks of any network."""

from spfde.models import resnet, vgg, vit  # noqa: F401  (they register themselves)
from spfde.models.blocks import Block, blocks
from spfde.models.registry import MODELS, build, register_model

__all__ = ["MODELS", "Block", "blocks", "build", "register_model"]
