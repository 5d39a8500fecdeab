"""Data sets that a file in config/data describes."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch

from spfde.data import info as info_of
from spfde.data import is_known, source
from spfde.data.described import described, described_names
from spfde.data.imagefolder import ImageFolder, StreamedFolder
from spfde.data.split import DataInfo
from spfde.errors import SpfdeError

TEXT = "classes: 3\nsize: {size}\ntrain_samples: {train}\ntest_samples: {test}\n"


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def put(text: str, name: str = "tiny") -> None:
    Path("config/data").mkdir(parents=True)
    Path(f"config/data/{name}.yaml").write_text(text)


def test_a_file_makes_its_folder_a_data_set(image_folder: Path, info: DataInfo) -> None:
    text = TEXT.format(size=info.size, train=info.train_samples, test=info.test_samples)
    put(text)
    source = described("tiny")
    assert isinstance(source, ImageFolder) and source.info.name == "tiny"
    assert (source.info.mean, source.info.std) == ((0.5,) * 3, (0.25,) * 3)
    for ours, theirs in zip(source.open(image_folder, None), ImageFolder(info).open(image_folder, None), strict=True):
        assert torch.equal(ours.images, theirs.images) and torch.equal(ours.labels, theirs.labels)


def test_streamed_and_with_its_own_statistics() -> None:
    text = TEXT.format(size=8, train=9, test=3) + "streamed: true\nmean: [0.1, 0.2, 0.3]\nstd: [0.4, 0.5, 0.6]\n"
    put(text)
    source = described("tiny")
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
def test_a_broken_description_is_said(text: str, message: str) -> None:
    put(text)
    with pytest.raises(SpfdeError, match=message):
        source("tiny")


def test_it_is_known_by_its_name_as_soon_as_the_file_is_there() -> None:
    assert not is_known("tiny") and described_names() == []
    put(TEXT.format(size=8, train=9, test=3))
    assert is_known("tiny") and info_of("tiny").train_samples == 9
    with pytest.raises(SpfdeError, match='unknown data set "tinny"; did you mean "tiny"'):
        source("tinny")


def test_nothing_of_the_working_folder_is_read_at_import(tmp_path: Path) -> None:
    """Other projects keep files of that name too; a built-in data set of the name stays what it is, with a warning."""
    put("_target_: somebody.elses.Data\n", "cifar10")
    code = (
        "import warnings; from spfde import SparseTraining, settings_for; from spfde.data import info\n"
        "warnings.simplefilter('error'); info('digits')\n"
        "warnings.simplefilter('always'); print(info('cifar10').classes)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0 and done.stdout == "10\n"
    assert "config/data/cifar10.yaml is not used" in done.stderr
