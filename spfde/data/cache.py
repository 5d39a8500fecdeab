"""Data sets that fit in memory: decoded once into a safetensors file, named by the digest of their source files."""

import hashlib
from abc import ABC, abstractmethod
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from spfde import files
from spfde.data.split import DataInfo, Split
from spfde.errors import SpfdeError
from spfde.files import check_file

DECODING = 1  # part of the digest; raise it when the same source files come to decode to something else

Files = dict[str, list[Path]]  # source files by role, e.g. "train" and "test"


class Decoded(ABC):
    """A data set decoded into uint8 arrays. A subclass says which files it is made of and how they are decoded."""

    def __init__(self, info: DataInfo) -> None:
        self.info = info

    @abstractmethod
    def files(self, root: Path | None) -> Files:
        """The source files that are there, in official order; SpfdeError where they are missing."""

    @abstractmethod
    def decode(self, sources: Files) -> tuple[Split, Split]:
        """Training and test samples in official order."""

    def fetch(self, root: Path | None) -> None:  # noqa: B027 - only kinds that can be downloaded have something to do
        """Downloads the files that are missing, if the data set can be downloaded."""

    def open(self, root: Path | None, cache: Path | None) -> tuple[Split, Split]:
        """Training and test samples, from the cache if they are there; without a cache folder, decoded anew.

        Raises:
            SpfdeError: files are missing, damaged, or not what `info` says; or the cache cannot be written.
        """
        sources = self.files(root)
        return self._cached(sources, self._cache_file(sources, cache)) if cache else self._decoded(sources)

    def prepare(self, root: Path | None, cache: Path) -> Path:
        """Downloads if needed, decodes into the cache, and returns the path of the file in the cache."""
        self.fetch(root)
        sources = self.files(root)
        path = self._cache_file(sources, cache)
        self._cached(sources, path)
        return path

    def _decoded(self, sources: Files) -> tuple[Split, Split]:
        for path in (path for paths in sources.values() for path in paths):
            check_file(path, "data file", "replace it by an intact copy")
        return self._checked(*self.decode(sources), where=f'the data of "{self.info.name}"')

    def _cached(self, sources: Files, path: Path) -> tuple[Split, Split]:
        if path.exists():
            return self._read(path)
        train, test = self._decoded(sources)
        tensors = {"train_images": train.images, "train_labels": train.labels}
        tensors |= {"test_images": test.images, "test_labels": test.labels}
        with files.writing(path) as temporary:
            save_file(tensors, temporary)
        return train, test

    def _read(self, path: Path) -> tuple[Split, Split]:
        check_file(path, "decoded data", "delete that file and run again")
        try:
            tensors = load_file(path)
            train = Split(tensors["train_images"], tensors["train_labels"])
            test = Split(tensors["test_images"], tensors["test_labels"])
        except (SafetensorError, KeyError, OSError) as error:
            cause = f"the decoded data in {path} is damaged ({error})"
            raise SpfdeError(cause, "delete that file and run again") from None
        return self._checked(train, test, where=str(path))

    def _cache_file(self, sources: Files, cache: Path) -> Path:
        digest = hashlib.sha256(f"{DECODING} {self.info.channels} {self.info.size}".encode())
        try:
            for role, paths in sources.items():
                for path in paths:
                    check_file(path, "data file", "replace it by an intact copy")
                    digest.update(f"\n{role} {path.parent.name}/{path.name} {path.stat().st_size}\n".encode())
                    with path.open("rb") as file:
                        while chunk := file.read(1 << 20):
                            digest.update(chunk)
        except OSError as error:
            raise SpfdeError(f"cannot read {error.filename} ({error.strerror})", "check its rights") from None
        return cache / f"{self.info.name}-{digest.hexdigest()[:16]}.safetensors"

    def _checked(self, train: Split, test: Split, where: str) -> tuple[Split, Split]:
        shape = (self.info.channels, self.info.size, self.info.size)
        for kind, split, samples in (
            ("training", train, self.info.train_samples),
            ("test", test, self.info.test_samples),
        ):
            found = tuple(split.images.shape)
            if found != (samples, *shape) or len(split) != samples:
                cause = f"{where} has {kind} images of shape {found} instead of {(samples, *shape)}"
                raise SpfdeError(cause, "use the complete, original files, or register a data set with these numbers")
            if not 0 <= int(split.labels.min()) <= int(split.labels.max()) < self.info.classes:
                cause = f"{where} has {kind} labels outside 0..{self.info.classes - 1}"
                raise SpfdeError(cause, "use the complete, original files, or register a data set with its classes")
        return train, test


def folder_of(name: str, root: Path | None, remedy: str) -> Path:
    """`root/name`, where the files of a data set lie; `remedy` says how they get there.

    Raises:
        SpfdeError: there is no such data root.
    """
    if root is None:
        raise SpfdeError(f'the data of "{name}" needs a data root', f"pass --data-root DIR, or {remedy}")
    if not root.is_dir():
        raise SpfdeError(f"the data root {root} does not exist", f"name another one, or {remedy}")
    return root / name


def run_data(name: str, root: Path | None) -> str:
    """The remedy for missing data: the command that prepares it."""
    return f"run `spfde data {name} --data-root {root or 'DIR'}`"
