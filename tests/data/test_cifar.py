"""Binary archives: download, checksum, records."""

import io
import tarfile
import threading
from collections.abc import Iterator
from functools import partial
from hashlib import md5
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
import torch

from spfde.data.cifar import Cifar
from spfde.data.sources import SOURCES
from spfde.data.split import DataInfo
from spfde.errors import SpfdeError

Arrays = dict[str, tuple[np.ndarray, np.ndarray]]


def records(images: np.ndarray, labels: np.ndarray, label_bytes: int) -> bytes:
    """The format as published: for CIFAR-100 a coarse label (here 9), then the fine one, then the planes."""
    rows = [
        bytes([9] * (label_bytes - 1) + [label]) + image.transpose(2, 0, 1).tobytes()
        for image, label in zip(images, labels, strict=True)
    ]
    return b"".join(rows)


class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The address of a server on this machine that serves the folder "remote"."""
    (tmp_path / "remote").mkdir()
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=tmp_path / "remote")) as web:
        threading.Thread(target=web.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{web.server_port}"
        web.shutdown()


@pytest.fixture(params=[1, 2], ids=["one label", "two labels"])
def source(request: pytest.FixtureRequest, tmp_path: Path, server: str, info: DataInfo, arrays: Arrays) -> Cifar:
    """A source whose archive waits on the server; training samples in two members, stored in reverse."""
    (images, labels), test = arrays["train"], arrays["test"]
    contents = {
        "bin/test.bin": records(*test, request.param),
        "bin/b2.bin": records(images[7:], labels[7:], request.param),
        "bin/b1.bin": records(images[:7], labels[:7], request.param),
    }
    archive = tmp_path / "remote" / "tiny-binary.tar.gz"
    with tarfile.open(archive, "w:gz") as tar:
        for name, content in contents.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    checksum = md5(archive.read_bytes()).hexdigest()
    members = ("bin/b1.bin", "bin/b2.bin")
    return Cifar(info, f"{server}/{archive.name}", checksum, request.param, members, ("bin/test.bin",))


def test_download_and_decode(tmp_path: Path, source: Cifar, arrays: Arrays) -> None:
    root = tmp_path / "data"
    path = source.prepare(root, tmp_path / "cache")
    assert path.parent == tmp_path / "cache" and path.exists()
    assert [file.name for file in (root / "tiny").iterdir()] == ["tiny-binary.tar.gz"]
    for split, (images, labels) in zip(source.open(root, tmp_path / "cache"), arrays.values(), strict=True):
        assert torch.equal(split.images, torch.from_numpy(images).permute(0, 3, 1, 2))
        assert torch.equal(split.labels, torch.from_numpy(labels))


def test_a_second_time_nothing_is_downloaded(tmp_path: Path, source: Cifar) -> None:
    first = source.prepare(tmp_path / "data", tmp_path / "cache")
    (tmp_path / "remote" / "tiny-binary.tar.gz").unlink()
    assert source.prepare(tmp_path / "data", tmp_path / "cache") == first


def test_opening_never_downloads(tmp_path: Path, source: Cifar) -> None:
    root = tmp_path / "data"
    remedy = f"run `spfde data tiny --data-root {root}`"
    with pytest.raises(SpfdeError, match="does not exist") as missing_root:
        source.open(root, None)
    root.mkdir()
    with pytest.raises(SpfdeError, match=r"neither tiny-binary.tar.gz nor train-\*.parquet") as missing_files:
        source.open(root, None)
    assert remedy in missing_root.value.remedy and remedy in missing_files.value.remedy
    with pytest.raises(SpfdeError, match=r"needs a data root; pass --data-root DIR"):
        source.open(None, None)
    assert not any(root.iterdir())


@pytest.mark.parametrize("damage", ["cut", "changed"])
def test_a_damaged_archive(tmp_path: Path, source: Cifar, damage: str) -> None:
    source.fetch(tmp_path)
    path = tmp_path / "tiny" / "tiny-binary.tar.gz"
    content = path.read_bytes()
    path.write_bytes(content[:-20] if damage == "cut" else content[:-20] + bytes(20))
    with pytest.raises(SpfdeError, match=r"is damaged: its checksum is not .*; delete it and run `spfde data tiny"):
        source.open(tmp_path, tmp_path / "cache")


def test_a_damaged_download_leaves_nothing(tmp_path: Path, source: Cifar) -> None:
    source.md5 = "0" * 32
    with pytest.raises(SpfdeError, match=r"cannot download http:.*; check the connection, or put the archive"):
        source.prepare(tmp_path / "data", tmp_path / "cache")
    assert not any((tmp_path / "data" / "tiny").iterdir())


def test_no_connection(tmp_path: Path, source: Cifar) -> None:
    (tmp_path / "remote" / "tiny-binary.tar.gz").unlink()
    with pytest.raises(SpfdeError, match="cannot download"):
        source.prepare(tmp_path / "data", tmp_path / "cache")


@pytest.mark.parametrize(("name", "record"), [("cifar10", 3073), ("cifar100", 3074)])
def test_the_official_archives(name: str, record: int) -> None:
    """Bytes a record as the data set's page states them."""
    source = SOURCES[name]
    assert isinstance(source, Cifar)
    assert source.label_bytes + 3 * 32 * 32 == record
    assert source.info.train_samples == 50_000 and source.info.test_samples == 10_000
