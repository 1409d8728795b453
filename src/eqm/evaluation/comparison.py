"""Two reports by one protocol, side by side."""

from __future__ import annotations

from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import torch

from eqm.evaluation.measures import better
from eqm.evaluation.protocol import Measurement, Protocol
from eqm.evaluation.report import Report
from eqm.evaluation.table import Table, caption, grouped
from eqm.metrics import bootstrap

_INTERVAL = (
    "95 % confidence interval; that of B - A over pairs, sample k of A and sample k of B{}. Of twenty "
    "true differences of nothing, one will seem to be something"
)


@dataclass(frozen=True)
class Difference:
    """How B differs from A in one metric."""

    a: Measurement
    b: Measurement
    interval: tuple[float, float] | None
    """95 % confidence of the difference; None where what each sample adds is not known."""

    @property
    def value(self) -> float:
        """That of B less that of A."""
        return self.b.value - self.a.value

    @property
    def amount(self) -> str:
        """The value with its interval."""
        if self.interval is None:
            return f"{self.value:+.3g}"
        return f"{self.value:+.3g} [{self.interval[0]:+.3g}, {self.interval[1]:+.3g}]"

    @property
    def verdict(self) -> str:
        """Which is better, where the interval leaves no doubt."""
        if self.interval is None or not better(self.a.name):
            return ""
        low, high = self.interval
        if low <= 0 <= high:
            return "cannot tell"
        return "B" if (low > 0) == (better(self.a.name) == "higher") else "A"


@dataclass(frozen=True)
class Comparison:
    """Two sets of samples, measured against one reference."""

    a: Report
    b: Report
    differences: tuple[Difference, ...]

    def table(self) -> Table:
        """Both numbers, their difference, and which is better."""
        told = caption([one.a for one in self.differences])
        a, b = (report.measurements[0].protocol.samples for report in (self.a, self.b))
        seeds = a.settings.get("seeds")
        one_noise = seeds is not None and seeds == b.settings.get("seeds")
        pairs = _INTERVAL.format(", as drawn from one noise" if one_noise else "")
        told = {"A": told.pop("samples"), "B": str(b), **told, "[ ]": pairs}
        rows = grouped(
            [one.a for one in self.differences],
            [
                (one.a.name, f"{one.a.value:.4g}", f"{one.b.value:.4g}", one.amount, one.verdict)
                for one in self.differences
            ],
        )
        notes = tuple(dict.fromkeys((*self.a.notes, *self.b.notes)))
        return Table(("metric", "A", "B", "B - A", "better"), rows, told, notes)

    def __rich__(self) -> Table:
        return self.table()

    def __str__(self) -> str:
        return self.table().markdown()

    def plain(self) -> dict[str, Any]:
        """All of it that JSON can hold."""
        differences = [
            {
                "name": one.a.name,
                "features": one.a.protocol.features.features,
                "difference": one.value,
                "interval": one.interval,
                "better": one.verdict,
            }
            for one in self.differences
        ]
        return {"differences": differences, "A": self.a.plain(), "B": self.b.plain()}

    def plot(self, path: Path | str) -> None:
        """Returns nothing; draws to a PNG by how much B is better than A, in percent of A."""
        from eqm.plots import BLUE, GREY, RED, drawing

        shown = [one for one in self.differences if better(one.a.name) and one.a.value][::-1]
        with drawing(path) as (axes,):
            for place, one in enumerate(shown):
                unit = (100 if better(one.a.name) == "higher" else -100) / abs(one.a.value)
                bounds = [unit * bound for bound in one.interval or ()]
                colour = {"B": BLUE, "A": RED}.get(one.verdict, GREY)
                axes.plot(bounds, [place] * len(bounds), color=colour)
                axes.plot(unit * one.value, place, "o", color=colour, markersize=4)
            axes.axvline(0, color=GREY, linewidth=0.8)
            axes.set_xscale("symlog", linthresh=10)
            axes.set_yticks(range(len(shown)), [one.a.name for one in shown])
            both = (report.measurements[0].protocol.samples for report in (self.b, self.a))
            names = (Path(samples.name).name for samples in both)
            axes.set_title("B: {}; A: {}".format(*names), loc="left")
            axes.set_xlabel("% of A; B is better to the right")


def compare(a: Report, b: Report, *, seed: int = 0) -> Comparison:
    """How the samples of `b` differ from those of `a` in every metric that both have, with intervals by
    a bootstrap of pairs: sample k of one belongs to sample k of the other, which for models was drawn
    from the same noise and label.

    Raises ValueError where the protocols differ in more than the samples.
    """
    pairs = [
        (one, other)
        for one in a.measurements
        for other in b.measurements
        if (one.name, one.protocol.features) == (other.name, other.protocol.features)
    ]
    for one, other in pairs:
        _require_one_protocol(one.protocol, other.protocol)
    return Comparison(a, b, tuple(_difference(*pair, seed) for pair in pairs))


def _difference(a: Measurement, b: Measurement, seed: int) -> Difference:
    if a.influence is None or b.influence is None or len(a.influence) != len(b.influence):
        return Difference(a, b, None)
    low, _, high = bootstrap(torch.mean, b.influence - a.influence, seed=seed)
    return Difference(a, b, (b.value - a.value + low, b.value - a.value + high))


def _require_one_protocol(a: Protocol, b: Protocol) -> None:
    differ = [
        f"{one.name} ({getattr(a, one.name)} and {getattr(b, one.name)})"
        for one in fields(Protocol)
        if one.name != "samples" and getattr(a, one.name) != getattr(b, one.name)
    ]
    if a.samples.count != b.samples.count:
        differ.append(f"the number of samples ({a.samples.count} and {b.samples.count})")
    if differ:
        raise ValueError(
            f"only reports by one protocol compare; these differ in {'; '.join(differ)}: measure one of "
            "them again"
        )
