"""Files that are whole or not there: written beside, synced, then renamed."""

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
"""A disk with fewer free bytes is full: writers of tensors do not pass on why they failed."""


NOT_WRITABLE = {
    *(errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOENT),
    *(errno.ENOTDIR, errno.EISDIR, errno.EEXIST, errno.ENOTEMPTY),
}
NO_SPACE = {errno.ENOSPC, errno.EDQUOT}


class DiskFullError(OSError):
    """The disk has too little space; what was there before is as it was."""


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """A block that writes `path`, whose failures for want of space or of leave become sentences.

    Raises DiskFullError when the disk is full, OSError where the path cannot be written, and
    whatever else the block raises.
    """
    try:
        yield
    except Exception as error:
        number = getattr(error, "errno", None)
        if number in NOT_WRITABLE:
            reason = os.strerror(number)
            raise OSError(f"cannot write {path} ({reason}): choose another folder") from error
        full = number in NO_SPACE or "os error 28" in str(error)  # as safetensors says it
        if full or shutil.disk_usage(path.parent).free < FULL:
            raise DiskFullError(
                f"the disk is full: {path} was not written; free some space"
            ) from error
        raise


@contextmanager
def replacing(path: Path | str) -> Iterator[Path]:
    """A temporary path beside `path` to write to; it takes the place of `path` when the block ends.

    When the block fails, or is interrupted, the old file stays as it was and the temporary one is
    removed. Folders that are missing are made. Raises as `writing` does.
    """
    path = Path(path)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        with writing(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            temporary.touch()
            mode = temporary.stat().st_mode
            yield temporary
            temporary.chmod(mode)  # safetensors lets nobody else read its files
            with temporary.open("rb+") as file:
                os.fsync(file.fileno())
            temporary.replace(path)
            _sync_folder(path.parent)
    finally:
        with suppress(OSError):
            temporary.unlink()


@contextmanager
def new_folder(folder: Path | str) -> Iterator[Path]:
    """A temporary folder to write files into; it becomes `folder`, a new or an empty one, when the block
    ends.

    When the block fails, or is interrupted, nothing of it stays. Raises as `writing` does.
    """
    folder = Path(folder).resolve()
    temporary = folder.with_name(f".{folder.name}.{os.getpid()}.part")
    try:
        with writing(folder):
            shutil.rmtree(temporary, ignore_errors=True)  # of a process that was killed
            temporary.mkdir(parents=True)
            yield temporary
            temporary.replace(folder)
            _sync_folder(folder.parent)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def make_folder(path: Path | str) -> Path:
    """The folder `path`, made if it was not there, once something could be written into it.

    Raises OSError with a sentence otherwise: ask before long work, not after.
    """
    path = Path(path)
    with writing(path):
        path.mkdir(parents=True, exist_ok=True)
        TemporaryFile(dir=path).close()
    return path


def lock_folder(folder: Path | str) -> BinaryIO:
    """A file whose being open keeps other processes from claiming `folder`; a process that is killed
    lets go of it.

    Raises ValueError where another has claimed it. Where the system or the disk knows no locks, it
    claims nothing.
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
            f"another process is writing to {folder}: wait for its end, or choose another folder"
        ) from error
    except (ImportError, OSError):
        pass
    return file


def _sync_folder(path: Path) -> None:
    """Makes a renaming last through a power failure, where the system lets a folder be synced."""
    if os.name != "posix":
        return
    number = os.open(path, os.O_RDONLY)
    try:
        os.fsync(number)
    finally:
        os.close(number)
