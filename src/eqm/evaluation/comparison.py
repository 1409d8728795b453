"""Two reports by the same protocol, side by side."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from math import hypot
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from eqm.evaluation.measures import BETTER
from eqm.evaluation.protocol import Measurement
from eqm.evaluation.report import Report, table_in_markdown
from eqm.files import replacing
from eqm.metrics import bootstrap

if TYPE_CHECKING:
    from rich.console import RenderableType

HEADER = ("metric", "A", "B", "B - A", "verdict")


@dataclass(frozen=True)
class Difference:
    """How B differs from A in one metric."""

    a: Measurement
    b: Measurement
    interval: tuple[float, float] | None
    """95 % confidence of the difference; None where nothing is known of it."""
    paired: bool
    """Whether sample k of one was compared with sample k of the other."""

    @property
    def value(self) -> float:
        """That of B less that of A."""
        return self.b.value - self.a.value

    @property
    def verdict(self) -> str:
        """Which is better, where the interval leaves no doubt."""
        sign = BETTER.get(self.a.name, 0)
        if self.interval is None or not sign:
            return ""
        low, high = self.interval
        if low <= 0 <= high:
            return "cannot tell"
        return "B is better" if (low > 0) == (sign > 0) else "A is better"


@dataclass(frozen=True)
class Comparison:
    """Two sets of samples against one reference."""

    a: Report
    b: Report
    differences: tuple[Difference, ...]

    def rows(self) -> Iterator[tuple[str, ...]]:
        """Name, amount of each, their difference with its interval, and a verdict."""
        for one in self.differences:
            text = f"{one.value:+.4g}"
            if one.interval is not None:
                text += " [{:+.4g}, {:+.4g}]".format(*one.interval)
            yield one.a.name, one.a.amount, one.b.amount, text, one.verdict

    @property
    def caption(self) -> tuple[str, ...]:
        """The protocol and what the intervals are; a sentence each."""
        paired = all(one.paired for one in self.differences if one.interval is not None)
        how = (
            "over resampled pairs: sample k of A and sample k of B"
            if paired
            else "paired where both have rows, else from the intervals of A and B as if independent"
        )
        return (
            f"A: {self.a.protocol}.",
            f"B: {self.b.protocol.samples}; all else as A.",
            f"[ ] are 95 % confidence intervals, of differences {how}. One interval in twenty misses.",
            *(f"Note: {note}." for note in dict.fromkeys((*self.a.notes, *self.b.notes))),
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
        """Both reports and the differences."""
        differences = [
            {
                "name": one.a.name,
                "difference": one.value,
                "interval": one.interval,
                "paired": one.paired,
                "verdict": one.verdict,
            }
            for one in self.differences
        ]
        both = {"a": json.loads(self.a.to_json()), "b": json.loads(self.b.to_json())}
        return (
            json.dumps(
                {"format": "eqm-comparison", "version": 1, "differences": differences, **both},
                indent=2,
            )
            + "\n"
        )

    def plot(self, path: Path | str) -> None:
        """Returns nothing; draws to a PNG by how much B is better than A, in percent of A."""
        from eqm.plots import BLUE, GREY, RED, drawing

        shown = [one for one in self.differences if BETTER.get(one.a.name) and one.a.value]
        with drawing(path) as (axes,):
            for place, one in enumerate(reversed(shown)):
                unit = 100 * BETTER[one.a.name] / abs(one.a.value)
                low, high = sorted(unit * bound for bound in one.interval or (one.value, one.value))
                colour = {"B is better": BLUE, "A is better": RED}.get(one.verdict, GREY)
                axes.plot([low, high], [place, place], color=colour)
                axes.plot(unit * one.value, place, "o", color=colour, markersize=4)
            axes.axvline(0, color=GREY, linewidth=0.8)
            axes.set_xscale("symlog", linthresh=10)
            axes.set_yticks(range(len(shown)), [one.a.name for one in reversed(shown)])
            axes.set_xlabel("% of A, to the right where B is better")
            axes.set_title(f"B: {self.b.protocol.samples.name}", loc="left")

    def write(self, path: Path | str) -> None:
        """Returns nothing; writes a .json, .md or .png. Raises ValueError for another suffix."""
        path = Path(path)
        if path.suffix == ".png":
            return self.plot(path)
        texts = {".json": self.to_json, ".md": self.markdown}
        if path.suffix not in texts:
            raise ValueError(f"a comparison is written as .json, .md or .png; got {path}")
        with replacing(path) as temporary:
            temporary.write_text(texts[path.suffix](), encoding="utf-8")


def compare(a: Report, b: Report, *, seed: int = 0) -> Comparison:
    """How the samples of `b` differ from those of `a` in every metric that both have.

    Reports just measured know what every sample adds to a number, so that sample k of one is paired
    with sample k of the other, which for models is drawn from the same noise and label. Reports that
    were read know intervals alone: they are taken for independent.

    Raises ValueError where the protocols differ in more than the samples.
    """
    differ = a.protocol.differences(b.protocol)
    if differ:
        raise ValueError(
            f"only reports by one protocol compare; these differ in {'; '.join(differ)}: measure one "
            "of them again"
        )
    others = {one.name: one for one in b.measurements}
    shared = [(one, others[one.name]) for one in a.measurements if one.name in others]
    return Comparison(a, b, tuple(_difference(*pair, seed) for pair in shared))


def _difference(a: Measurement, b: Measurement, seed: int) -> Difference:
    if a.settings != b.settings:
        raise ValueError(
            f"{a.name} was measured with {dict(a.settings)} and {dict(b.settings)}: measure one again"
        )
    value = b.value - a.value
    if a.influence is not None and b.influence is not None and len(a.influence) == len(b.influence):
        low, _, high = bootstrap(torch.mean, b.influence - a.influence, seed=seed)
        return Difference(a, b, (value + low, value + high), paired=True)
    if a.interval is not None and b.interval is not None:
        down = hypot(b.value - b.interval[0], a.interval[1] - a.value)
        up = hypot(b.interval[1] - b.value, a.value - a.interval[0])
        return Difference(a, b, (value - down, value + up), paired=False)
    return Difference(a, b, None, paired=False)

