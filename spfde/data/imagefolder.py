"""Folders of images: `<root>/<name>/train/<class>/*` and `val` (or `test`), classes in the order of their names."""

from pathlib import Path

import torch

from spfde.data.cache import Decoded, Files, folder_of, run_data
from spfde.data.images import decode_images
from spfde.data.split import DataInfo, FolderSplit, Split
from spfde.errors import SpfdeError

EXTENSIONS = {".jpg", ".jpeg", ".png", ".ppm", ".bmp", ".pgm", ".tif", ".tiff", ".webp"}


class ImageFolder(Decoded):
    """A small data set: each image is scaled to the data set's size and cropped in the middle, once, when decoded."""

    def files(self, root: Path | None) -> Files:
        return scan(self.info, root)

    def decode(self, sources: Files) -> tuple[Split, Split]:
        from torchvision.transforms import CenterCrop, Compose, Resize

        fit = Compose([Resize(self.info.size), CenterCrop(self.info.size)])
        train, test = (
            Split(decode_images(self.info, paths, fit, self.info.name), labels_of(paths)) for paths in sources.values()
        )
        return train, test


class StreamedFolder:
    """A data set too large for memory, such as ImageNet: its images stay on disk and are decoded when needed."""

    def __init__(self, info: DataInfo) -> None:
        self.info = info

    def open(self, root: Path | None, cache: Path | None) -> tuple[FolderSplit, FolderSplit]:
        """The lists of training and test images.

        Raises:
            SpfdeError: folders are missing, or the number of images or classes is not what `info` says.
        """
        parts = scan(self.info, root).values()
        train, test = (FolderSplit(tuple(map(str, paths)), labels_of(paths)) for paths in parts)
        return train, test

    def prepare(self, root: Path | None, cache: Path) -> Path:
        """Checks that the images are there and returns their folder."""
        train, _ = self.open(root, cache)
        return Path(train.paths[0]).parents[2]


def scan(info: DataInfo, root: Path | None) -> Files:
    """The image files of both parts, by class and name.

    Raises:
        SpfdeError: a folder is missing, or the number of images or classes is not what `info` says.
    """
    place = f"{root or 'DIR'}/{info.name}"
    remedy = f"put images into {place}/train/<class>/ and {place}/val/<class>/ and {run_data(info.name, root)}"
    folder = folder_of(info.name, root, remedy)
    test_folder = folder / "val" if (folder / "val").is_dir() else folder / "test"
    found = {"train": _images(folder / "train"), "test": _images(test_folder)}
    for (part, paths), samples in zip(found.items(), (info.train_samples, info.test_samples), strict=True):
        if not paths:
            raise SpfdeError(f"{folder} has no {part} images", remedy)
        if len(paths) != samples:
            cause = f"{folder} has {len(paths)} {part} images instead of {samples}"
            raise SpfdeError(cause, "complete the folder, or register a data set with these numbers")
    classes = [{path.parent.name for path in paths} for paths in found.values()]
    if classes[0] != classes[1] or len(classes[0]) != info.classes:
        cause = f"{folder} has {len(classes[0])} training and {len(classes[1])} test classes instead of {info.classes}"
        raise SpfdeError(cause, "give both parts the same class folders")
    return found


def labels_of(paths: list[Path]) -> torch.Tensor:
    """The class of each image, int64 (N,): the rank of its folder among the sorted class folders."""
    number = {name: label for label, name in enumerate(sorted({path.parent.name for path in paths}))}
    return torch.tensor([number[path.parent.name] for path in paths])


def _images(folder: Path) -> list[Path]:
    found = (path for path in folder.glob("*/*") if path.suffix.lower() in EXTENSIONS)
    return sorted(found, key=lambda path: (path.parent.name, path.name))
