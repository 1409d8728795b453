"""Measurements as rows of text, with what they mean."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from eqm.evaluation.protocol import Measurement

if TYPE_CHECKING:
    from rich.console import RenderableType


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


def grouped(
    measurements: Sequence[Measurement], rows: Sequence[Sequence[str]]
) -> list[Sequence[str]]:
    """The rows of measurements, and where there are several features a line above those of each."""
    specs = [one.protocol.features for one in measurements]
    found: list[Sequence[str]] = []
    for spec, before, row in zip(specs, [None, *specs], rows, strict=False):
        if spec != before and len(set(specs)) > 1:
            found.append((f"through {spec.features}", *("" for _ in row[1:])))
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
