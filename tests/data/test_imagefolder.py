"""Image folders: decoded once, or streamed from disk by worker processes."""

import os
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.transforms import functional as vision

from spfde.data import streaming
from spfde.data.imagefolder import ImageFolder, StreamedFolder
from spfde.data.loader import Batch
from spfde.data.sources import SOURCES, load, open_loader, register_source
from spfde.data.split import DataInfo, FolderSplit, Split
from spfde.data.streaming import StreamedLoader, _check_shared_memory, _Images
from spfde.errors import SpfdeError
from spfde.settings import DataSettings

Arrays = dict[str, tuple[np.ndarray, np.ndarray]]


def by_class(images: np.ndarray, labels: np.ndarray) -> tuple[torch.Tensor, torch.Tensor]:
    order = np.argsort(labels, kind="stable")
    return torch.from_numpy(images[order]).permute(0, 3, 1, 2), torch.from_numpy(labels[order])


def test_samples_by_class_and_name(image_folder: Path, info: DataInfo, arrays: Arrays) -> None:
    for split, part in zip(ImageFolder(info).open(image_folder, None), arrays.values(), strict=True):
        images, labels = by_class(*part)
        assert torch.equal(split.images, images) and torch.equal(split.labels, labels)


def test_a_registered_folder_loads_by_name(
    image_folder: Path, info: DataInfo, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("spfde.data.sources.SOURCES", SOURCES.copy())
    register_source(ImageFolder(info))
    splits = load(DataSettings(name="tiny", validation=0.25), image_folder, tmp_path / "cache")
    assert isinstance(splits.validation, Split) and (len(splits.train), len(splits.validation)) == (9, 3)


def test_images_are_scaled_and_cropped_to_the_size(image_folder: Path, info: DataInfo) -> None:
    """A flag of three equal stripes: its middle is the middle stripe, whatever the size and the file format."""
    flag = np.zeros((20, 60, 3), np.uint8)
    flag[:, 20:40], flag[:, 40:] = (0, 255, 0), (0, 0, 255)
    path = image_folder / "tiny" / "train" / "ant" / "000.png"
    Image.fromarray(flag).convert("P").save(path)
    train, _ = ImageFolder(info).open(image_folder, None)
    assert train.images[0, 1].float().mean() > 230 and train.images[0, 2].float().mean() < 20


def test_missing_parts(image_folder: Path, info: DataInfo) -> None:
    def check(cause: str, root: Path = image_folder) -> None:
        for source in (ImageFolder(info), StreamedFolder(info)):
            with pytest.raises(SpfdeError, match=cause):
                source.open(root, None)

    folder, remedy = (
        image_folder / "tiny",
        r"put images into .*/tiny/train/<class>/ and .*/tiny/val/<class>/ and run `spf",
    )
    check(rf"nowhere does not exist; name another one, or {remedy}", image_folder / "nowhere")
    (folder / "val").rename(folder / "other")
    check(rf"has no test images; {remedy}")
    (folder / "other").rename(folder / "test")  # as good a name
    (folder / "train" / "ant" / "000.png").unlink()
    check("has 11 train images instead of 12; complete the folder")


def test_other_classes_in_the_test_part(image_folder: Path, info: DataInfo) -> None:
    (image_folder / "tiny" / "val" / "cat").rename(image_folder / "tiny" / "val" / "dog")
    with pytest.raises(SpfdeError, match="give both parts the same class folders"):
        ImageFolder(info).open(image_folder, None)


def test_a_broken_image(image_folder: Path, info: DataInfo) -> None:
    path = image_folder / "tiny" / "train" / "bee" / "001.png"
    path.write_bytes(path.read_bytes()[:70])
    with pytest.raises(SpfdeError, match=rf"{path} cannot be decoded .*; replace it"):
        ImageFolder(info).open(image_folder, None)
    train, _ = StreamedFolder(info).open(image_folder, None)
    with pytest.raises(SpfdeError, match=rf"{path} .*; replace it"):
        StreamedLoader(train, DataSettings(), info, 12, 1, "cpu", workers=0).fetch(torch.arange(12))
    for workers in (0, 1):
        loader = StreamedLoader(train, DataSettings(), info, 12, 1, "cpu", workers=workers)
        with pytest.raises(SpfdeError, match=rf"an image cannot be decoded: {path} .*; replace it"):
            list(loader.epoch(0))


@pytest.fixture
def streamed(image_folder: Path, info: DataInfo) -> FolderSplit:
    return StreamedFolder(info).open(image_folder, None)[0]


def joined(batches: list[Batch]) -> Batch:
    indices, images, labels = zip(*batches, strict=True)
    return torch.cat(indices), torch.cat(images), torch.cat(labels)


def test_streaming_does_not_depend_on_the_workers(streamed: FolderSplit, info: DataInfo) -> None:
    def run(workers: int) -> Batch:
        return joined(list(StreamedLoader(streamed, DataSettings(), info, 5, 1, "cpu", workers=workers).epoch(3)))

    for a, b in zip(run(0), run(2), strict=True):
        assert torch.equal(a, b)


def test_streamed_members_and_skip(streamed: FolderSplit, info: DataInfo) -> None:
    loader = StreamedLoader(streamed, DataSettings(), info, 5, 1, "cpu", workers=0)
    whole = list(loader.epoch(1))
    assert [len(indices) for indices, _, _ in whole] == [5, 5, 2] and loader.steps(len(loader)) == 3
    for batch, again in zip(whole[1:], loader.epoch(1, skip=1), strict=True):
        assert all(torch.equal(a, b) for a, b in zip(batch, again, strict=True))
    members = torch.arange(12) % 3 != 0
    indices, images, _ = joined(whole)
    few = joined(list(loader.epoch(1, members)))
    assert torch.equal(few[0], indices[members[indices]]) and torch.equal(few[1], images[members[indices]])
    assert torch.equal(few[2], streamed.labels[few[0]])
    assert not torch.equal(joined(list(loader.epoch(2)))[0], indices)


def test_streamed_augmentation(streamed: FolderSplit, info: DataInfo) -> None:
    """Without the crop, an image is either the plain one or its mirror image, and both occur."""
    state = torch.random.get_rng_state()
    plain = open_loader(streamed, DataSettings(), info, 12, 1, "cpu", train=False)
    mirrored = StreamedLoader(streamed, DataSettings(padding=0), info, 12, 1, "cpu", workers=0)
    cropped = StreamedLoader(streamed, DataSettings(flip=False), info, 12, 1, "cpu", workers=0)
    ((order, originals, _),) = plain.epoch(0)
    assert isinstance(plain, StreamedLoader) and torch.equal(order, torch.arange(12))
    ((order, images, _),) = mirrored.epoch(0)
    flips = [torch.equal(image, originals[index].flip(2)) for index, image in zip(order, images, strict=True)]
    assert 0 < sum(flips) < 12
    for flip, index, image in zip(flips, order, images, strict=True):
        assert flip or torch.equal(image, originals[index])
    ((_, first, _),), ((_, second, _),) = cropped.epoch(0), cropped.epoch(0)
    assert first.shape == originals.shape and torch.equal(first, second)
    assert len({tuple(image.flatten().tolist()) for image in first}) == 12
    assert torch.equal(torch.random.get_rng_state(), state)


def test_streamed_evaluation_is_the_middle_of_the_scaled_image(
    image_folder: Path, info: DataInfo, arrays: Arrays
) -> None:
    test = StreamedFolder(info).open(image_folder, None)[1]
    ((_, images, _),) = StreamedLoader(test, DataSettings(), info, 6, 1, "cpu", train=False, workers=0).epoch(0)
    pictures = [Image.fromarray(image) for image in arrays["test"][0][np.argsort(arrays["test"][1], kind="stable")]]
    for picture, image in zip(pictures, images, strict=True):
        middle = vision.center_crop(vision.resize(picture, [9]), [8])  # 8 * 256 / 224, rounded down
        assert torch.equal(image, vision.normalize(vision.to_tensor(middle), info.mean, info.std))


def test_a_streamed_split_is_limited_and_held_out(
    image_folder: Path, info: DataInfo, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("spfde.data.sources.SOURCES", SOURCES.copy())
    register_source(StreamedFolder(info))
    splits = load(DataSettings(name="tiny", validation=0.25), image_folder, None)
    assert isinstance(splits.train, FolderSplit) and isinstance(splits.validation, FolderSplit)
    assert not set(splits.train.paths) & set(splits.validation.paths) and len(splits.train.paths) == 9
    for path, label in zip(splits.train.paths, splits.train.labels.tolist(), strict=True):
        assert Path(path).parent.name == ("ant", "bee", "cat")[label]


def test_preparing_a_streamed_folder_checks_it(image_folder: Path, info: DataInfo, tmp_path: Path) -> None:
    assert StreamedFolder(info).prepare(image_folder, tmp_path / "cache") == image_folder / "tiny"
    (image_folder / "tiny" / "train" / "ant" / "000.png").unlink()
    with pytest.raises(SpfdeError, match="11 train images"):
        StreamedFolder(info).prepare(image_folder, tmp_path / "cache")


@pytest.mark.parametrize(("size", "resized"), [(224, 256), (8, 9), (112, 128)])
def test_evaluation_crops_what_is_resized_as_256_to_224(info: DataInfo, size: int, resized: int) -> None:
    split = FolderSplit([], torch.empty(0, dtype=torch.int64))
    images = _Images(split, DataSettings(name="tiny"), replace(info, size=size), 1, 0, train=False)
    resize, crop = images.transform.transforms
    assert resize.size == resized and crop.size == (size, size)


def test_a_batch_is_its_images_bytes(streamed: FolderSplit, info: DataInfo, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[int] = []
    monkeypatch.setattr(streaming, "_check_shared_memory", asked.append)
    for workers in (0, 1):
        next(iter(StreamedLoader(streamed, DataSettings(), info, 5, 1, "cpu", workers=workers).epoch(0)))
    assert asked == [5 * 3 * 8 * 8]  # this process hands nothing over


def test_workers_start_where_one_batch_and_its_queues_just_fit(monkeypatch: pytest.MonkeyPatch) -> None:
    """64 KiB for the queues beside the batch."""
    free = SimpleNamespace(f_bavail=1064, f_frsize=1024)
    monkeypatch.setattr(os, "statvfs", lambda path: {"/dev/shm": free}[path])
    _check_shared_memory(1000 * 1024)
    with pytest.raises(SpfdeError, match="no shared memory is left"):
        _check_shared_memory(1000 * 1024 + 1)


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="this system knows no affinity")
def test_workers_are_as_many_as_the_process_may_use_cores(
    streamed: FolderSplit, info: DataInfo, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not as many as the machine has: a cluster gives a job some of them, and torchrun's processes share those."""

    def workers() -> int:
        return StreamedLoader(streamed, DataSettings(), info, 5, 1, "cpu").workers

    for allowed, local, wanted in ((1, "1", 1), (8, "1", 8), (8, "4", 2), (2, "4", 1), (64, "1", 16)):
        monkeypatch.setattr(os, "sched_getaffinity", lambda _, allowed=allowed: set(range(allowed)))
        monkeypatch.setenv("LOCAL_WORLD_SIZE", local)
        assert workers() == wanted
