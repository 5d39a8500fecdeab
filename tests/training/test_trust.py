"""Which records may be trusted: whole, undamaged, their own; and what becomes of the others."""

import errno
import gzip
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from spfde.cli import app
from spfde.data import load
from spfde.errors import SpfdeError, Stopped
from spfde.experiments.resolve import resolve
from spfde.results import load as load_results
from spfde.results.collect import record_folders
from spfde.settings import SCHEMA
from spfde.training import checkpoint, record, trust
from spfde.training.clock import Clock
from spfde.training.loop import train
from spfde.training.trust import DAMAGED, fault, is_whole, seal

TOLD = {"sparsity.method": "set", "training.epochs": 3, "training.batch_size": 64, "data.train_limit": 128}


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    settings = resolve("smoke", TOLD)
    return train(settings, load(settings.data, None, None), tmp_path_factory.mktemp("results") / "smoke" / "runs")


@pytest.fixture
def folder(trained: Path, tmp_path: Path) -> Path:
    """A record of one's own, in a folder of results of its own."""
    return shutil.copytree(trained, tmp_path / "smoke" / "runs" / trained.name)


def flip(path: Path, at: int = -3) -> None:
    """Changes one byte, and neither size nor time."""
    data, times = bytearray(path.read_bytes()), path.stat()
    data[at] ^= 1
    path.write_bytes(data)
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns + 1))


def edit(path: Path, old: str, new: str) -> None:
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))


def reseal(folder: Path, **changed: object) -> None:
    seal(folder, json.loads((folder / "summary.json").read_text()) | changed)


def no_space(_: Path, target: Path) -> None:
    """In place of `shutil.copyfile`: makes the file, and finds no room for what should be in it."""
    target.touch()
    raise OSError(errno.ENOSPC, "No space left on device")


def drop_last(path: Path) -> None:
    path.write_text("".join(path.read_text().splitlines(keepends=True)[:-1]))


def resealed(change: Callable[[Path], object]) -> Callable[[Path], None]:
    """A change whose digests are then written anew, as one would who means it."""

    def damage(folder: Path) -> None:
        change(folder)
        reseal(folder)

    return damage


def in_place_of_epochs(folder: Path) -> None:
    (folder / "epochs.csv").unlink()
    os.mkfifo(folder / "epochs.csv")


def older(folder: Path) -> None:
    path = folder / "summary.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"schema": SCHEMA - 1}))


DAMAGE: dict[str, tuple[Callable[[Path], object], str, bool]] = {
    # what is done to a record, what is said of it, and whether planning sees it by names and sizes alone
    "no weights": (lambda at: (at / "model.safetensors").unlink(), "model.safetensors is missing", True),
    "cut short": (lambda at: os.truncate(at / "model.safetensors", 999), "model.safetensors has 999 bytes", True),
    "a row less": (lambda at: drop_last(at / "epochs.csv"), "epochs.csv has", True),
    "a bit": (lambda at: flip(at / "model.safetensors"), "model.safetensors is not as it was written", False),
    "a bit of the trace": (lambda at: flip(at / "layers.csv"), "layers.csv is not as it was written", False),
    "a nicer accuracy": (
        lambda at: edit(at / "summary.json", '"test_last": ', '"test_last": 1'),
        "summary.json is not as it was written",
        False,
    ),
    "half a summary": (lambda at: os.truncate(at / "summary.json", 99), "is not JSON", True),
    "a list": (lambda at: (at / "summary.json").write_text("[]"), "holds no summary", True),
    "other settings": (
        resealed(lambda at: edit(at / "settings.yaml", "momentum: 0.9", "momentum: 0.8")),
        "its settings are those of smoke-resnet8-set-s90-seed1-",
        False,
    ),
    "other samples": (
        resealed(lambda at: edit(at / "layers.csv", ",128,", ",127,")),
        "epochs.csv and the trace differ",
        False,
    ),
    "an epoch less": (
        resealed(lambda at: drop_last(at / "epochs.csv")),
        "epochs.csv has 2 epochs, and its settings 3",
        False,
    ),
    "another accuracy": (
        lambda at: reseal(at, accuracy={"test_last": 99.5}),
        "epochs.csv and summary.json differ in the last accuracy",
        False,
    ),
    "a FIFO": (
        in_place_of_epochs,
        "epochs.csv cannot be read (it is a FIFO)",
        True,
    ),
    "an older schema": (older, f"it is of schema {SCHEMA - 1}, and this version reads schema {SCHEMA}", True),
}


