"""Files that are whole or not there: written beside, synced, then renamed."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def replacing(path: Path | str) -> Iterator[Path]:
    """A temporary path beside `path` to write to; it takes the place of `path` when the block ends
    well.

    When the block fails, or is interrupted, the old file stays as it was and the temporary one is
    removed. Folders that are missing are made. Raises OSError with a sentence when the disk is full
    or the folder cannot be written.
    """
    path = Path(path)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield temporary
        with temporary.open("rb+") as file:
            os.fsync(file.fileno())
        temporary.replace(path)
    except OSError as error:
        if error.errno == errno.ENOSPC:
            raise OSError(
                f"the disk is full: {path} was not written; free some space and run again"
            ) from error
        if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR, errno.EEXIST):
            raise OSError(
                f"cannot write {path} ({error.strerror}): choose a folder that can be written"
            ) from error
        raise
    finally:
        temporary.unlink(missing_ok=True)
