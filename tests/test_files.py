"""Files are whole or absent, whoever writes them."""

import os
from pathlib import Path

import pytest

from spfde.files import writing


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
