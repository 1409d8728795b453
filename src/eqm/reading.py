"""Files from outside: opened only where they are files, and read up to a limit."""

from __future__ import annotations

import io
import os
import stat
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, Generic, TypeVar

LARGEST = 128 << 20
"""Bytes of an encoded picture in an archive that are read at most."""
_EXPECTED = 256 << 20
"""Bytes that files may make eqm read or unpack without a look at how many they have themselves."""
_RATIO = 200
"""Larger files may unpack to so many times their size."""

T = TypeVar("T")


def open_regular(path: Path | str) -> io.BufferedReader:
    """The file at `path`, opened for reading.

    Raises ValueError for a folder, a device, a pipe or a socket, from which reading may never end,
    and OSError as `open` does.
    """
    path = Path(path)
    if not stat.S_ISREG(path.stat().st_mode):
        raise ValueError(
            f"{path} must be a regular file; it is a folder, a device or a pipe: give a file"
        )
    return path.open("rb")


class BoundedFile(io.BufferedReader):
    """An open file that refuses to read very much at once.

    Archives say in their headers how much to read next. Raises ValueError instead of reading more
    than 256 MiB, and as `open_regular`.
    """

    def __init__(self, path: Path | str) -> None:
        super().__init__(open_regular(path).detach())

    def read(self, count: int | None = -1) -> bytes:
        """The next `count` bytes, or all that are left."""
        if count is None or count < 0:
            count = max(os.fstat(self.fileno()).st_size - self.tell(), 0)
        if count > _EXPECTED:
            raise ValueError(f"it says that {count:,} bytes follow in one piece")
        return super().read(count)

    def __del__(self) -> None:
        with suppress(ValueError):  # it was never opened
            self.close()


def check_unpacked(what: str, packed: int, unpacked: int) -> None:
    """Raises ValueError where few bytes claim to unpack to very many, as a file made to fill the
    memory does. `what` names the file."""
    if unpacked > max(_EXPECTED, _RATIO * packed):
        raise ValueError(
            f"{what} has {packed:,} bytes and would unpack to {unpacked:,}: if that is right, store it "
            "without compression"
        )


def inside(folder: Path, name: str, *, outside: bool = False) -> Path:
    """The path of the file `name` in `folder`.

    `name` comes with the data. Raises ValueError where it leads out of the folder, by a full path,
    by `..` or by a link, unless `outside`.
    """
    path = folder / name
    # Not Path.resolve, which raises RuntimeError for links in a circle.
    if not (outside or Path(os.path.realpath(path)).is_relative_to(os.path.realpath(folder))):
        raise ValueError(
            f"{name} leads out of {folder}: copy the file into it, or set data.outside to allow that"
        )
    return path


class PerProcess(Generic[T]):
    """`make()` on the first call in each process: threads and open files do not survive a fork."""

    def __init__(self, make: Callable[[], T]) -> None:
        self.make = make
        self._made: tuple[int, T] | None = None

    def __call__(self) -> T:
        if self._made is None or self._made[0] != os.getpid():
            self._made = os.getpid(), self.make()
        return self._made[1]

    def __reduce__(self) -> tuple[Any, ...]:
        return PerProcess, (self.make,)
