"""Which commit a record names, and whether the code had changed since."""

import subprocess
from pathlib import Path

import pytest

from spfde.training import environment


def git(folder: Path, *words: str) -> str:
    who = ["-c", "user.name=a", "-c", "user.email=a@example.org", "-c", "commit.gpgsign=false"]
    done = subprocess.run(["git", "-C", str(folder), *who, *words], check=True, capture_output=True, text=True)
    return done.stdout.strip()


def test_the_commit_says_whether_the_package_has_changed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = tmp_path / "package" / "__init__.py"
    source.parent.mkdir()
    source.write_text("")
    monkeypatch.setattr(environment.spfde, "__file__", str(source))
    found = environment._commit.__wrapped__
    assert found() is None
    (tmp_path / "README").write_text("first")
    git(tmp_path, "init", "--quiet")
    git(tmp_path, "add", ".")
    git(tmp_path, "commit", "--quiet", "-m", "first")
    digest = git(tmp_path, "rev-parse", "HEAD")
    assert len(digest) == 40 and found() == digest
    (tmp_path / "README").write_text("second")  # no code
    (tmp_path / "package/cache").write_text("not tracked")
    assert found() == digest
    source.write_text("changed = True")
    assert found() == f"{digest}-dirty"


def test_a_repository_that_ignores_the_package_is_not_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The package lies in a .venv of somebody's project: that project's commit says nothing of it."""
    source = tmp_path / ".venv/lib/spfde/__init__.py"
    source.parent.mkdir(parents=True)
    source.write_text("")
    (tmp_path / ".gitignore").write_text(".venv\n")
    git(tmp_path, "init", "--quiet")
    git(tmp_path, "add", ".")
    git(tmp_path, "commit", "--quiet", "-m", "first")
    monkeypatch.setattr(environment.spfde, "__file__", str(source))
    assert environment._commit.__wrapped__() is None
