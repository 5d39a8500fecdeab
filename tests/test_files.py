"""Files are whole or absent, whoever writes them."""

import os
from pathlib import Path

import pytest

from spfde.errors import SpfdeError
from spfde.files import clean_up, parse_yaml, read_yaml, writing, writing_all


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
