"""A small vision transformer: simple ViT (Beyer et al. 2022), in the tiny form that GSE trains.

Fixed sine and cosine positions, no class token, average pooling over the patches. All its projections are linear
layers, so sparsity, freezing and the cost profile take them as they take any layer. The two matrix products of
attention have no weights: they run, but no column of the costs counts them.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional

from spfde.errors import SpfdeError
from spfde.models.registry import register_model, scaled

PATCH = 4  # pixels; GSE's for images of 32x32
HEAD = 64  # dimensions of an attention head


class Attention(nn.Module):
    """Multi-head self-attention of normalised tokens."""

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm = nn.LayerNorm(dim)
        self.qkv = nn.Linear(dim, 3 * heads * HEAD, bias=False)
        self.out = nn.Linear(heads * HEAD, dim, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        query, key, value = self.qkv(self.norm(x)).unflatten(2, (3, self.heads, HEAD)).permute(2, 0, 3, 1, 4)
        weights = torch.softmax(query @ key.transpose(2, 3) * HEAD**-0.5, dim=3)
        return self.out((weights @ value).transpose(1, 2).flatten(2))


class TransformerBlock(nn.Module):
    """Attention and a two-layer perceptron, each added to what it reads."""

    def __init__(self, dim: int, heads: int, hidden: int) -> None:
        super().__init__()
        self.attention = Attention(dim, heads)
        self.mlp = nn.Sequential(nn.LayerNorm(dim), nn.Linear(dim, hidden), nn.GELU(), nn.Linear(hidden, dim))

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attention(x)
        return x + self.mlp(x)


class SimpleVit(nn.Module):
    """Patches, positions, `depth` transformer blocks, mean over the patches, classifier.

    Each transformer block is a freezing block; the patch embedding belongs to the first.
    """

    def __init__(self, classes: int, channels: int, size: int, dim: int, depth: int, heads: int, hidden: int) -> None:
        super().__init__()
        pixels = channels * PATCH**2
        self.embed = nn.Sequential(nn.LayerNorm(pixels), nn.Linear(pixels, dim), nn.LayerNorm(dim))
        self.blocks = nn.ModuleList(TransformerBlock(dim, heads, hidden) for _ in range(depth))
        self.norm = nn.LayerNorm(dim)
        self.classifier = nn.Linear(dim, classes)
        self.register_buffer("positions", positions(size // PATCH, dim), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        x = self.embed(functional.unfold(x, PATCH, stride=PATCH).transpose(1, 2)) + self.positions
        for block in self.blocks:
            x = block(x)
        return self.classifier(self.norm(x.mean(dim=1)))


def positions(side: int, dim: int) -> Tensor:
    """Sines and cosines of the column and of the row of each patch, shape (side * side, dim); Beyer et al. 2022.

    Each of the four takes a quarter of the dimensions, at frequencies from 1 down to 1/10000.
    """
    frequencies = 10_000 ** -torch.linspace(0, 1, dim // 4)
    row, column = torch.meshgrid(torch.arange(side), torch.arange(side), indexing="ij")
    x, y = (place.flatten()[:, None] * frequencies for place in (column, row))
    return torch.cat([x.sin(), x.cos(), y.sin(), y.cos()], dim=1)


@register_model("simple-vit-tiny")
def simple_vit_tiny(classes: int, channels: int, size: int, width: float) -> nn.Module:
    """512 dimensions, 4 blocks of 6 heads of 64, hidden layers of 256: as in GSE's code (models/__init__.py there).

    Raises:
        SpfdeError: images that patches of 4x4 do not cover.
    """
    if size % PATCH:
        raise SpfdeError(
            f"simple-vit-tiny cannot take {size}x{size} images", f"use images whose side is a multiple of {PATCH}"
        )
    dim = 4 * max(2, scaled(128, width))  # sine and cosine, in two directions
    return SimpleVit(classes, channels, size, dim, 4, scaled(6, width), scaled(256, width))
