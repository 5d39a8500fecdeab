"""Images of every depth become 8 bits as their range says, or are refused."""

import io

import numpy as np
import pytest
import torch
from PIL import Image

from spfde.data.images import decode_images, open_image
from spfde.data.split import DataInfo
from spfde.errors import SpfdeError

RAMP = np.linspace(0, 65535, 64).reshape(8, 8).round()
GREY = DataInfo("rays", 2, 1, 8, 2, 2, (0.5,), (0.25,))


def file(image: Image.Image, kind: str = "png") -> io.BytesIO:
    buffer = io.BytesIO()
    image.save(buffer, kind)
    buffer.seek(0)
    return buffer


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize(("dtype", "kind"), [("<u2", "png"), ("<u2", "tiff"), (">u2", "tiff"), ("<i4", "tiff")])
def test_sixteen_bits_are_scaled(dtype: str, kind: str, channels: int) -> None:
    found = np.asarray(open_image(file(Image.fromarray(RAMP.astype(dtype)), kind), channels))
    expected = (RAMP / 257).round()  # 65535 becomes 255
    assert np.array_equal(found if channels == 1 else found[..., 1], expected)


def test_eight_bits_stay() -> None:
    pixels = np.arange(64, dtype=np.uint8).reshape(8, 8)
    decoded = decode_images(GREY, [file(Image.fromarray(pixels))], None, "a test")
    assert torch.equal(decoded, torch.from_numpy(pixels)[None, None])


@pytest.mark.parametrize("pixels", [RAMP.astype("float32"), (RAMP * 2).astype("int32"), (RAMP - 1).astype("int32")])
def test_numbers_of_no_known_range_are_refused(pixels: np.ndarray) -> None:
    with pytest.raises(
        SpfdeError, match=r"image 0 of a test cannot be decoded \(its pixels are numbers of mode [IF],.*16 bits"
    ):
        decode_images(GREY, [file(Image.fromarray(pixels), "tiff")], None, "a test")
