"""Files are whole or absent, whoever writes them."""

import errno
import os
from pathlib import Path

import pytest

from spfde.data import load
from spfde.errors import SpfdeError, Stopped
from spfde.experiments.resolve import resolve
from spfde.files import clean_up, parse_yaml, read_yaml, writing, writing_all
from spfde.training.clock import Clock
from spfde.training.loop import train


def test_writers_with_equal_process_numbers_do_not_meet(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two machines that share a file system: each writes its own file, and the last one is there, whole."""
    monkeypatch.setattr(os, "getpid", lambda: 7)
    path = tmp_path / "table.csv"
    with writing(path) as first:
        first.write_text("first")
        with writing(path) as second:
            assert second != first
            second.write_text("second")
        assert path.read_text() == "second"
    assert path.read_text() == "first"
    assert [file.name for file in tmp_path.iterdir()] == ["table.csv"]


def test_what_a_killed_writer_left_is_removed_and_what_a_living_one_writes_is_not(tmp_path: Path) -> None:
    path = tmp_path / "table.csv"
    with writing(path) as mine:
        machine = mine.name.removeprefix(".table.csv.").partition(".")[0]
        mine.write_text("mine")
        dead, theirs, far, other = (
            tmp_path / f".{name}.part"
            for name in (
                f"table.csv.{machine}.999999999-ab",  # no process has such a number
                f"table.csv.{machine}.{os.getppid()}-ab",
                "table.csv.elsewhere.999999999-ab",
                f"table.csv2.{machine}.999999999-ab",
            )
        )
        for left in (dead, theirs, far, other):
            left.touch()
        with writing(path) as again:
            again.write_text("again")
        assert not dead.exists() and theirs.exists() and far.exists() and other.exists() and mine.exists()
        clean_up(path, everyone=True)
        assert not theirs.exists() and not far.exists() and other.exists()
        mine.write_text("mine")
    assert path.read_text() == "mine"


def test_files_that_belong_together_change_together(tmp_path: Path) -> None:
    paths = [tmp_path / name for name in ("a", "b", "c")]
    with writing_all(*paths) as temporaries:
        for temporary in temporaries:
            temporary.write_text("old")
    with pytest.raises(ZeroDivisionError), writing_all(*paths) as temporaries:
        temporaries[0].write_text("new")
        temporaries[2].write_text("new")
        raise ZeroDivisionError
    assert [path.read_text() for path in paths] == ["old"] * 3 and len(list(tmp_path.iterdir())) == 3


@pytest.mark.parametrize(
    ("kind", "says"),
    [
        ("missing", r"cannot be read \(No such file"),
        ("folder", "it is a folder"),
        ("fifo", "it is a FIFO"),
        ("device", "it is a device"),
        ("latin", "cannot be read"),
        ("large", "is larger than 4194304 bytes"),
        ("null", "is not YAML"),
        ("date", r"is not YAML \(month must be in 1..12"),
        ("digits", "is not YAML"),
        ("deep", "is nested more than 32 levels deep"),
        ("bomb", "unfolds into more than 100000 values"),
        ("itself", r"has an alias to nothing before it \(\*a\)"),
    ],
)
def test_what_cannot_be_read_is_one_line_at_once(tmp_path: Path, kind: str, says: str) -> None:
    path, lines = tmp_path / "settings.yaml", ["a0: &a0 [lol, lol, lol, lol, lol, lol, lol, lol, lol, lol]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 10)]
    texts = {
        "latin": b"name: \xe9",
        "large": b"#" * (5 << 20),
        "null": b"a: \x00",
        "date": b"a: 2001-99-99",
        "digits": b"a: " + b"9" * 10_000,
        "deep": b"[" * 100_000,
        "bomb": "\n".join(lines).encode(),
        "itself": b"a: &a [*a]",
    }
    if kind in texts:
        path.write_bytes(texts[kind])
    elif kind == "folder":
        path.mkdir()
    elif kind == "fifo":
        os.mkfifo(path)
    elif kind == "device":
        path = Path("/dev/zero")
    with pytest.raises(SpfdeError, match=f"settings .*{says}.*; mend it") as error:
        read_yaml(path, "settings", "mend it")
    assert "\n" not in str(error.value)


def test_aliases_of_a_sensible_size_are_read(tmp_path: Path) -> None:
    assert parse_yaml("a: &one {b: 1}\nc: *one\nd: [*one, *one]", "it", "") == {
        "a": {"b": 1},
        "c": {"b": 1},
        "d": [{"b": 1}, {"b": 1}],
    }


def test_what_lasts_is_on_the_disk_before_it_takes_its_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    done: list[str] = []
    sync, replace = os.fsync, os.replace

    def note_sync(file: int) -> None:
        done.append(Path(os.readlink(f"/proc/self/fd/{file}")).name.partition(".part")[0])
        sync(file)

    def note_replace(source: Path, target: Path) -> None:
        done.append("renamed")
        replace(source, target)

    monkeypatch.setattr(os, "fsync", note_sync)
    monkeypatch.setattr(os, "replace", note_replace)
    with writing(tmp_path / "cheap") as temporary:
        temporary.write_text("a")
    assert done == ["renamed"]
    with writing(tmp_path / "record", durable=True) as temporary:
        (temporary / "snapshots").mkdir(parents=True)
        for name in ("summary.json", "snapshots/epoch-0001.safetensors"):
            (temporary / name).write_text("a")
    assert done.pop() == "renamed" and {"summary.json", "snapshots", "epoch-0001.safetensors"} <= set(done[1:])

    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")  # which some file systems find out only now

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(SpfdeError, match="no space left"), writing(tmp_path / "cheap", durable=True) as temporary:
        temporary.write_text("b")
    assert (tmp_path / "cheap").read_text() == "a" and len(list(tmp_path.iterdir())) == 2


def test_records_and_checkpoints_last(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is renamed away from under a run's only copy of its state was on the disk before."""
    synced: list[str] = []
    monkeypatch.setattr("spfde.files._sync", lambda path: synced.append(path.name.split(".")[1]))
    settings = resolve("smoke", {"training.epochs": 1, "data.train_limit": 64, "training.snapshots": 1})
    with pytest.raises(Stopped):
        train(settings, load(settings.data, None, None), tmp_path, clock=Clock(limit=0))
    assert settings.run_id in synced and "epoch-0000" in synced
    synced.clear()
    train(settings, load(settings.data, None, None), tmp_path)
    assert synced[-1] == settings.run_id
