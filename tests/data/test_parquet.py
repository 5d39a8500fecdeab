"""Parquet files in place of an archive: their layouts, and what is wrong with broken ones."""

import os
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import torch
from pyarrow import parquet

from spfde.data.cifar import Cifar
from spfde.data.parquet import read_parquet
from spfde.data.sources import load
from spfde.data.split import DataInfo, Split
from spfde.errors import SpfdeError
from spfde.settings import DataSettings

Array = np.ndarray
Arrays = dict[str, tuple[Array, Array]]
Writer = Callable[..., None]


def source(info: DataInfo) -> Cifar:
    return Cifar(info, "https://nowhere.invalid/tiny.tar.gz", "0" * 32, 1, ("train.bin",), ("test.bin",))


def same(split: Split, images: Array, labels: Array) -> bool:
    pixels = torch.from_numpy(images).permute(0, 3, 1, 2)
    return torch.equal(split.images, pixels) and torch.equal(split.labels, torch.from_numpy(labels))


def test_files_in_the_order_of_their_names(
    tmp_path: Path, info: DataInfo, arrays: Arrays, write_parquet: Writer
) -> None:
    (images, labels), (test_images, test_labels) = arrays["train"], arrays["test"]
    folder = tmp_path / "tiny"
    write_parquet(
        folder / "train-00001-of-00002.parquet", images[5:], fine_label=labels[5:], coarse_label=labels[5:] * 0
    )
    write_parquet(
        folder / "train-00000-of-00002.parquet", images[:5], fine_label=labels[:5], coarse_label=labels[:5] * 0
    )
    write_parquet(folder / "test-00000-of-00001.parquet", test_images, "image", label=test_labels)
    train, test = source(info).open(tmp_path, None)
    assert same(train, images, labels) and same(test, test_images, test_labels)


def test_grey_images(tmp_path: Path, write_parquet: Writer) -> None:
    info = DataInfo("tiny", 3, 1, 8, 4, 1, mean=(0.5,), std=(0.5,))
    images = np.arange(4 * 64, dtype=np.uint8).reshape(4, 8, 8)
    write_parquet(tmp_path / "a.parquet", images, label=np.arange(4) % 3)
    assert torch.equal(read_parquet(info, [tmp_path / "a.parquet"]).images[:, 0], torch.from_numpy(images))


