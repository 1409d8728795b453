"""The log of a run: `log.jsonl`, one line per position, and its curves (with matplotlib)."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping, Sequence
from itertools import islice
from pathlib import Path

from eqm.checks import check_path, check_range
from eqm.files import RUN, claim_folder, replacing, writing
from eqm.monitor.trackers import Tracker
from eqm.schema import parse_json, read_bytes

NAME = "log.jsonl"
MOST_BYTES = 1 << 30
"""A log with more bytes is refused."""
EARLIER = 3
"""Number of earlier curves that are drawn in grey beside the last one."""

Lines = Sequence[Mapping[str, float | None]]


class Log(Tracker):
    """A tracker that appends a line of JSON to `log.jsonl` in a folder.

    A line is an object of numbers with six digits; non-finite ones are null. `images` is the position
    and rises from line to line.
    """

    def __init__(self, folder: Path | str) -> None:
        self.path = Path(folder) / NAME

    def start(self, images: int) -> None:
        """Removes lines after `images` and damaged lines.

        Raises OSError if it cannot write, and ValueError for a folder with other files than those of a run."""
        claim_folder(self.path.parent, RUN)
        self._check()
        if not self.path.exists():
            return
        with writing(self.path):
            old = read_bytes(self.path, MOST_BYTES)
        kept = [line for line in old.splitlines(keepends=True) if _position(line) <= images]
        if b"".join(kept) != old:
            with replacing(self.path) as path:
                path.write_bytes(b"".join(kept))

    def log(self, numbers: Mapping[str, float], images: int) -> None:
        """Adds a complete line. Raises OSError if it cannot be written; then nothing is added."""
        finite = {k: float(f"{v:.6g}") if math.isfinite(v) else None for k, v in numbers.items()}
        line = (json.dumps({"images": images, **finite}) + "\n").encode()
        self._check()
        with writing(self.path), self.path.open("ab", buffering=0) as file:
            end = file.tell()
            try:
                while line:  # a disk that becomes full takes a part and then says why
                    line = line[file.write(line) :]
            except OSError:
                file.truncate(end)
                raise

    def _check(self) -> None:
        if self.path.exists() and not self.path.is_file():  # opening a pipe would wait for ever
            raise OSError(
                f"{self.path} must be a file; it is a folder, a device or a pipe: move it"
            )


def read_log(
    folder: Path | str, *, after: int = -1, most: int | None = None
) -> list[dict[str, float | None]]:
    """The lines of the log of a run with more than `after` images, in order, the first `most` or all.

    There are none if there is no log. Incomplete lines, as after a crash, are left out. Raises ValueError
    for `after` below -1, and for a log of more than MOST_BYTES.
    """
    check_path(folder=folder)
    check_range(-1, math.inf, after=after)
    path = Path(folder) / NAME
    lines = read_bytes(path, MOST_BYTES).splitlines(keepends=True) if path.exists() else []
    wanted = (line for line in lines if after < 0 or _images(line) > after)
    found = (numbers for numbers in map(parse_line, wanted) if numbers is not None)
    return list(islice((each for each in found if (each["images"] or 0) > after), most))


def _images(line: bytes) -> float:
    """The images of a line as `Log` writes it, without reading the rest; infinity for another line."""
    start = re.match(rb'\{"images": (\d{1,18})[,}]', line)
    return int(start[1]) if start else math.inf


def draw_curves(folder: Path | str, path: Path | str) -> None:
    """Returns nothing; draws the log of the run in `folder` as a PNG at `path`, with matplotlib.

    The panels: training and validation loss; validation loss by gamma; gradient norm along the path
    from noise to samples. The last two show the last values, and earlier ones in grey; a panel without
    values is left out.
    """
    from matplotlib.ticker import EngFormatter

    from eqm.plots import BLUE, GREY, RED, drawing

    lines = read_log(folder)
    profiles = []
    for name, below, title in (
        ("val_loss", "gamma, 0 noise to 1 data", "validation loss by gamma"),
        ("descent_gradient_norm", "fraction of the path", "gradient norm along the descent"),
    ):
        series = [(line["images"] or 0, row) for line in lines if (row := _row(line, name))]
        if series:
            profiles.append((series, below, title))
    with drawing(path, panels=1 + len(profiles)) as (losses, *others):
        for name, colour, mark in (("loss", BLUE, ""), ("val_loss", RED, ".")):
            points = _series(lines, name)
            if points:
                kind = {"loss": "training", "val_loss": "validation"}[name]
                losses.plot(*zip(*points, strict=True), color=colour, marker=mark, lw=1, label=kind)
        values = [value for _, value in _series(lines, "loss")]
        if values and min(values) > 0:
            losses.set_yscale("log")
        losses.xaxis.set_major_formatter(EngFormatter(sep=""))
        losses.set(xlabel="images seen", title="loss")
        if losses.lines:
            losses.legend()
        for axis, (series, below, title) in zip(others, profiles, strict=True):
            for _, row in series[-EARLIER - 1 : -1]:
                axis.plot(*zip(*row, strict=True), color=GREY, alpha=0.4, lw=1)
            images, row = series[-1]
            axis.plot(*zip(*row, strict=True), color=BLUE, label=f"{images:,} images")
            axis.set(xlabel=below, title=title, xlim=(0, 1), ylim=(0, None))
            axis.legend()


class Curves(Tracker):
    """A tracker that draws the log as `folder`/pictures/curves.png every `every` images and at the end."""

    def __init__(self, folder: Path | str, *, every: int, total: int) -> None:
        self.folder, self.every, self.total = Path(folder), every, total
        self.drawn = self.images = 0

    def start(self, images: int) -> None:
        """Continues from here."""
        self.drawn = self.images = images

    def log(self, numbers: Mapping[str, float], images: int) -> None:
        """Draws if `every` images have passed, or all."""
        self.images = images
        if images // self.every > self.drawn // self.every or images >= self.total:
            self.finish()

    def finish(self) -> None:
        """Draws if there are new numbers."""
        if self.images > self.drawn:
            self.drawn = self.images
            draw_curves(self.folder, self.folder / "pictures" / "curves.png")


def parse_line(line: bytes) -> dict[str, float | None] | None:
    """The numbers of a line; None for an incomplete or damaged one."""
    try:
        numbers: dict[str, float | None] = parse_json(line, dict[str, int | float | None], NAME)
    except ValueError:
        return None
    return numbers if line.endswith(b"\n") and isinstance(numbers.get("images"), int) else None


def _position(line: bytes) -> float:
    """The images of a line; infinity for an incomplete line."""
    numbers = parse_line(line)
    return math.inf if numbers is None else numbers["images"] or 0


def _series(lines: Lines, name: str) -> list[tuple[float, float]]:
    """Images and value of the lines with this number."""
    return [(line["images"] or 0, value) for line in lines if (value := line.get(name)) is not None]


def _row(line: Mapping[str, float | None], name: str) -> list[tuple[float, float]]:
    """The numbers of a line called `name`/place, with their places."""
    places = ((key.removeprefix(f"{name}/"), value) for key, value in line.items() if "/" in key)
    number = re.compile(r"[0-9]+(\.[0-9]+)?")
    return [(float(p), v) for p, v in places if v is not None and number.fullmatch(p)]
