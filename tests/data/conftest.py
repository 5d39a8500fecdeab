"""Small data sets in the layouts that the sources read; pixels are random but fixed."""

import io
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image
from pyarrow import parquet

from spfde.data.split import DataInfo

Array = np.ndarray


@pytest.fixture
def info() -> DataInfo:
    """Three classes of 8x8 colour images, 12 + 6 samples."""
    return DataInfo("tiny", 3, 3, 8, 12, 6, mean=(0.5, 0.4, 0.3), std=(0.2, 0.3, 0.4))


@pytest.fixture
def arrays(info: DataInfo) -> dict[str, tuple[Array, Array]]:
    """Images uint8 (N, 8, 8, 3) and labels (N,) of both parts."""
    rng = np.random.default_rng(0)
    return {
        part: (rng.integers(0, 256, (samples, 8, 8, 3), dtype=np.uint8), np.arange(samples) * 7 % 3)
        for part, samples in (("train", info.train_samples), ("test", info.test_samples))
    }


def png(image: Array) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, "png")
    return buffer.getvalue()


@pytest.fixture
def write_parquet() -> Callable[..., None]:
    """Writes images and labels as one parquet file; `labels` are columns by name."""

    def write(path: Path, images: Array, image_column: str = "img", **labels: Array) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        structs = [{"bytes": png(image), "path": None} for image in images]
        columns = {image_column: pa.array(structs, pa.struct({"bytes": pa.binary(), "path": pa.string()}))}
        parquet.write_table(pa.table(columns | {name: pa.array(values) for name, values in labels.items()}), path)

    return write


@pytest.fixture
def image_folder(tmp_path: Path, info: DataInfo, arrays: dict[str, tuple[Array, Array]]) -> Path:
    """A data root with the arrays as an image folder of the name `info.name`; classes ant, bee, cat."""
    for part, folder in (("train", "train"), ("test", "val")):
        for number, (image, label) in enumerate(zip(*arrays[part], strict=True)):
            path = tmp_path / info.name / folder / ("ant", "bee", "cat")[label] / f"{number:03}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(png(image))
    return tmp_path