def test_a_cut_file(tmp_path: Path, info: DataInfo, arrays: Arrays, write_parquet: Writer) -> None:
    path = tmp_path / "train-0.parquet"
    write_parquet(path, arrays["train"][0], label=arrays["train"][1])
    content = path.read_bytes()
    for length in (0, 3, len(content) // 2, len(content) - 1):
        path.write_bytes(content[:length])
        with pytest.raises(
            SpfdeError, match=r"train-0.parquet cannot be read as parquet .*; replace it by an intact copy"
        ):
            read_parquet(info, [path])


def test_missing_columns(tmp_path: Path, info: DataInfo, arrays: Arrays, write_parquet: Writer) -> None:
    images, labels = arrays["train"]
    write_parquet(tmp_path / "a.parquet", images, coarse_label=labels)
    with pytest.raises(SpfdeError, match=r'neither a column "fine_label" nor "label" \(it has img, coarse_label\)'):
        read_parquet(info, [tmp_path / "a.parquet"])
    write_parquet(tmp_path / "b.parquet", images, "picture", label=labels)
    with pytest.raises(SpfdeError, match=r'neither a column "img" nor "image"'):
        read_parquet(info, [tmp_path / "b.parquet"])


@pytest.mark.parametrize("column", ["img", "label"])
def test_columns_of_another_type(
    tmp_path: Path, info: DataInfo, arrays: Arrays, write_parquet: Writer, column: str
) -> None:
    write_parquet(tmp_path / "good.parquet", arrays["train"][0], label=arrays["train"][1])
    table = parquet.read_table(tmp_path / "good.parquet")
    words = pa.array(["seven"] * len(table))
    table = table.set_column(table.column_names.index(column), column, words)
    parquet.write_table(table, tmp_path / "a.parquet")
    with pytest.raises(SpfdeError, match=r"columns of another type .*; images must be a struct"):
        read_parquet(info, [tmp_path / "a.parquet"])


def test_null_labels_and_null_images(tmp_path: Path, info: DataInfo, arrays: Arrays, write_parquet: Writer) -> None:
    write_parquet(tmp_path / "good.parquet", arrays["train"][0], label=arrays["train"][1])
    table = parquet.read_table(tmp_path / "good.parquet")
    nulls = table.set_column(1, "label", pa.array([None, *range(11)], pa.int64()))
    parquet.write_table(nulls, tmp_path / "labels.parquet")
    structs = pa.array([{"bytes": None, "path": "x.png"}] * 12, table["img"].type)
    parquet.write_table(table.set_column(0, "img", structs), tmp_path / "images.parquet")
    with pytest.raises(SpfdeError, match="another type"):
        read_parquet(info, [tmp_path / "labels.parquet"])
    with pytest.raises(SpfdeError, match="rows without image bytes"):
        read_parquet(info, [tmp_path / "images.parquet"])


def test_images_of_another_size(tmp_path: Path, info: DataInfo, write_parquet: Writer) -> None:
    write_parquet(tmp_path / "a.parquet", np.zeros((2, 9, 8, 3), np.uint8), label=np.zeros(2, np.int64))
    with pytest.raises(
        SpfdeError, match=r"image 0 of .*a.parquet has 8x9 pixels instead of 8x8; use images of that size"
    ):
        read_parquet(info, [tmp_path / "a.parquet"])


def test_bytes_that_are_no_image(tmp_path: Path, info: DataInfo, arrays: Arrays, write_parquet: Writer) -> None:
    write_parquet(tmp_path / "good.parquet", arrays["train"][0], label=arrays["train"][1])
    table = parquet.read_table(tmp_path / "good.parquet")
    rows = table["img"].to_pylist()
    for broken in (b"", b"not an image", rows[3]["bytes"][:60]):
        rows[3]["bytes"] = broken
        parquet.write_table(table.set_column(0, "img", pa.array(rows, table["img"].type)), tmp_path / "a.parquet")
        with pytest.raises(SpfdeError, match=r"image 3 of .*a.parquet cannot be decoded .*; replace it"):
            read_parquet(info, [tmp_path / "a.parquet"])


def test_only_one_part(tmp_path: Path, info: DataInfo, arrays: Arrays, write_parquet: Writer) -> None:
    write_parquet(tmp_path / "tiny" / "train-0.parquet", arrays["train"][0], label=arrays["train"][1])
    with pytest.raises(SpfdeError, match=r"tiny has no test-\*\.parquet; add the missing files"):
        source(info).open(tmp_path, None)


def test_a_file_of_several_is_missing(tmp_path: Path, info: DataInfo, arrays: Arrays, write_parquet: Writer) -> None:
    for part in ("train", "test"):
        write_parquet(tmp_path / "tiny" / f"{part}-0.parquet", arrays[part][0][:6], label=arrays[part][1][:6])
    with pytest.raises(SpfdeError, match=r"training images of shape \(6, 3, 8, 8\) instead of \(12, 3, 8, 8\)"):
        source(info).open(tmp_path, None)


def test_labels_beyond_the_classes(tmp_path: Path, info: DataInfo, arrays: Arrays, write_parquet: Writer) -> None:
    for part in ("train", "test"):
        write_parquet(tmp_path / "tiny" / f"{part}-0.parquet", arrays[part][0], label=arrays[part][1] + 1)
    with pytest.raises(SpfdeError, match=r"training labels outside 0\.\.2"):
        source(info).open(tmp_path, None)


@pytest.mark.skipif("SPFDE_TEST_DATA" not in os.environ, reason="SPFDE_TEST_DATA names no data root with cifar100/")
def test_cifar100(tmp_path: Path) -> None:
    settings = DataSettings(name="cifar100")
    for _ in ("decoded", "from the cache"):
        splits = load(settings, Path(os.environ["SPFDE_TEST_DATA"]), tmp_path)
        assert isinstance(splits.train, Split) and isinstance(splits.test, Split)
        digests = [
            sha256(split.images.permute(0, 2, 3, 1).numpy().tobytes()).hexdigest()
            for split in (splits.train, splits.test)
        ]
        assert digests == [
            "4e457917601a66aed021f5fa37957b56c6319557c0a8ed5484de3c390af45430",
            "8532fd42ce092c665328a7201998ab7e8768dad37afff89be94e13106523a495",
        ]
        assert splits.train.labels.bincount().tolist() == [500] * 100
        assert splits.test.labels.bincount().tolist() == [100] * 100
