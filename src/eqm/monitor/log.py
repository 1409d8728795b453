"""`log.jsonl`, the numbers of a run, one line a position."""

from __future__ import annotations

import errno
import json
import math
import os
from collections.abc import Mapping
from pathlib import Path

from eqm.files import replacing, writing

NAME = "log.jsonl"


class Log:
    """A tracker that appends a line of JSON to `log.jsonl` in a folder.

    A line is an object of numbers; `images` says where in the run it is and rises from line to
    line. A number has six digits; one that is not finite is null.
    """

    def __init__(self, folder: Path | str) -> None:
        self.path = Path(folder) / NAME

    def start(self, images: int) -> None:
        """Drops the lines of steps that were lost, those after `images`, and what is no line; raises
        OSError when that cannot be done."""
        if not self.path.exists():
            return
        with writing(self.path):
            old = self.path.read_bytes()
        kept = [line for line in old.splitlines(keepends=True) if _position(line) <= images]
        if b"".join(kept) != old:
            with replacing(self.path) as path:
                path.write_bytes(b"".join(kept))

    def log(self, numbers: Mapping[str, float], images: int) -> None:
        """Adds a line, whole or not at all; raises OSError when it cannot be written."""
        finite = {k: float(f"{v:.6g}") if math.isfinite(v) else None for k, v in numbers.items()}
        line = (json.dumps({"images": images, **finite}) + "\n").encode()
        with writing(self.path), self.path.open("ab", buffering=0) as file:
            end = file.tell()
            if file.write(line) < len(line):  # the disk became full on the way
                file.truncate(end)
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(self.path))

    def picture(self, name: str, path: Path, images: int) -> None:
        """Nothing: the picture is in the folder."""

    def finish(self) -> None:
        """Nothing: every line is on its way to disk."""


def read_log(folder: Path | str) -> list[dict[str, float | None]]:
    """The lines of the log of a run, in order; none where there is no log.

    A last line that a crash cut short is left out.
    """
    path = Path(folder) / NAME
    lines = path.read_bytes().splitlines(keepends=True) if path.exists() else []
    return [json.loads(line) for line in lines if _position(line) < math.inf]


def _position(line: bytes) -> float:
    """The images that a line names; infinity for what is no whole line."""
    try:
        images = json.loads(line)["images"] if line.endswith(b"\n") else None
    except (ValueError, TypeError, KeyError):
        return math.inf
    return images if isinstance(images, int) else math.inf
