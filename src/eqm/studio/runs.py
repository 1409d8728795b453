"""Training runs below a folder: their state, log, settings and preview pictures, only read.

A run is named by an id from `find_runs`, never by a path. Links that lead out of the folder are not read.
"""

from __future__ import annotations

import os
import re
import stat
import time
import zlib
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, Literal

from eqm.files import RUN, is_locked, is_of_kind, printable
from eqm.monitor.log import NAME, parse_line, read_log
from eqm.reading import inside
from eqm.schema import read_bytes, read_json
from eqm.train.config import CHECKPOINTS

MOST_RUNS, MOST_FOLDERS, MOST_ENTRIES, DEPTH = 500, 5_000, 10_000, 3
"""Limits of a search: runs, folders, entries of one folder, and folders within one another."""
MOST_LINES = 2_000
"""Lines of a log in one answer."""
MOST_LOG, MOST_PICTURE, MOST_SETTINGS = 64 << 20, 32 << 20, 1 << 20
"""Bytes; larger files are refused."""
TAIL = 1 << 16
"""The last line of a log is looked for in its last bytes."""
RECENT = 120.0
"""Where locks cannot be read, a run counts as running so many seconds after its last line."""
_PNG = b"\x89PNG\r\n\x1a\n"
_PICTURE = re.compile(r"(\d{1,15}|latest)\.png")

State = Literal["waiting", "running", "complete", "stopped"]
"""waiting: no line in the log yet. stopped: no process trains it, and it is not complete."""


@dataclass(frozen=True)
class RunFiles:
    """The files of a run, below the folder that is watched."""

    root: Path
    run: Path

    def path(self, name: str) -> Path | None:
        """The path of a regular file of the run; None if it is missing or leads out of the folder."""
        path = self.run / name
        try:
            inside(self.root, str(path.relative_to(self.root)))
            return path if stat.S_ISREG(path.stat().st_mode) else None
        except (OSError, ValueError):
            return None

    def json(self, name: str) -> dict[str, Any]:
        """The object in a JSON file of the run; empty if it is missing, damaged or large."""
        path = self.path(name)
        try:
            if path is None or path.stat().st_size > MOST_SETTINGS:
                return {}
            found: dict[str, Any] = read_json(path, dict[str, Any])
        except (OSError, ValueError):
            return {}
        return found


def find_runs(folder: Path | str) -> dict[str, RunFiles]:
    """The runs in `folder` and up to three folders below, by id; none if it is missing.

    The id is the name of the folder. Names of folders within one another are joined by a colon.
    Links to folders are not followed.
    """
    root = Path(folder)
    found: dict[str, RunFiles] = {}
    for parts in islice(_run_folders(root), MOST_RUNS):
        name = printable(":".join(parts or (root.resolve().name,)))
        found.setdefault(name, RunFiles(root, root.joinpath(*parts)))
    return found


def _run_folders(root: Path) -> Iterator[tuple[str, ...]]:
    """The names that lead from `root` to each run, the nearest first."""
    waiting: deque[tuple[str, ...]] = deque([()])
    for _ in range(MOST_FOLDERS):
        if not waiting:
            return
        parts = waiting.popleft()
        place = root.joinpath(*parts)
        if is_of_kind(place, RUN):
            yield parts
        elif len(parts) < DEPTH:
            waiting += [(*parts, name) for name in _folders_in(place)]


def _folders_in(place: Path) -> list[str]:
    try:
        with os.scandir(place) as entries:
            return sorted(
                entry.name
                for entry in islice(entries, MOST_ENTRIES)
                if entry.is_dir(follow_symlinks=False) and not entry.name.startswith(".")
            )
    except OSError:
        return []


def describe_run(run: RunFiles) -> dict[str, Any]:
    """State and last numbers of a run, for a list.

    `total` is the number of images in all; None before the first checkpoint, which has the settings.
    `seconds_left` is an estimate of a running run. `changed` is the time of the last line, in seconds since
    1970.

    Raises OSError if the run cannot be read, as it was removed meanwhile.
    """
    last, training = _last_line(run), _training(run)
    path = run.path(NAME)
    changed = None if path is None else path.stat().st_mtime
    images = last.get("images") or 0
    total = training.get("images")
    total = total if type(total) is int and total > 0 else None
    state = _state(run, last, training, total, changed)
    if total is not None and total < images:  # the number has been raised since
        total = None
    rate = last.get("images_per_second")
    left = (total - images) / rate if state == "running" and total and rate else None
    return {
        "state": state,
        "images": images,
        "total": total,
        "loss": last.get("loss"),
        "images_per_second": rate,
        "seconds_left": left,
        "changed": changed,
        "samples": len(pictures(run)),
    }


