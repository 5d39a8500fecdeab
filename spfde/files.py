"""Files: written under a temporary name and then renamed, so that they are whole or absent; read with care.

Files from elsewhere are read with care. A FIFO or a device is refused before it is opened, because reading it might
never end; a text has a maximum size, and so has what a YAML text unfolds into, because a few aliases can stand for
gigabytes.
"""

import contextlib
import errno
import functools
import json
import os
import secrets
import shutil
import socket
import stat
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from spfde.errors import SpfdeError

if TYPE_CHECKING:
    import pandas as pd

LARGEST_TEXT = 4 << 20  # bytes of a settings or config file: a thousand times their usual size
MOST = 100_000  # values in a YAML text with its aliases unfolded; the project's own files have hundreds
DEEPEST = 32  # levels of nesting in YAML; the project's own files have five
LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # the parser written in C is ten times faster

IN_THE_WAY = {
    errno.EEXIST: "a file is where a folder should be",
    errno.ENOTDIR: "a file is where a folder should be",
    errno.EISDIR: "it is a folder",
    errno.ENAMETOOLONG: "its name is too long",
}

# writing


@contextmanager
def writing(path: Path, durable: bool = False) -> Iterator[Path]:
    """Yields a temporary path (file or folder) beside `path`, renamed onto it at the end, removed on an error.

    What a writer of the same path left behind when it was killed is removed first.

    Args:
        path: what is written.
        durable: its bytes are on the disk before it takes its place. Otherwise a power cut soon afterwards can leave an
            empty file, and what stood there before is gone.

    Raises:
        SpfdeError: no space left, no right to write there, or something else in the way.
    """
    writer = f"{_machine()}.{os.getpid()}-{secrets.token_hex(4)}"  # two threads may be at it, or two containers
    temporary = path.with_name(f".{path.name}.{writer}.part")
    with disk_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        clean_up(path)
        try:
            yield temporary
            if durable:
                _sync(temporary)
            _put(temporary, path)
        except BaseException:
            remove(temporary)
            raise


@contextmanager
def writing_all(*paths: Path) -> Iterator[list[Path]]:
    """As `writing`, for files that belong together: all of them are written whole before any takes its place."""
    with ExitStack() as stack:
        yield [stack.enter_context(writing(path)) for path in paths]


def _sync(path: Path) -> None:
    """Waits until a file, or all files of a folder, are on the disk."""
    for each in [path, *path.rglob("*")] if path.is_dir() else [path]:
        file = os.open(each, os.O_RDONLY)
        try:
            os.fsync(file)
        except OSError as error:
            if error.errno not in (errno.EINVAL, errno.ENOTSUP):  # a file system that has nothing to wait for
                raise
        finally:
            os.close(file)


def _put(temporary: Path, path: Path) -> None:
    """Renames onto the path. A folder that is there already is renamed out of the way first, and removed last."""
    if temporary.is_dir() and path.is_dir():
        old = temporary.with_suffix(".old.part")
        os.replace(path, old)
        os.replace(temporary, path)
        remove(old)
    else:
        os.replace(temporary, path)


def clean_up(path: Path, everyone: bool = False) -> None:
    """Removes the temporary files of writers of this path that were killed.

    Args:
        path: what they were writing.
        everyone: remove the files of every writer, because no other process on any machine can be writing the path now;
            otherwise only those of processes of this machine that no longer exist are removed.
    """
    for left in path.parent.glob(f".{_escaped(path.name)}.*.part"):
        machine, _, writer = left.name[len(path.name) + 2 :].removesuffix(".part").removesuffix(".old").rpartition(".")
        number = writer.partition("-")[0]
        gone = machine == _machine() and number.isdigit() and int(number) != os.getpid() and not _lives(int(number))
        if everyone or gone:
            remove(left)


