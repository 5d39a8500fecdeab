"""CIFAR-10 and CIFAR-100 (Krizhevsky, 2009): the official binary archives, or parquet files in their place."""

import tarfile
import zlib
from http.client import HTTPException
from pathlib import Path

import numpy as np
import torch

from spfde.data.cache import Decoded, Files, folder_of, run_data
from spfde.data.parquet import parquet_files, read_parquet
from spfde.data.split import DataInfo, Split
from spfde.errors import SpfdeError
from spfde.files import writing


class Cifar(Decoded):
    """Parquet files in `<root>/<name>/` if there are any, else the archive there.

    Args:
        url: the archive of binary records. Each record is the label bytes, of which the last one counts, and then the
            image as (C, H, W) bytes.
        md5: checksum of the archive.
        label_bytes: labels per record.
        train: members of the archive with the training samples, in official order.
        test: the member with the test samples.
    """

    def __init__(
        self, info: DataInfo, url: str, md5: str, label_bytes: int, train: tuple[str, ...], test: tuple[str, ...]
    ) -> None:
        super().__init__(info)
        self.url, self.md5, self.label_bytes = url, md5, label_bytes
        self.members = {"train": train, "test": test}

    def files(self, root: Path | None) -> Files:
        folder = folder_of(self.info.name, root, run_data(self.info.name, root))
        found = parquet_files(folder)
        archive = folder / self._archive
        if not found and not archive.exists():
            cause = f"{folder} has neither {self._archive} nor train-*.parquet and test-*.parquet"
            raise SpfdeError(cause, run_data(self.info.name, root))
        return found or {"archive": [archive]}

    def fetch(self, root: Path | None) -> None:
        """Downloads the archive, unless it is there already or parquet files are.

        Raises:
            SpfdeError: the download fails.
        """
        if root is None:
            raise SpfdeError(f'downloading "{self.info.name}" needs a data root', "pass --data-root DIR")
        archive = root / self.info.name / self._archive
        if archive.exists() or parquet_files(archive.parent):
            return
        from torchvision.datasets.utils import download_url

        try:
            with writing(archive) as temporary:
                download_url(self.url, str(temporary.parent), temporary.name, self.md5)
        except (OSError, HTTPException, RuntimeError) as error:
            remedy = f"check the connection, or put the archive or parquet files into {archive.parent}"
            raise SpfdeError(f"cannot download {self.url} ({error})", remedy) from None

    def decode(self, sources: Files) -> tuple[Split, Split]:
        if "archive" not in sources:
            return read_parquet(self.info, sources["train"]), read_parquet(self.info, sources["test"])
        (archive,) = sources["archive"]
        from torchvision.datasets.utils import check_integrity

        if not check_integrity(archive, self.md5):
            remedy = f"delete it and {run_data(self.info.name, archive.parent.parent)}"
            raise SpfdeError(f"{archive} is damaged: its checksum is not {self.md5}", remedy)
        try:
            with tarfile.open(archive) as tar:
                return self._records(tar, self.members["train"]), self._records(tar, self.members["test"])
        except (tarfile.TarError, OSError, EOFError, ValueError, KeyError, zlib.error) as error:
            why = (str(error).splitlines() or [error.__class__.__name__])[0]
            raise SpfdeError(f"{archive} cannot be decoded ({why})", "use the complete, original archive") from None

    def _records(self, tar: tarfile.TarFile, members: tuple[str, ...]) -> Split:
        shape = (self.info.channels, self.info.size, self.info.size)
        contents = [file.read() for file in map(tar.extractfile, members) if file]
        records = np.frombuffer(b"".join(contents), np.uint8).reshape(-1, self.label_bytes + int(np.prod(shape)))
        labels = records[:, self.label_bytes - 1].astype(np.int64)
        images = records[:, self.label_bytes :].reshape(-1, *shape).copy()
        return Split(torch.from_numpy(images), torch.from_numpy(labels))

    @property
    def _archive(self) -> str:
        return self.url.rsplit("/", 1)[-1]