def _state(
    run: RunFiles,
    last: dict[str, Any],
    training: dict[str, Any],
    total: int | None,
    changed: float | None,
) -> State:
    if not last:
        return "waiting"
    locked = is_locked(run.run)
    complete = total is not None and last["images"] >= total
    complete = complete or (bool(training.get("stop_after")) and _stopped_early(run))
    if locked or (locked is None and not complete and time.time() - (changed or 0) < RECENT):
        return "running"
    return "complete" if complete else "stopped"


def _training(run: RunFiles) -> dict[str, Any]:
    """The settings of a run, from its weights."""
    metadata = run.json("config.json").get("metadata")
    training = metadata.get("training") if isinstance(metadata, dict) else None
    return training if isinstance(training, dict) else {}


def _stopped_early(run: RunFiles) -> bool:
    names = (path.name for path in islice((run.run / CHECKPOINTS).glob("*.json"), MOST_ENTRIES))
    return run.json(f"{CHECKPOINTS}/{max(names, default='none')}").get("stopping") is True


def _last_line(run: RunFiles) -> dict[str, Any]:
    """The last complete line of the log; empty if there is none."""
    path = run.path(NAME)
    if path is None:
        return {}
    with path.open("rb") as file:
        file.seek(max(path.stat().st_size - TAIL, 0))
        lines = file.read(TAIL).splitlines(keepends=True)
    return next(filter(None, map(parse_line, reversed(lines))), {})


def settings_of(run: RunFiles) -> dict[str, Any]:
    """The settings of a run by name; empty before its first checkpoint."""
    return {name: value for name, value in _training(run).items() if name != "images_seen"}


def log_after(run: RunFiles, after: int) -> dict[str, Any]:
    """The lines of the log with more than `after` images, in order, at most MOST_LINES.

    `more` says whether further lines follow. `log` is the same as long as lines are only added: where it
    changes, the log was begun again or cut, and must be read from its start.

    Raises ValueError for a log of more than MOST_LOG bytes, and OSError as `describe_run`.
    """
    path = run.path(NAME)
    if path is None:
        return {"log": None, "lines": [], "more": False}
    about = path.stat()
    if about.st_size > MOST_LOG:
        raise ValueError(
            f"the log must have at most {MOST_LOG:,} bytes to be shown; it has {about.st_size:,}: "
            "read log.jsonl in the folder of the run"
        )
    with path.open("rb") as file:
        first = file.readline(TAIL)
    lines = read_log(run.run, after=after, most=MOST_LINES + 1)
    return {
        "log": f"{about.st_ino:x}-{zlib.crc32(first):08x}",
        "lines": lines[:MOST_LINES],
        "more": len(lines) > MOST_LINES,
    }


def pictures(run: RunFiles) -> list[dict[str, Any]]:
    """The preview pictures of a run, in order: their name and the images seen.

    Before the first numbered one it is latest.png, whose `images` are None.
    """
    try:
        names = sorted(
            entry.name for entry in islice((run.run / "pictures").iterdir(), MOST_ENTRIES)
        )
    except OSError:
        return []
    fitting = [name for name in names if _PICTURE.fullmatch(name)]
    numbered = [name for name in fitting if name != "latest.png"]
    found = [
        {"name": name, "images": None if name == "latest.png" else int(name[:-4])}
        for name in numbered or fitting
        if run.path(f"pictures/{name}")
    ]
    return sorted(found, key=lambda picture: picture["images"] or 0)


def picture(run: RunFiles, name: str) -> bytes | None:
    """The bytes of the preview picture `name`, a PNG file; None if the run has no such picture.

    Raises ValueError for more than MOST_PICTURE bytes, and OSError as `describe_run`."""
    path = run.path(f"pictures/{name}") if _PICTURE.fullmatch(name) else None
    content = b"" if path is None else read_bytes(path, MOST_PICTURE)
    return content if content.startswith(_PNG) else None
