"""All numbers of one set of samples."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from eqm.evaluation.measures import better
from eqm.evaluation.protocol import Measurement
from eqm.evaluation.statistics import Statistics
from eqm.evaluation.table import Table, caption, grouped

UNITS = {
    "±": "standard deviation over subsets or splits, or of a fitted line",
    "[ ]": "95 % confidence interval over other samples like these; for recall and coverage, over other "
    "images like those of the reference; bias is not in it",
}


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
