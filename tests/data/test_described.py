"""Data sets that a file in config/data describes."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch

from spfde.data import info as info_of
from spfde.data import is_known, load, source
from spfde.data.described import described, described_names
from spfde.data.imagefolder import ImageFolder, StreamedFolder
from spfde.data.split import DataInfo
from spfde.errors import OtherData, SpfdeError
from spfde.experiments.resolve import resolve
from spfde.experiments.stored import read_settings, write_settings
from spfde.results import load as load_results
from spfde.results.account import account, write_costs
from spfde.results.collect import record_folders
from spfde.settings import RunSettings
from spfde.training.loop import train

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
        (TEXT.format(size=8, train=9, test=3) + "channels: 2", "input should be 1 or 3"),
        (TEXT.format(size=8, train=9, test=3) + "std: [0.2, 0, 0.2]", "should be greater than 0"),
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


def test_the_description_is_a_part_of_the_run() -> None:
    """Another mean, size or way of loading is another run: neither finished before nor gone on with."""
    text = TEXT.format(size=8, train=9, test=3)
    put(text)
    file = Path("config/data/tiny.yaml")

    def run() -> RunSettings:
        return resolve("smoke", {"data.name": "tiny"})

    first = run()
    assert first.data.digest and run() == first
    for same in (text + "# a comment\n", text + "mean: [0.5, 0.5, 0.5]\n"):
        file.write_text(same)
        assert run().run_id == first.run_id
    others = ["mean: [0.4, 0.5, 0.5]\n", "std: [0.25, 0.25, 0.2]\n", "streamed: true\n", "channels: 1\n"]
    ids = {first.run_id}
    for other in [*(text + line for line in others), TEXT.format(size=9, train=9, test=3)]:
        file.write_text(other)
        ids.add(run().run_id)
        assert run().row_digest != first.row_digest
    assert len(ids) == 6
    assert resolve("smoke", {}).data.digest is None  # so that run ids of built-in sets stay what they are


def test_settings_of_another_description_are_refused(tmp_path: Path) -> None:
    put(TEXT.format(size=8, train=9, test=3))
    stored = tmp_path / "settings.yaml"
    write_settings(stored, resolve("smoke", {"data.name": "tiny"}))
    assert read_settings(stored) == [resolve("smoke", {"data.name": "tiny"})]
    Path("config/data/tiny.yaml").write_text(TEXT.format(size=16, train=9, test=3))
    with pytest.raises(OtherData, match="is of another description of tiny than"):
        read_settings(stored)
    for name in ("digits", "tiny"):
        with pytest.raises(OtherData):
            resolve("smoke", {"data.name": name, "data.digest": "0123456789ab"})


def test_a_record_of_another_description_keeps_its_costs(
    tmp_path: Path, image_folder: Path, info: DataInfo, capsys: pytest.CaptureFixture[str]
) -> None:
    """Those that it was made with; all other records are accounted again."""
    text = TEXT.format(size=info.size, train=info.train_samples, test=info.test_samples)
    put(text)
    told = {"data.name": "tiny", "training.epochs": 1, "training.batch_size": 4, "sparsity.method": "dense"}
    out = tmp_path / "smoke/runs"
    for name, root in (("tiny", image_folder), ("digits", None)):
        settings = resolve("smoke", {**told, "tag": name, "data.name": name, "data.train_limit": 6})
        train(settings, load(settings.data, root, None), out)
    Path("config/data/tiny.yaml").write_text(TEXT.format(size=2 * info.size, train=9, test=3))
    folders = record_folders("smoke", tmp_path)
    assert len(folders) == 2 and write_costs(folders, tmp_path / "smoke/costs.csv") == 1
    assert "warning: record" in capsys.readouterr().err
    assert len(load_results("smoke", tmp_path)["flops.paper"].dropna()) == 2


@pytest.mark.parametrize("edited", [False, True])
def test_a_record_that_does_not_say_which_description_keeps_its_costs(
    tmp_path: Path, image_folder: Path, info: DataInfo, capsys: pytest.CaptureFixture[str], edited: bool
) -> None:
    """Records of before descriptions had digests: today's one may be the one that they were made with, or another."""
    put(TEXT.format(size=info.size, train=info.train_samples, test=info.test_samples))
    told = {"data.name": "tiny", "training.epochs": 1, "training.batch_size": 4, "sparsity.method": "dense"}
    settings = resolve("smoke", told)
    new = train(settings, load(settings.data, image_folder, None), tmp_path)
    assert account(new)["run_id"] == settings.run_id
    old = settings.model_copy(update={"data": settings.data.model_copy(update={"digest": None})})
    record = new.rename(new.with_name(old.run_id))
    write_settings(record / "settings.yaml", old)
    if edited:
        Path("config/data/tiny.yaml").write_text(TEXT.format(size=2 * info.size, train=9, test=3))
    with pytest.raises(OtherData, match="does not say by which description of tiny the record"):
        account(record)
    assert write_costs([record], tmp_path / "costs.csv") == 0
    assert "keeps the costs of its summary" in capsys.readouterr().err


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
