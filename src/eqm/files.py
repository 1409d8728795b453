"""Writing of files and folders: complete or not at all, and never over what eqm did not write."""

from __future__ import annotations

import errno
import json
import os
import re
import shutil
import socket
import stat
import threading
import time
import zlib
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import partial
from itertools import count
from pathlib import Path
from tempfile import TemporaryFile
from weakref import WeakValueDictionary

FULL = 1 << 16
"""A disk with fewer free bytes counts as full; safetensors does not always report the reason."""
DISK_ERRORS = {
    errno.ENOSPC: ("the disk is full", "free some space"),
    errno.EDQUOT: ("the disk quota is used up", "free some space"),
    errno.EFBIG: ("the file-size limit is reached", "raise it (ulimit -f)"),
    errno.EIO: ("the disk reports an input/output error", "choose another disk"),
}
"""The errors of a disk that takes no more, and what to do."""
NAMES = (errno.ENAMETOOLONG, errno.EISDIR, errno.ELOOP)
"""Errors that another name in the same folder avoids."""
MARKER = "eqm.json"
"""The file that says what a folder is, where no other file does."""
RUN = "eqm-run"
"""The kind of the folder of a training run."""
KINDS = {
    "eqm": {"config.json": "eqm"},
    "eqm-classifier": {"config.json": "eqm-classifier"},
    "eqm-detector": {"detector.json": "eqm-detector"},
    "eqm-outliers": {"outliers.json": "eqm-outliers"},
    "eqm latents": {"manifest.json": "eqm latents"},
    RUN: {MARKER: RUN, "config.json": "eqm", "best/config.json": "eqm"},
}
"""Kinds of folders that eqm writes: their JSON files, and what each says as `format`."""
WRITTEN = (".json", ".jsonl", ".md", ".safetensors")
"""Endings of files that eqm replaces in its own folders."""
IGNORED = ("Thumbs.db", "desktop.ini", "lost+found")
"""Files of the operating system; a folder with these and hidden files alone is empty."""
MAX_MARKER = 1 << 24
"""Bytes; eqm writes no larger file of KINDS."""
STALE = 24 * 3600
"""Seconds after which a temporary folder of another machine counts as left by a killed process."""

_PART = re.compile(r"\.eqm-(?P<host>[0-9a-f]{8})-(?P<process>\d+)-\d+\.part")
_HOST = f"{zlib.crc32(socket.gethostname().encode()):08x}"
_numbers, _open = count(), set[str]()


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


class DiskFullError(OSError):
    """The disk takes no more: it is full, a quota or limit is reached, or it fails. Existing files are
    unchanged."""


def is_file_name(name: str) -> bool:
    """Whether `name` can name one file or folder on every system, inside the folder that it is put into.

    >>> is_file_name("run 1"), is_file_name("../run")
    (True, False)
    """
    plain = name.isprintable() and not set(name) & set('/\\:*?"<>|') and len(name.encode()) <= 200
    return plain and name == name.strip(" ") and not name.endswith(".") and bool(name)


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """A block that writes `path`; the failures of writing become one sentence.

    Raises DiskFullError if the disk takes no more (DISK_ERRORS), OSError if the path cannot be written,
    ValueError for a path with the character NUL, and what the block raises.
    """
    if "\0" in str(path):
        raise ValueError(f"a file name must not have the character NUL; got {str(path)!r}")
    try:
        yield
    except DiskFullError:
        raise
    except Exception as error:
        number = _disk_error(error)
        if number is None and isinstance(error, OSError) and error.errno:
            reason = os.strerror(error.errno)
            other = "name" if error.errno in NAMES else "folder"
            raise OSError(f"cannot write {path} ({reason}): choose another {other}") from error
        if number is None and not _is_full(path):
            raise
        fault, advice = DISK_ERRORS[number or errno.ENOSPC]
        raise DiskFullError(f"{fault}: {path} was not written; {advice}") from error


def _disk_error(error: BaseException | None) -> int | None:
    """The number in DISK_ERRORS of an error or of the error it came from; None for other errors."""
    while error is not None:
        number = error.errno if isinstance(error, OSError) else None
        if found := re.search(r"os error (\d+)", str(error)):  # the wording of safetensors
            number = int(found[1])
        if number in DISK_ERRORS:
            return number
        error = error.__cause__ or error.__context__
    return None


def _is_full(path: Path) -> bool:
    try:
        return shutil.disk_usage(path.parent).free < FULL
    except (OSError, ValueError):
        return False


@contextmanager
def replacing(path: Path | str) -> Iterator[Path]:
    """A temporary path to write to; it replaces `path` when the block ends.

    If the block fails or is interrupted, the old file stays and the temporary one is removed. Missing
    folders are made, links are followed, and the permissions of an old file stay. Raises as `writing`
    does, and OSError for a device, a pipe and a file that is read-only.
    """
    path = Path(path)
    with writing(path):
        target, mode = _target(path)
        target.parent.mkdir(parents=True, exist_ok=True)
        with _temporary(target.parent) as folder:
            temporary = folder / "file"
            temporary.touch()
            mode = temporary.stat().st_mode if mode is None else mode
            yield temporary
            temporary.chmod(stat.S_IMODE(mode))  # safetensors makes files private
            with temporary.open("rb+") as file:
                os.fsync(file.fileno())
            temporary.replace(target)
            _sync_folder(target.parent)


