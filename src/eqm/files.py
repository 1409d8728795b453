"""Atomic writing of files and folders: a temporary file is written, synced and renamed."""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from tempfile import TemporaryFile
from typing import BinaryIO

FULL = 1 << 16
"""A disk with fewer free bytes counts as full; safetensors does not always report the reason."""


NOT_WRITABLE = {
    *(errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOENT),
    *(errno.ENOTDIR, errno.EISDIR, errno.EEXIST, errno.ENOTEMPTY),
}
NO_SPACE = {errno.ENOSPC, errno.EDQUOT}


def printable(name: object) -> str:
    r"""The name of a file or a class as it is printed, in one line.

    What could change the terminal or hide a part of the name becomes an escape: control characters, line
    breaks, marks that turn the direction of writing, and bytes that are no UTF-8.

    >>> print(printable("a\x1b[31m.png"))
    a\x1b[31m.png
    """
    letters = str(name)
    if letters.isprintable():
        return letters
    return "".join(
        letter if letter.isprintable() else letter.encode("unicode_escape").decode()
        for letter in letters
    )


@contextmanager
def reading(path: Path | str, expected: str) -> Iterator[None]:
    """A block that reads `path` with a library. Whatever the library raises becomes one sentence.

    `expected` says what the file must be, such as "a whole .npz file". Keep the block small: a fault of
    eqm inside would pass for a damaged file. Raises ValueError for all that the block raises but
    MemoryError.
    """
    try:
        yield
    except MemoryError:
        raise
    except Exception as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise ValueError(f"cannot read {path} ({os.strerror(error.errno)})") from error
        raise ValueError(
            f"{path} must be {expected}; it is damaged or of another kind: replace it"
        ) from error


class DiskFullError(OSError):
    """The disk is full; existing files are unchanged."""


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """A block that writes `path`; a full disk or missing permission becomes one sentence.

    Raises DiskFullError if the disk is full, OSError if the path cannot be written, and what the block
    raises.
    """
    try:
        yield
    except Exception as error:
        number = getattr(error, "errno", None)
        if number in NOT_WRITABLE:
            reason = os.strerror(number)
            raise OSError(f"cannot write {path} ({reason}): choose another folder") from error
        full = number in NO_SPACE or "os error 28" in str(error)  # the wording of safetensors
        if full or shutil.disk_usage(path.parent).free < FULL:
            raise DiskFullError(
                f"the disk is full: {path} was not written; free some space"
            ) from error
        raise


@contextmanager
def replacing(path: Path | str) -> Iterator[Path]:
    """A temporary path to write to; it replaces `path` when the block ends.

    If the block fails or is interrupted, the old file stays and the temporary one is removed. Missing
    folders are made. Raises as `writing` does.
    """
    path = Path(path)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        with writing(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            temporary.touch()
            mode = temporary.stat().st_mode
            yield temporary
            temporary.chmod(mode)  # safetensors makes files private
            with temporary.open("rb+") as file:
                os.fsync(file.fileno())
            temporary.replace(path)
            _sync_folder(path.parent)
    finally:
        with suppress(OSError):
            temporary.unlink()


@contextmanager
def new_folder(folder: Path | str) -> Iterator[Path]:
    """A temporary folder to write to; it becomes `folder`, which is new or empty, when the block ends.

    If the block fails or is interrupted, the temporary folder is removed. Raises as `writing` does.
    """
    folder = Path(folder).resolve()
    temporary = folder.with_name(f".{folder.name}.{os.getpid()}.part")
    try:
        with writing(folder):
            shutil.rmtree(temporary, ignore_errors=True)  # left by a killed process
            temporary.mkdir(parents=True)
            yield temporary
            temporary.replace(folder)
            _sync_folder(folder.parent)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def make_folder(path: Path | str) -> Path:
    """The folder `path`, made if it is missing. Call it before long work that ends with writing.

    Raises OSError if nothing can be written into the folder.
    """
    path = Path(path)
    with writing(path):
        path.mkdir(parents=True, exist_ok=True)
        TemporaryFile(dir=path).close()
    return path


def lock_folder(folder: Path | str) -> BinaryIO:
    """An open file that locks `folder` against other processes, until it is closed or the process ends.

    Raises ValueError if another process holds the lock. Systems and disks without locks are not locked.
    """
    folder = Path(folder)
    with writing(folder / ".lock"):
        file = (folder / ".lock").open("ab")
    try:
        import fcntl

        fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except (BlockingIOError, PermissionError) as error:
        file.close()
        raise ValueError(
            f"another process is writing to {folder}: wait until it ends, or choose another folder"
        ) from error
    except (ImportError, OSError):
        pass
    return file


def _sync_folder(path: Path) -> None:
    """Makes a rename survive a power failure, on systems that can sync a folder."""
    if os.name != "posix":
        return
    number = os.open(path, os.O_RDONLY)
    try:
        os.fsync(number)
    finally:
        os.close(number)