def remove(path: Path) -> None:
    """Removes a file or a folder, if it is there."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        with contextlib.suppress(OSError):
            path.unlink(missing_ok=True)


def _lives(process: int) -> bool:
    try:
        os.kill(process, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:
        return True
    return True


@functools.cache
def _machine() -> str:
    """The name of this machine: process numbers are only unique on one machine, and several may share a folder."""
    return socket.gethostname().partition(".")[0] or "here"


def _escaped(name: str) -> str:
    """A name as a glob pattern that matches only this name."""
    return "".join(f"[{letter}]" if letter in "*?[" else letter for letter in name)


@contextmanager
def disk_errors(path: Path) -> Iterator[None]:
    """Turns a full disk, or a path that cannot be written, into one clear error.

    safetensors wraps the cause into its message.
    """
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
        if number in IN_THE_WAY:
            raise SpfdeError(f"cannot write {path} ({IN_THE_WAY[number]})", "choose another path") from error
        raise


def write_text(path: Path, text: str) -> None:
    with writing(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(path: Path, value: Any) -> None:
    write_text(path, json.dumps(value, indent=2, allow_nan=False) + "\n")


# reading


def check_file(path: Path, what: str, remedy: str) -> None:
    """Refuses what cannot be read as an ordinary file; opens nothing.

    Args:
        path: its path.
        what: what the file is, for the error, e.g. "settings file".
        remedy: what to do where it is missing or of another kind.

    Raises:
        SpfdeError: it is missing, a folder, a FIFO, a socket or a device, or there is no right to read it.
    """
    try:
        mode = path.stat().st_mode
        if stat.S_ISREG(mode) and not os.access(path, os.R_OK):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
    except PermissionError:
        raise SpfdeError(f"no right to read {what} {path}", "change its rights") from None
    except (OSError, ValueError) as error:  # ValueError: a null byte in the name
        raise SpfdeError(f"{what} {path} cannot be read ({_reason(error)})", remedy) from None
    kinds = {
        stat.S_IFDIR: "a folder",
        stat.S_IFIFO: "a FIFO",
        stat.S_IFCHR: "a device",
        stat.S_IFBLK: "a device",
        stat.S_IFSOCK: "a socket",
    }
    if not stat.S_ISREG(mode):
        cause = f"{what} {path} cannot be read (it is {kinds.get(stat.S_IFMT(mode), 'no file')})"
        raise SpfdeError(cause, remedy)


def read_text(path: Path, what: str, remedy: str, largest: int = LARGEST_TEXT) -> str:
    """The text of an ordinary file.

    Raises:
        SpfdeError: as `check_file`; it is larger than `largest` bytes, or no UTF-8.
    """
    check_file(path, what, remedy)
    try:
        with path.open("rb") as file:
            data = file.read(largest + 1)
        if len(data) > largest:
            raise SpfdeError(f"{what} {path} is larger than {largest} bytes", remedy)
        return data.decode("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise SpfdeError(f"{what} {path} cannot be read ({_reason(error)})", remedy) from None


def parse_yaml(text: str, what: str, remedy: str) -> Any:
    """The values of a YAML text.

    Raises:
        SpfdeError: it is not YAML, is nested too deeply, or unfolds into too much.
    """
    try:
        _check_size(text, what, remedy)
        return yaml.load(text, LOADER)
    except yaml.MarkedYAMLError as error:
        where = f", line {error.problem_mark.line + 1}" if error.problem_mark else ""
        raise SpfdeError(f"{what} is not YAML ({error.problem}{where})", remedy) from None
    except (yaml.YAMLError, ValueError, OverflowError) as error:  # a date or a number that does not exist
        raise SpfdeError(f"{what} is not YAML ({_reason(error)})", remedy) from None


def _check_size(text: str, what: str, remedy: str) -> None:
    """Refuses a text whose aliases unfold into more than `MOST` values: nine lines can stand for a billion.

    Goes through the text without building anything. An anchor's value has the size that was counted for it; so a value
    that holds itself has none yet.
    """
    sizes: dict[str, int] = {}
    open_ones: list[tuple[str | None, int]] = [(None, 0)]  # anchor and size so far of what has begun
    for event in yaml.parse(text, LOADER):
        anchor, size = getattr(event, "anchor", None), 0
        if isinstance(event, yaml.CollectionStartEvent):
            open_ones.append((anchor, 1))
            if len(open_ones) > DEEPEST:
                raise SpfdeError(f"{what} is nested more than {DEEPEST} levels deep", remedy)
            continue
        if isinstance(event, yaml.CollectionEndEvent):
            anchor, size = open_ones.pop()
        elif isinstance(event, yaml.AliasEvent):
            if anchor not in sizes:
                raise SpfdeError(f"{what} has an alias to nothing before it (*{anchor})", remedy)
            anchor, size = None, sizes[str(event.anchor)]
        elif isinstance(event, yaml.ScalarEvent):
            size = 1
        if anchor is not None:
            sizes[anchor] = size
        open_ones[-1] = (open_ones[-1][0], open_ones[-1][1] + size)
        if open_ones[-1][1] > MOST:
            raise SpfdeError(f"{what} unfolds into more than {MOST} values", remedy)


def read_yaml(path: Path, what: str, remedy: str) -> Any:
    """The values of a YAML file; None where it is empty.

    Raises:
        SpfdeError: as `read_text` and `parse_yaml`.
    """
    return parse_yaml(read_text(path, what, remedy), f"{what} {path}", remedy)


def read_json(path: Path, what: str, remedy: str, largest: int = 16 * LARGEST_TEXT) -> Any:
    """The value of a JSON file.

    Raises:
        SpfdeError: as `read_text`; it is not JSON.
    """
    try:
        return json.loads(read_text(path, what, remedy, largest))
    except (ValueError, RecursionError) as error:
        raise SpfdeError(f"{what} {path} is not JSON ({_reason(error)})", remedy) from None


def read_csv(path: Path, what: str, remedy: str, **options: Any) -> "pd.DataFrame":
    """A CSV file as a frame.

    Args:
        path: its path.
        what: what it is, for the error.
        remedy: what to do where it cannot be read.
        options: for `pandas.read_csv`.

    Raises:
        SpfdeError: as `check_file`; it is no CSV, or lacks a wanted column.
    """
    import pandas as pd  # here, since a command that reads no table shall not wait for it

    check_file(path, what, remedy)
    try:
        frame: pd.DataFrame = pd.read_csv(path, **options)
        return frame
    except (OSError, ValueError) as error:
        raise SpfdeError(f"{what} {path} cannot be read ({_reason(error)})", remedy) from None


def _reason(error: BaseException) -> str:
    """An error in a few words, on one line."""
    text = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    return (text.strip().splitlines() or [error.__class__.__name__])[0][:200]