def check_file(path: Path | str) -> None:
    """Returns nothing; checks that `replacing` may write `path`, as far as that is known before.

    Raises OSError for a folder, a device, a pipe, a read-only file and a name that is too long."""
    with writing(Path(path)):
        _target(Path(path))


def _target(path: Path) -> tuple[Path, int | None]:
    """The file that `path` names or links to, and its mode, None if it is missing."""
    target = Path(os.path.realpath(path))
    try:
        mode = target.stat().st_mode
    except FileNotFoundError:
        if path.is_symlink():
            target.parent.stat()  # no folder is made where a link leads
        return target, None
    if stat.S_ISDIR(mode):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
    if not stat.S_ISREG(mode):
        raise OSError(f"cannot write {path} (a device or a pipe): choose the name of a file")
    if not mode & 0o222:
        raise OSError(f"cannot write {path} (the file is read-only): choose another name")
    return target, mode


@contextmanager
def new_folder(folder: Path | str) -> Iterator[Path]:
    """A temporary folder to write to; its files are in `folder`, new or empty before, when the block ends.

    If the block fails or is interrupted, what was written is removed. An empty folder that exists is
    filled and keeps its permissions. Raises as `writing` does, and ValueError for a folder with files.
    """
    folder = Path(folder)
    check_folder(folder)
    with writing(folder):
        target = Path(os.path.realpath(folder))
        filled = target.is_dir()
        place = target if filled else target.parent
        place.mkdir(parents=True, exist_ok=True)
        sweep(place)
        with _temporary(place) as temporary:
            yield temporary
            if filled:
                _move_all(temporary, target)
            else:
                temporary.rename(target)
                _sync_folder(target.parent)


def _move_all(source: Path, target: Path) -> None:
    moved: list[Path] = []
    try:
        for path in sorted(source.iterdir()):
            place = target / path.name
            if os.path.lexists(place):
                raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST))
            path.rename(place)
            moved.append(place)
        _sync_folder(target)
    except BaseException:
        for place in moved:
            _remove(place)
        raise


@contextmanager
def _temporary(folder: Path) -> Iterator[Path]:
    """A temporary folder in `folder`; safetensors makes files with names of its own, which stay inside."""
    path = folder / f".eqm-{_HOST}-{os.getpid()}-{next(_numbers)}.part"
    _open.add(path.name)
    try:
        _remove(path)  # left by a killed process with the same number
        path.mkdir()
        yield path
    finally:
        _remove(path)
        _open.discard(path.name)


def sweep(folder: Path | str, *, locked: bool = False) -> None:
    """Returns nothing; removes the temporary files that killed processes left in `folder`.

    Those of living processes stay. Those of other machines stay for a day, but not with `locked`, where a
    lock keeps others out of the folder.
    """
    try:
        found = [path for path in Path(folder).iterdir() if _PART.fullmatch(path.name)]
    except OSError:
        return
    for path in found:
        if path.name not in _open and _is_left(path, locked):
            _remove(path)


def _is_left(path: Path, locked: bool) -> bool:
    name = _PART.fullmatch(path.name)
    assert name is not None
    if name["host"] == _HOST:
        process = int(name["process"])
        return process == os.getpid() or not _is_alive(process)
    try:
        return locked or time.time() - path.lstat().st_mtime > STALE
    except OSError:
        return False


