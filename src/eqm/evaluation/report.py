"""All numbers of one set of samples, as a table, as Markdown and as JSON."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from eqm.evaluation.measures import better
from eqm.evaluation.protocol import Measurement
from eqm.evaluation.statistics import Statistics
from eqm.files import replacing

if TYPE_CHECKING:
    from rich.console import RenderableType

    from eqm.evaluation.comparison import Comparison

UNITS = {
    "±": "standard deviation over subsets or splits, or of a fitted line",
    "[ ]": "95 % confidence interval over other samples like these; for recall and coverage, over other "
    "images like those of the reference; bias is not in it",
}


@dataclass(frozen=True)
class Table:
    """Rows of text, and what they mean."""

    header: Sequence[str]
    rows: Sequence[Sequence[str]]
    caption: Mapping[str, str]
    """What each thing is."""
    notes: Sequence[str] = ()

    def __rich__(self) -> RenderableType:
        from rich import table
        from rich.console import Group
        from rich.text import Text

        first, *others = self.header
        numbers = table.Table(table.Column(first, no_wrap=True), *others, box=None, pad_edge=False)
        about = table.Table.grid(padding=(0, 2))
        for row in self.rows:
            numbers.add_row(*map(Text, row))
        for name, line in [*self.caption.items(), *(("note", note) for note in self.notes)]:
            about.add_row(Text(name, style="dim"), Text(line))
        return Group(numbers, "", about)

    def markdown(self) -> str:
        """The same in Markdown."""
        lines = [self.header, ["---"] * len(self.header), *self.rows]
        table = "\n".join(f"| {' | '.join(line)} |" for line in lines)
        about = "\n".join(f"* {name}: {line}" for name, line in self.caption.items())
        notes = "".join(f"\n* note: {note}" for note in self.notes)
        return f"{table}\n\n{about}{notes}\n"


@dataclass(frozen=True)
class Report:
    """What was measured."""

    measurements: tuple[Measurement, ...]
    floor: tuple[Measurement, ...] = ()
    """The same of real images: no samples can be told to be better than these."""
    notes: tuple[str, ...] = ()
    """What to mind, and what could not be measured."""
    reference: tuple[Statistics, ...] = field(default=(), repr=False, compare=False)
    """What the samples were compared with, through each of the features; not kept in files."""

    def __getitem__(self, name: str) -> Measurement:
        """The measurement of that name, through the first features that have it.

        Raises KeyError where there is none.
        """
        for one in self.measurements:
            if one.name == name:
                return one
        raise KeyError(name)

    def table(self) -> Table:
        """Each number beside that of real images, and how they came about."""
        real = {(one.name, one.protocol.features): one.amount for one in self.floor}
        told = caption(self.measurements)
        if self.floor:
            mine, theirs = self.measurements[0].protocol, self.floor[0].protocol
            counts = theirs.samples.count or 0, theirs.reference.count or 0
            told["real images"] = "{:,} of the reference, against its other {:,}".format(*counts)
            if min(counts) < 0.9 * min(mine.samples.count or 0, mine.reference.count or 0):
                told["real images"] += ": fewer, so that their Frechet distances have more bias"
        rows = [
            (
                *(one.name, one.amount, real.get((one.name, one.protocol.features), "")),
                better(one.name),
            )
            for one in self.measurements
        ]
        header = ("metric", "samples", "real images", "better")
        return Table(header, grouped(self.measurements, rows), {**told, **UNITS}, self.notes)

    def __rich__(self) -> Table:
        return self.table()

    def __str__(self) -> str:
        return self.table().markdown()

    def plain(self) -> dict[str, Any]:
        """All of it that JSON can hold, each number with its protocol."""
        return {
            "measurements": [one.plain() for one in self.measurements],
            "real images": [one.plain() for one in self.floor],
            "notes": self.notes,
        }


def grouped(
    measurements: Sequence[Measurement], rows: Sequence[Sequence[str]]
) -> list[Sequence[str]]:
    """The rows of measurements, and where there are several features a line above those of each."""
    lenses = [one.protocol.features for one in measurements]
    found: list[Sequence[str]] = []
    for lens, before, row in zip(lenses, [None, *lenses], rows, strict=False):
        if lens != before and len(set(lenses)) > 1:
            found.append((f"through {lens.features}", *("" for _ in row[1:])))
        found.append(row)
    return found


def caption(measurements: Sequence[Measurement]) -> dict[str, str]:
    """The protocols and settings of several measurements, each thing said once."""
    lines: dict[str, dict[str, None]] = {}
    for one in measurements:
        for name, line in one.protocol.lines().items():
            lines.setdefault(name, {})[line] = None
        if one.settings:
            lines.setdefault("settings", {})[f"{one.name}: {one.details}"] = None
    return {name: "; ".join(each) for name, each in lines.items()}


def write(found: Report | Comparison, path: Path | str) -> None:
    """Returns nothing; writes a report to a .json or .md, and the plot of a comparison to a .png too.

    Raises ValueError for another name, and OSError where it cannot be written.
    """
    path = Path(path)
    require_suffix(path, plot=not isinstance(found, Report))
    if path.suffix == ".png" and not isinstance(found, Report):
        return found.plot(path)
    text = str(found) if path.suffix == ".md" else json.dumps(found.plain(), indent=2) + "\n"
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def require_suffix(path: Path, *, plot: bool) -> None:
    """Returns nothing; raises ValueError unless a report, or a plot too, can be written there."""
    suffixes = (".json", ".md", ".png") if plot else (".json", ".md")
    if path.suffix not in suffixes:
        what = "comparison" if plot else "report"
        raise ValueError(f"a {what} is written as {' or '.join(suffixes)}; got {path}")
    if path.suffix == ".png" and find_spec("matplotlib") is None:
        raise ValueError("a plot needs matplotlib: pip install 'eqm[demo]'")