@pytest.mark.parametrize("name", DAMAGE)
def test_a_damaged_record_is_named_and_left_out(folder: Path, name: str, capsys: pytest.CaptureFixture[str]) -> None:
    results = folder.parents[2]
    assert record_folders("smoke", results) == [folder] and is_whole(folder)
    damage, said, seen = DAMAGE[name]
    damage(folder)
    assert said in fault(folder) and is_whole(folder) == (not seen)
    assert record_folders("smoke", results) == record_folders("smoke", results) == []
    (line,) = capsys.readouterr().err.splitlines()  # named once
    assert line.startswith(f"warning: record {folder} is left out: ") and said in line
    assert not is_whole(folder)  # now planning knows too


def test_weights_are_read_once_and_not_for_every_table(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[str] = []
    digest = trust.file_digest

    def note(path: Path) -> str:
        read.append(path.name)
        return digest(path)

    monkeypatch.setattr(trust, "file_digest", note)
    results = folder.parents[2]
    assert len(load_results("smoke", results)) == 1
    assert {"epochs.csv", "layers.csv", "predictions.safetensors"} <= set(read)
    assert not {"model.safetensors", "state.safetensors"} & set(read)
    flip(folder / "model.safetensors")
    assert len(load_results("smoke", results)) == 1  # its numbers are as they were
    app(["collect", "--scale", "smoke", "--results", str(results)], prog_name="spfde", standalone_mode=False)
    assert not is_whole(folder)
    assert len(load_results("smoke", results)) == 0 and not is_whole(folder)  # what was found once is not forgotten
    flip(folder / "model.safetensors")
    assert len(load_results("smoke", results)) == 1 and is_whole(folder)


@pytest.mark.parametrize("name", ["a bit", "cut short", "other samples"])
def test_a_damaged_record_is_trained_again(
    trained: Path, folder: Path, name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    DAMAGE[name][0](folder)
    record_folders("smoke", folder.parents[2])
    settings, path = resolve("smoke", TOLD), checkpoint.path_of(folder.parent, folder.name)
    path.parent.mkdir()
    path.write_bytes(b"what an earlier training left")
    train(settings, load(settings.data, None, None), folder.parent)
    assert f"warning: record {folder} is damaged" in capsys.readouterr().err
    assert not path.exists() and not fault(folder) and is_whole(folder)
    assert not (folder.parent / DAMAGED).exists()
    for file in ("epochs.csv", "layers.csv", "model.safetensors", "state.safetensors", "settings.yaml"):
        assert (folder / file).read_bytes() == (trained / file).read_bytes()


def test_an_empty_folder_that_a_workflow_made_costs_no_checkpoint(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    settings = resolve("smoke", TOLD)
    folder, path = tmp_path / settings.run_id, checkpoint.path_of(tmp_path, settings.run_id)
    with pytest.raises(Stopped):
        train(settings, load(settings.data, None, None), tmp_path, clock=Clock(limit=0))
    folder.mkdir()
    train(settings, load(settings.data, None, None), tmp_path)
    assert json.loads((folder / "summary.json").read_text())["resumed_from"] and not path.exists()
    assert "damaged" not in capsys.readouterr().err


def test_copies_leftovers_and_hidden_folders_never_count(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in (f"{folder.name}.bak", f".{folder.name}.host.1.part", ".hidden"):
        shutil.copytree(folder, folder.with_name(name))
    half = shutil.copytree(folder, folder.with_name("half"))
    (half / "summary.json").unlink()
    assert record_folders("smoke", folder.parents[2]) == [folder]
    (line,) = capsys.readouterr().err.splitlines()
    assert f"{folder.name}.bak is left out: it is a copy of {folder.name} under another name" in line


def packed(folder: Path, data: bytes) -> None:
    """Puts these bytes in place of the trace, as a published record has it, under a fitting seal."""
    (folder / "layers.csv").unlink(missing_ok=True)
    (folder / "layers.csv.gz").write_bytes(data)
    reseal(folder)


def test_a_trace_that_cannot_be_unpacked_is_damage(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = (folder / "layers.csv").read_bytes()
    packed(folder, gzip.compress(text))
    assert not fault(folder)
    broken = bytearray(gzip.compress(text))
    broken[60:120] = b"\xff" * 60
    packed(folder, bytes(broken))
    assert "it cannot be read" in fault(folder)
    packed(folder, gzip.compress(text))
    monkeypatch.setattr(trust, "LARGEST_TRACE", len(text))
    os.utime(folder / "layers.csv.gz", (1, 1))  # or what was found before would be remembered
    assert not fault(folder)
    packed(folder, gzip.compress(text + b"0,x\n" * 100_000))  # a small file that unfolds into a large one
    assert "unpacks into more than" in fault(folder)


def test_the_summary_that_a_workflow_deleted_comes_back(folder: Path) -> None:
    text = (folder / "summary.json").read_bytes()
    (folder / "summary.json").unlink()
    assert record.ending(folder) == "finished" and (folder / "summary.json").read_bytes() == text


@pytest.mark.parametrize("name", ["half a summary", "a list", "a nicer accuracy"])
def test_a_broken_summary_comes_back_and_nothing_is_trained_again(folder: Path, name: str) -> None:
    text, model = (folder / "summary.json").read_bytes(), (folder / "model.safetensors").stat().st_ino
    DAMAGE[name][0](folder)
    assert record_folders("smoke", folder.parents[2]) == []  # which notes the damage, as planning has to know
    settings = resolve("smoke", TOLD)
    train(settings, load(settings.data, None, None), folder.parent)
    assert (folder / "summary.json").read_bytes() == text and is_whole(folder)
    assert (folder / "model.safetensors").stat().st_ino == model


def test_a_full_disk_costs_no_finished_record(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The summary is put back where a workflow engine has deleted it, and the disk is full just then."""
    text = (folder / "summary.json").read_bytes()
    (folder / "summary.json").unlink()
    with monkeypatch.context() as patch:
        patch.setattr(shutil, "copyfile", no_space)
        with pytest.raises(SpfdeError, match="no space left"):
            record.ending(folder)
    assert not (folder / "summary.json").exists() and not list(folder.glob("*.part"))
    assert record.ending(folder) == "finished" and (folder / "summary.json").read_bytes() == text


def test_planning_puts_a_broken_summary_right_and_never_the_spare_wrong(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text, spare = (folder / "summary.json").read_bytes(), folder / ".summary.json"
    os.truncate(folder / "summary.json", 0)  # what a killed process, or a power cut, can leave
    with monkeypatch.context() as patch:
        patch.setattr(shutil, "copyfile", no_space)
        record.set_aside(folder)
    assert not (folder / "summary.json").exists() and spare.read_bytes() == text  # else it would count as the result
    (folder / "summary.json").write_bytes(b"")
    record.set_aside(folder)
    assert is_whole(folder) and (folder / "summary.json").read_bytes() == spare.read_bytes() == text


def test_planning_keeps_the_spare_of_a_record_that_lost_a_file(folder: Path) -> None:
    text = (folder / "summary.json").read_bytes()
    (folder / "model.safetensors").unlink()
    record.set_aside(folder)
    assert not (folder / "summary.json").exists() and (folder / ".summary.json").read_bytes() == text


def test_no_permission_is_not_damage(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "access", lambda path, mode: Path(path).name != "layers.csv")
    with pytest.raises(SpfdeError, match=r"no right to read file .*layers\.csv; change its rights"):
        record_folders("smoke", folder.parents[2])
    with pytest.raises(SpfdeError, match="no right to read"):
        record.ending(folder)
    assert folder.exists()


def test_what_is_in_a_record_beyond_its_own_files_does_not_matter(folder: Path) -> None:
    """A note that somebody put there; a renderer's cache."""
    (folder / "note.txt").write_text("the good one")
    assert not fault(folder) and is_whole(folder)


def test_every_file_is_in_the_summary(folder: Path) -> None:
    files = json.loads((folder / "summary.json").read_text())["files"]
    assert set(files) == {path.name for path in folder.iterdir()} - {"summary.json", ".summary.json"}
    model = load_file(folder / "model.safetensors")
    save_file(model, folder / "model.safetensors")  # the same weights: the same bytes, the same digest
    assert not fault(folder)
    save_file({name: value + torch.ones_like(value) for name, value in model.items()}, folder / "model.safetensors")
    assert fault(folder)