def _is_alive(process: int) -> bool:
    if os.name != "posix":  # there os.kill ends the process
        return True
    try:
        os.kill(process, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except OSError:
        return True
    return True


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        with suppress(OSError):
            path.unlink()


def make_folder(path: Path | str) -> Path:
    """The folder `path`, made if it is missing. Call it before long work that ends with writing.

    What killed processes left there is removed. Raises OSError if nothing can be written into the folder.
    """
    path = Path(path)
    with writing(path):
        path.mkdir(parents=True, exist_ok=True)
        TemporaryFile(dir=path).close()
    sweep(path)
    return path


def check_folder(
    folder: Path | str,
    kind: str = "",
    *,
    within: tuple[str, ...] = (),
    besides: tuple[str, ...] = (),
    name: str = "output",
) -> None:
    """Returns nothing; checks that eqm may write what `kind` of KINDS says into `folder`.

    The folder must be new, or of this kind or one of `within`, or empty except for hidden files and the
    names `besides`. Raises ValueError otherwise, naming the option `name`, or while a run is training in
    it, and OSError if the folder cannot be read.
    """
    folder = Path(folder)
    if kind != "eqm-run":  # a run locks its folder itself
        check_unlocked(folder)
    with writing(folder):
        there = sorted(path.name for path in folder.iterdir()) if folder.is_dir() else []
        if not there and folder.exists() and not folder.is_dir():
            raise ValueError(f"{name} must be a folder; {folder} is a file: choose another name")
    own = any(map(partial(is_of_kind, folder), filter(None, (kind, *within))))
    for file, said in _files_of(kind).items() if own else ():
        if _format_of(folder / file) not in (said, None):
            raise ValueError(
                f"{folder / file} is not of eqm and would be replaced: move it away, or choose another folder"
            )
    for path in (folder / file for file in there if own and file.endswith(WRITTEN)):
        if path.is_symlink():
            raise ValueError(
                f"{path} is a link, and the file behind it would be replaced: put a copy there, or choose "
                "another folder"
            )
    others = [
        file for file in there if not file.startswith(".") and file not in (*besides, *IGNORED)
    ]
    if others and not own:
        raise ValueError(
            f"{name} must be a new or an empty folder{', or one that eqm filled in the same way' * bool(kind)}; "
            f"{folder} has files in it, such as {others[0]!r}: choose another name"
        )


def claim_folder(folder: Path | str, kind: str) -> Path:
    """The folder, made if it is missing and marked as of `kind`, if `check_folder` permits it.

    Raises as `check_folder` and `make_folder` do."""
    check_folder(folder, kind)
    folder = make_folder(folder)
    if not is_of_kind(folder, kind):
        with replacing(folder / MARKER) as path:
            path.write_text(json.dumps({"format": kind}) + "\n", encoding="utf-8")
    return folder


def _files_of(kind: str) -> dict[str, str]:
    return KINDS.get(kind, {MARKER: kind} if kind else {})


def is_of_kind(folder: Path, kind: str) -> bool:
    """Whether a file of `folder` says that eqm wrote it as `kind`."""
    return any(_format_of(folder / file) == said == kind for file, said in _files_of(kind).items())


def _format_of(path: Path) -> str | None:
    """The entry `format` of a JSON file, empty if it has none; None for a missing or damaged file."""
    try:
        if not path.is_file() or path.stat().st_size > MAX_MARKER:
            return None
        found = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError):
        return None
    said = found.get("format") if isinstance(found, dict) else ""
    return said if isinstance(said, str) else ""


class FolderLock:
    """A lock on a folder, until it is closed or deleted, or the process ends."""

    def __init__(self, number: int) -> None:
        self._number: int | None = number

    @property
    def closed(self) -> bool:
        """Whether the lock has ended."""
        return self._number is None

    def close(self) -> None:
        """Ends the lock."""
        number, self._number = self._number, None
        if number is not None:
            os.close(number)

    __del__ = close


def lock_folder(folder: Path | str) -> FolderLock:
    """A lock that keeps other runs out of `folder`.

    Raises ValueError if another run holds the lock, in another process or in this one. Systems and
    disks without locks lock only against runs of this process.
    """
    path = Path(folder).resolve() / ".lock"
    with _locking:
        held = _locks.get((os.getpid(), path))
        # A second file must not be opened: closing it would end the lock of this process.
        if held is not None and not held.closed:
            raise ValueError(
                f"this process is writing to {folder} already: end or close() the other run, or choose "
                "another folder"
            )
        with writing(path):
            number = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
        lock = FolderLock(number)
        try:
            import fcntl

            fcntl.lockf(number, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except (BlockingIOError, PermissionError) as error:
            lock.close()
            raise ValueError(
                f"another process is writing to {folder}: wait until it ends, or choose another folder"
            ) from error
        except (ImportError, OSError):
            pass
        _locks[os.getpid(), path] = lock
    return lock


def check_unlocked(folder: Path | str) -> None:
    """Returns nothing. Raises ValueError if a run is writing to `folder`."""
    if (Path(folder) / ".lock").exists():
        lock_folder(folder).close()


def is_locked(folder: Path | str) -> bool | None:
    """Whether a run is writing to `folder`; None on systems and disks that cannot tell.

    It only looks: a run that begins meanwhile gets its lock."""
    path = Path(folder).resolve() / ".lock"
    with _locking:
        held = _locks.get((os.getpid(), path))
        if held is not None and not held.closed:
            return True
        if not hasattr(os, "lockf"):
            return None
        try:
            number = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
        except OSError:
            return False
        try:
            os.lockf(number, os.F_TEST, 0)
        except (BlockingIOError, PermissionError):
            return True
        except OSError:
            return None
        finally:
            os.close(number)
    return False


_locking = threading.Lock()
_locks: WeakValueDictionary[tuple[int, Path], FolderLock] = WeakValueDictionary()
"""The locks of this process: fcntl's locks are held by a process, not by a file. A fork holds none."""


def _sync_folder(path: Path) -> None:
    """Makes a rename survive a power failure, on systems that can sync a folder."""
    if os.name != "posix":
        return
    with suppress(OSError):  # the file is complete, whether or not the disk can do this
        number = os.open(path, os.O_RDONLY)
        try:
            os.fsync(number)
        finally:
            os.close(number)
