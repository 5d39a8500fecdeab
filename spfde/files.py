"""Files that are either whole or absent: written under a temporary name, then renamed."""

import errno
import json
import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from spfde.errors import SpfdeError


@contextmanager
def writing(path: Path) -> Iterator[Path]:
    """Yields a temporary path (file or folder) beside `path`, renamed onto it at the end, removed on an error.

    Raises:
        SpfdeError: no space left, or no right to write there.
    """
    # The number of a process is not enough: machines that share a file system, and containers, have equal ones.
    temporary = path.with_name(f".{path.name}.{os.getpid()}-{secrets.token_hex(4)}.part")
    with disk_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            yield temporary
            if temporary.is_dir() and path.is_dir():
                shutil.rmtree(path)
            os.replace(temporary, path)
        except BaseException:
            if temporary.is_dir():
                shutil.rmtree(temporary, ignore_errors=True)
            else:
                temporary.unlink(missing_ok=True)
            raise


@contextmanager
def disk_errors(path: Path) -> Iterator[None]:
    """Turns a full disk or a forbidden folder into one clear error. safetensors wraps the cause into its message."""
    try:
        yield
    except SpfdeError:
        raise
    except Exception as error:
        number = error.errno if isinstance(error, OSError) else None
        if number in (errno.ENOSPC, errno.EDQUOT) or "No space left" in str(error):
            raise SpfdeError(f"no space left to write {path}", "free some space or choose another folder") from error
        if number in (errno.EACCES, errno.EROFS, errno.EPERM):
            raise SpfdeError(f"no right to write {path}", "choose another folder or change its rights") from error
        raise


def write_text(path: Path, text: str) -> None:
    with writing(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(path: Path, value: Any) -> None:
    write_text(path, json.dumps(value, indent=2, allow_nan=False) + "\n")
