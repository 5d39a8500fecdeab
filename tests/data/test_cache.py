"""The decoded cache: made once, found again, told apart, and damaged."""

import os
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from spfde.data.imagefolder import ImageFolder
from spfde.data.split import DataInfo
from spfde.errors import SpfdeError


@pytest.fixture
def source(info: DataInfo) -> ImageFolder:
    return ImageFolder(info)


def test_decoded_once(image_folder: Path, source: ImageFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cache = tmp_path / "cache"
    first = source.open(image_folder, cache)
    (path,) = cache.iterdir()
    assert path.name.startswith("tiny-") and source.prepare(image_folder, cache) == path
    monkeypatch.setattr(source, "decode", None)
    for split, again in zip(first, source.open(image_folder, cache), strict=True):
        assert torch.equal(split.images, again.images) and torch.equal(split.labels, again.labels)


def test_named_by_content_alone(image_folder: Path, source: ImageFolder, tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    path = source.prepare(image_folder, cache)
    image = image_folder / "tiny" / "train" / "ant" / "000.png"
    os.utime(image, (0, 0))
    moved = image_folder.rename(image_folder.with_name("elsewhere"))
    assert source.prepare(moved, moved / "cache").name == path.name
    image = moved / "tiny" / "train" / "ant" / "000.png"
    image.write_bytes((moved / "tiny" / "train" / "bee" / "001.png").read_bytes())
    assert source.prepare(moved, moved / "cache").name != path.name


def test_another_size_is_another_file(image_folder: Path, source: ImageFolder, tmp_path: Path, info: DataInfo) -> None:
    smaller = ImageFolder(DataInfo("tiny", 3, 3, 4, 12, 6, info.mean, info.std))
    assert source.prepare(image_folder, tmp_path / "c") != smaller.prepare(image_folder, tmp_path / "c")
    assert smaller.open(image_folder, tmp_path / "c")[0].images.shape == (12, 3, 4, 4)


@pytest.mark.parametrize("damage", ["empty", "cut", "garbage", "other tensors"])
def test_a_damaged_file(image_folder: Path, source: ImageFolder, tmp_path: Path, damage: str) -> None:
    path = source.prepare(image_folder, tmp_path / "cache")
    content = path.read_bytes()
    if damage == "other tensors":
        save_file({"train_images": torch.zeros(1)}, path)
    else:
        path.write_bytes({"empty": b"", "cut": content[:-100], "garbage": b"?" * 200}[damage])
    with pytest.raises(SpfdeError, match=rf"{path} is damaged .*; delete that file and run again"):
        source.open(image_folder, tmp_path / "cache")


def test_a_file_of_other_numbers(image_folder: Path, source: ImageFolder, tmp_path: Path) -> None:
    path = source.prepare(image_folder, tmp_path / "cache")
    tensors = load_file(path)
    save_file(tensors | {"test_images": tensors["test_images"][:2]}, path)
    with pytest.raises(SpfdeError, match=r"test images of shape \(2, 3, 8, 8\) instead of \(6, 3, 8, 8\)"):
        source.open(image_folder, tmp_path / "cache")


def test_a_failed_write_leaves_nothing(
    image_folder: Path, source: ImageFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(tensors: object, path: Path) -> None:
        path.write_bytes(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("spfde.data.cache.save_file", fail)
    with pytest.raises(SpfdeError, match="no space left to write"):
        source.open(image_folder, tmp_path / "cache")
    assert not any((tmp_path / "cache").iterdir())
