"""Data sets that a file in config/data describes."""

from pathlib import Path

import pytest
import torch

from spfde.data.described import described
from spfde.data.imagefolder import ImageFolder, StreamedFolder
from spfde.data.split import DataInfo
from spfde.errors import SpfdeError

TEXT = "classes: 3\nsize: {size}\ntrain_samples: {train}\ntest_samples: {test}\n"


def put(folder: Path, text: str) -> Path:
    (folder / "config/data").mkdir(parents=True)
    (folder / "config/data/tiny.yaml").write_text(text)
    return folder / "config/data"


def test_a_file_makes_its_folder_a_data_set(image_folder: Path, info: DataInfo, tmp_path: Path) -> None:
    text = TEXT.format(size=info.size, train=info.train_samples, test=info.test_samples)
    (source,) = described(put(tmp_path, text))
    assert isinstance(source, ImageFolder) and source.info.name == "tiny"
    assert (source.info.mean, source.info.std) == ((0.5,) * 3, (0.25,) * 3)
    for ours, theirs in zip(source.open(image_folder, None), ImageFolder(info).open(image_folder, None), strict=True):
        assert torch.equal(ours.images, theirs.images) and torch.equal(ours.labels, theirs.labels)


def test_streamed_and_with_its_own_statistics(tmp_path: Path) -> None:
    text = TEXT.format(size=8, train=9, test=3) + "streamed: true\nmean: [0.1, 0.2, 0.3]\nstd: [0.4, 0.5, 0.6]\n"
    (source,) = described(put(tmp_path, text))
    assert isinstance(source, StreamedFolder)
    assert (source.info.mean, source.info.std) == ((0.1, 0.2, 0.3), (0.4, 0.5, 0.6))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("classes: [", "is not YAML"),
        ("classes: 3\nsize: 8\ntrain_samples: 9", "test_samples"),
        (TEXT.format(size=8, train=9, test=3) + "sise: 9", "sise"),
        (TEXT.format(size=8, train=9, test=3) + "mean: [0.5]", "each of 3 channels"),
    ],
)
def test_a_broken_description_is_said(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(SpfdeError, match=message):
        described(put(tmp_path, text))


def test_none_where_there_is_no_folder(tmp_path: Path) -> None:
    assert described(tmp_path / "config/data") == []
