"""All numbers of one set of samples, as a table, as Markdown and as JSON."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from eqm.evaluation.measures import BETTER
from eqm.evaluation.protocol import Measurement, Protocol, plain
from eqm.files import replacing

if TYPE_CHECKING:
    from rich.console import RenderableType

_FORMAT = {"format": "eqm-report", "version": 1}
_ARROW = {1: "higher", -1: "lower", 0: ""}


@dataclass(frozen=True)
class Report:
    """What was measured."""

    measurements: tuple[Measurement, ...]
    floor: tuple[Measurement, ...] = ()
    """The same of real images: no samples can be told to be better than these."""
    notes: tuple[str, ...] = ()
    """What to mind, and what could not be measured."""

    @property
    def protocol(self) -> Protocol:
        """What all measurements share."""
        return self.measurements[0].protocol

    def __getitem__(self, name: str) -> Measurement:
        """The measurement of that name. Raises KeyError where there is none."""
        return {one.name: one for one in self.measurements}[name]

    def rows(self) -> Iterator[tuple[str, str, str, str, str]]:
        """Name, amount, that of real images, which is better, and settings of each measurement."""
        real = {one.name: one.amount for one in self.floor}
        for one in self.measurements:
            settings = ", ".join(f"{name} {value}" for name, value in one.settings.items())
            better = _ARROW[BETTER.get(one.name, 0)]
            yield one.name, one.amount, real.get(one.name, ""), better, settings

    @property
    def caption(self) -> tuple[str, ...]:
        """The protocol and the notes; a sentence each."""
        real = (f"Real images: {self.floor[0].protocol.samples}, against "
                f"{self.floor[0].protocol.reference}.",) if self.floor else ()  # fmt: skip
        return (
            f"{str(self.protocol)[:1].upper()}{str(self.protocol)[1:]}.",
            *real,
            "± is the standard deviation over subsets, splits or a fit, [ ] the 95 % confidence "
            "interval over samples like these (recall, coverage: images like these).",
            *(f"Note: {note}." for note in self.notes),
        )

    def __str__(self) -> str:
        return self.markdown()

    def __rich__(self) -> RenderableType:
        from rich.console import Group
        from rich.table import Table
        from rich.text import Text

        table = Table(*HEADER, box=None, pad_edge=False)
        for row in self.rows():
            table.add_row(*row)
        return Group(table, *(Text(sentence) for sentence in ("", *self.caption)))

    def markdown(self) -> str:
        """A table in Markdown, its protocol below."""
        return table_in_markdown(HEADER, self.rows(), self.caption)

    def to_json(self) -> str:
        """All of it but what each sample adds; `from_json` reads it."""
        described: dict[str, Any] = {**_FORMAT, **_described(self.measurements)}
        described["floor"] = _described(self.floor) if self.floor else None
        return json.dumps({**described, "notes": self.notes}, indent=2) + "\n"

    @classmethod
    def from_json(cls, text: str) -> Report:
        """The report that `to_json` wrote. Raises ValueError for anything else."""
        try:
            told = json.loads(text)
            if {name: told[name] for name in _FORMAT} != _FORMAT:
                raise ValueError(f"format {told['format']}, version {told['version']}")
            floor = told["floor"]
            return cls(_read(told), _read(floor) if floor else (), tuple(told["notes"]))
        except (ValueError, KeyError, TypeError) as error:
            raise ValueError(f"not a report of `eqm eval` ({error}): write it again") from error

    def write(self, path: Path | str) -> None:
        """Returns nothing; writes a .json or .md. Raises ValueError for another suffix."""
        path = Path(path)
        texts = {".json": self.to_json, ".md": self.markdown}
        if path.suffix not in texts:
            raise ValueError(f"a report is written as .json or .md; got {path}")
        with replacing(path) as temporary:
            temporary.write_text(texts[path.suffix](), encoding="utf-8")


HEADER = ("metric", "samples", "real images", "better", "settings")


def table_in_markdown(
    header: tuple[str, ...], rows: Iterator[tuple[str, ...]], caption: tuple[str, ...]
) -> str:
    """A table in Markdown, its caption below."""
    lines = [header, tuple("---" for _ in header), *rows]
    table = "\n".join(f"| {' | '.join(line)} |" for line in lines)
    return table + "\n\n" + "\n\n".join(caption) + "\n"


def _described(measurements: tuple[Measurement, ...]) -> dict[str, Any]:
    return {
        "protocol": plain(measurements[0].protocol),
        "measurements": [one.plain() for one in measurements],
    }


def _read(told: Mapping[str, Any]) -> tuple[Measurement, ...]:
    protocol = Protocol.of(told["protocol"])
    return tuple(
        Measurement(
            **{**one, "interval": one["interval"] and tuple(one["interval"])}, protocol=protocol
        )
        for one in told["measurements"]
    )
