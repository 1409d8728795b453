"""Two reports with the same protocol, side by side."""

from __future__ import annotations

from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import torch

from eqm.evaluation.protocol import Measurement, Protocol
from eqm.evaluation.report import Report, Table, settings_of, table_of
from eqm.metrics import bootstrap

_INTERVAL = (
    "95 % confidence interval; that of B - A is over pairs: sample k of A and sample k of B{}. Of 20 "
    "metrics without a true difference, about one seems to differ"
)


@dataclass(frozen=True)
class Difference:
    """The difference of A and B in one metric."""

    a: Measurement
    b: Measurement
    interval: tuple[float, float] | None
    """The 95 % confidence interval of B - A; None if the contributions of the samples are unknown."""

    @property
    def value(self) -> float:
        """B - A."""
        return self.b.value - self.a.value

    @property
    def text(self) -> str:
        """The value with its interval."""
        if self.interval is None:
            return f"{self.value:+.3g}"
        return f"{self.value:+.3g} [{self.interval[0]:+.3g}, {self.interval[1]:+.3g}]"

    @property
    def better(self) -> str:
        """A or B, whichever is better; "cannot tell" if the interval holds 0; else ""."""
        if self.interval is None or not self.a.better:
            return ""
        low, high = self.interval
        if low <= 0 <= high:
            return "cannot tell"
        return "B" if (low > 0) == (self.a.better == "higher") else "A"


@dataclass(frozen=True)
class Comparison:
    """Two sets of samples, measured against one reference."""

    a: Report
    b: Report
    differences: tuple[Difference, ...]

    def table(self) -> Table:
        """Both numbers, their difference, and which is better."""
        measurements = [one.a for one in self.differences]
        caption = settings_of(measurements)
        a, b = (report.measurements[0].protocol.samples for report in (self.a, self.b))
        seeds = a.settings.get("seeds")
        same_noise = seeds is not None and seeds == b.settings.get("seeds")
        pairs = _INTERVAL.format(", which start from the same noise" if same_noise else "")
        caption = {"A": caption.pop("samples", str(a)), "B": str(b), **caption, "[ ]": pairs}
        rows = [
            (one.a.label, f"{one.a.value:.4g}", f"{one.b.value:.4g}", one.text, one.better)
            for one in self.differences
        ]
        notes = [note for note in self.a.notes if note in self.b.notes]
        for name, report in (("A", self.a), ("B", self.b)):
            notes += [f"{name}: {note}" for note in report.notes if note not in notes]
        return table_of(measurements, ("metric", "A", "B", "B - A", "better"), rows, caption, notes)

    def __rich__(self) -> Table:
        return self.table()

    def __str__(self) -> str:
        return self.table().markdown()

    def as_dict(self) -> dict[str, Any]:
        """Everything, for JSON."""
        differences = [
            {
                "name": one.a.name,
                "features": one.a.protocol.features.features,
                "difference": one.value,
                "interval": one.interval,
                "better": one.better,
            }
            for one in self.differences
        ]
        return {"differences": differences, "A": self.a.as_dict(), "B": self.b.as_dict()}

    def plot(self, path: Path | str) -> None:
        """Returns nothing; plots to a PNG how much better B is than A, in percent of A."""
        from eqm.plots import BLUE, GREY, RED, drawing

        shown = [one for one in self.differences if one.a.better and one.a.value][::-1]
        with drawing(path) as (axes,):
            for y, one in enumerate(shown):
                unit = (100 if one.a.better == "higher" else -100) / abs(one.a.value)
                bounds = [unit * bound for bound in one.interval or ()]
                colour = {"B": BLUE, "A": RED}.get(one.better, GREY)
                axes.plot(bounds, [y] * len(bounds), color=colour)
                axes.plot(unit * one.value, y, "o", color=colour, markersize=4)
            axes.axvline(0, color=GREY, linewidth=0.8)
            axes.set_xscale("symlog", linthresh=10)
            axes.set_yticks(range(len(shown)), [one.a.label for one in shown])
            both = (report.measurements[0].protocol.samples for report in (self.b, self.a))
            names = (Path(samples.name).name for samples in both)
            axes.set_title("B: {}; A: {}".format(*names), loc="left")
            axes.set_xlabel("% of A; B is better to the right")


def compare(a: Report, b: Report, *, seed: int = 0) -> Comparison:
    """How the samples of `b` differ from those of `a`, in every metric that both reports have.

    The intervals come from a bootstrap over pairs: sample k of `a` and sample k of `b`. Two models draw
    sample k from the same noise and label.

    Raises ValueError if the protocols differ in more than the samples.
    """
    pairs = [
        (one, other)
        for one in a.measurements
        for other in b.measurements
        if (one.name, one.protocol.features) == (other.name, other.protocol.features)
    ]
    for one, other in pairs:
        _require_same_protocol(one.protocol, other.protocol)
    return Comparison(a, b, tuple(_difference(*pair, seed) for pair in pairs))


def _difference(a: Measurement, b: Measurement, seed: int) -> Difference:
    if a.influence is None or b.influence is None or len(a.influence) != len(b.influence):
        return Difference(a, b, None)
    low, _, high = bootstrap(torch.mean, b.influence - a.influence, seed=seed)
    return Difference(a, b, (b.value - a.value + low, b.value - a.value + high))


def _require_same_protocol(a: Protocol, b: Protocol) -> None:
    differ = [
        f"{one.name} ({getattr(a, one.name)} and {getattr(b, one.name)})"
        for one in fields(Protocol)
        if one.name != "samples" and getattr(a, one.name) != getattr(b, one.name)
    ]
    if a.samples.count != b.samples.count:
        differ.append(f"the number of samples ({a.samples.count} and {b.samples.count})")
    if differ:
        raise ValueError(
            f"reports can be compared only under the same protocol; these differ in {'; '.join(differ)}: "
            "measure one of them again"
        )
