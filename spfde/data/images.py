"""Decodes many images into one uint8 tensor, with all cores it may use: Pillow decodes without holding the lock."""

import os
import stat
import warnings
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import IO

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from spfde.data.split import DataInfo
from spfde.errors import SpfdeError

LARGEST = 80_000_000  # pixels of an image; a small file can unfold into gigabytes, and the largest of ImageNet has 61e6
SIXTEEN = 65535  # the largest number of 16 bits
warnings.filterwarnings("ignore", category=Image.DecompressionBombWarning)  # Pillow's, from 89e6 pixels on


def cores() -> int:
    """The cores that this process may use: a cluster gives a job fewer than the machine has."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def open_image(source: str | Path | IO[bytes], channels: int) -> Image.Image:
    """An image as RGB, or as grey if there is one channel.

    Grey values of 16 bits are scaled to 8, which Pillow's own conversion would cut off at 255.

    Raises:
        OSError: it is no image, is cut short, or far too large.
        ValueError: it holds other numbers than of 8 or 16 bits, whose range is not known.
    """
    if isinstance(source, str | Path) and not stat.S_ISREG(os.stat(source).st_mode):
        raise OSError("it is no ordinary file")  # reading a FIFO or a device need never end
    try:
        with Image.open(source) as image:
            if image.width * image.height > LARGEST:
                raise OSError(f"it has {image.width}x{image.height} pixels, more than {LARGEST} in all")
            return _eight_bits(image).convert("L" if channels == 1 else "RGB")
    except Image.DecompressionBombError:
        raise OSError(f"it has more than {LARGEST} pixels") from None


def _eight_bits(image: Image.Image) -> Image.Image:
    if not image.mode.startswith(("I", "F")):
        return image
    values = np.asarray(image)
    if image.mode == "F" or values.min() < 0 or values.max() > SIXTEEN:  # mode I is also what 16 bits can be read as
        raise ValueError(f"its pixels are numbers of mode {image.mode}, neither of 8 nor of 16 bits")
    return Image.fromarray(((values.astype(np.uint32) * 255 + SIXTEEN // 2) // SIXTEEN).astype(np.uint8))


def decode_images(
    info: DataInfo, sources: Sequence[Path | IO[bytes]], fit: Callable[[Image.Image], Image.Image] | None, where: str
) -> Tensor:
    """Images uint8 (N, C, size, size) in the order of the sources.

    Args:
        fit: brings an image to the size of the data set; with None every image must have that size already.
        where: what the sources are, for errors.

    Raises:
        SpfdeError: an image cannot be decoded or has another size.
    """
    images = np.empty((len(sources), info.size, info.size, info.channels), dtype=np.uint8)

    def decode(index: int) -> None:
        source = sources[index]
        name = source if isinstance(source, Path) else f"image {index} of {where}"
        try:
            image = open_image(source, info.channels)
        except (
            OSError,
            SyntaxError,
            ValueError,
        ) as error:  # the last two for some broken files
            raise SpfdeError(
                f"{name} cannot be decoded ({error})", "replace it by an intact copy of 8 or 16 bits"
            ) from None
        image = fit(image) if fit else image
        if image.size != (info.size, info.size):
            cause = f"{name} has {image.width}x{image.height} pixels instead of {info.size}x{info.size}"
            raise SpfdeError(cause, "use images of that size, or register a data set with theirs")
        images[index] = np.asarray(image).reshape(info.size, info.size, info.channels)

    with ThreadPoolExecutor(cores()) as pool:
        for _ in pool.map(decode, range(len(sources))):
            pass
    return torch.from_numpy(images.transpose(0, 3, 1, 2).copy())
