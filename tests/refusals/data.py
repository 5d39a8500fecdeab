"""Data that are missing, damaged, or other ones than their description says."""

from pathlib import Path

import numpy as np
import pyarrow as pa
from PIL import Image
from pyarrow import parquet

from spfde.data import DataInfo
from spfde.data.imagefolder import ImageFolder
from spfde.data.images import decode_images
from spfde.data.parquet import parquet_files, read_parquet
from spfde.data.sources import CIFAR100, SOURCES
from tests.refusals.table import refusal

TINY = DataInfo("tiny", 2, 1, 8, 2, 2, (0.5,), (0.25,))


def images(folder: Path, *paths: str, size: int = 8) -> None:
    for path in paths:
        (folder / "tiny" / path).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.zeros((size, size), dtype=np.uint8)).save(folder / "tiny" / path)


ALL = ("train/a/0.png", "train/b/0.png", "val/a/0.png", "val/b/0.png")


@refusal("a data set without `--data-root`")
def no_data_root(_: Path) -> None:
    SOURCES["cifar100"].open(None, None)


@refusal("a data root that is not there")
def missing_data_root(folder: Path) -> None:
    SOURCES["cifar100"].open(folder / "data", None)


@refusal("a folder of images without a test part")
def no_test_images(folder: Path) -> None:
    images(folder, *ALL[:2])
    ImageFolder(TINY).open(folder, None)


@refusal("fewer images than described")
def too_few_images(folder: Path) -> None:
    images(folder, *ALL[:3])
    ImageFolder(TINY).open(folder, None)


@refusal("other classes in the two parts")
def other_classes(folder: Path) -> None:
    images(folder, *ALL[:3], "val/c/0.png")
    ImageFolder(TINY).open(folder, None)


@refusal("a file that is no image")
def no_image(folder: Path) -> None:
    path = folder / "0.png"
    path.write_bytes(b"no image")
    decode_images(TINY, [path], None, "a test")


@refusal("an image of 32 bits, whose range is not known")
def deep_image(folder: Path) -> None:
    path = folder / "0.tiff"
    Image.fromarray(np.ones((8, 8), dtype=np.float32)).save(path)
    decode_images(TINY, [path], None, "a test")


@refusal("an image of another size")
def large_image(folder: Path) -> None:
    images(folder, "0.png", size=9)
    decode_images(TINY, [folder / "tiny/0.png"], None, "a test")


@refusal("a device file where an image should be")
def device_file(_: Path) -> None:
    decode_images(TINY, [Path("/dev/zero")], None, "a test")


@refusal("parquet files of one part alone")
def one_part(folder: Path) -> None:
    (folder / "train-0.parquet").write_bytes(b"")
    parquet_files(folder)


@refusal("a parquet file with other columns")
def other_columns(folder: Path) -> None:
    parquet.write_table(pa.table({"picture": [1], "class": [2]}), folder / "train-0.parquet")
    read_parquet(CIFAR100, [folder / "train-0.parquet"])


@refusal("a parquet file that holds paths in place of images")
def paths_in_parquet(folder: Path) -> None:
    kind = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    pictures = pa.array([{"bytes": None, "path": "0.png"}], kind)
    parquet.write_table(pa.table({"img": pictures, "fine_label": [0]}), folder / "train-0.parquet")
    read_parquet(CIFAR100, [folder / "train-0.parquet"])
