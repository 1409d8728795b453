"""All metrics of one set of samples, as a table or a file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from eqm.evaluation.protocol import FeatureSpec, Measurement
from eqm.evaluation.statistics import Statistics
from eqm.files import printable, replacing
from eqm.schema import json_text

if TYPE_CHECKING:
    from rich.console import RenderableType

    from eqm.evaluation.comparison import Comparison

UNITS = {
    "±": "standard deviation over subsets or splits, or of the fitted line",
    "[ ]": "95 % confidence interval over other samples of the same kind; for recall and coverage, over "
    "other reference images; it does not include bias",
}


@dataclass(frozen=True)
class Table:
    """Rows of text with a caption."""

    header: Sequence[str]
    rows: Sequence[Sequence[str]]
    caption: Mapping[str, str]
    """The settings, by name."""
    notes: Sequence[str] = ()

    def __rich__(self) -> RenderableType:
        from rich import table
        from rich.console import Group
        from rich.text import Text

        first, *others = self.header
        numbers = table.Table(
            table.Column(Text(first), no_wrap=True), *others, box=None, pad_edge=False
        )
        about = table.Table.grid(padding=(0, 2))
        for row in self.rows:
            numbers.add_row(*map(Text, row))
        for name, line in [*self.caption.items(), *(("note", note) for note in self.notes)]:
            about.add_row(Text(name, style="dim"), Text(printable(line)))
        return Group(numbers, "", about)

    def markdown(self) -> str:
        """The table in Markdown."""
        lines = [self.header, ["---"] * len(self.header), *self.rows]
        table = "\n".join(f"| {' | '.join(line)} |" for line in lines)
        about = "\n".join(f"* {name}: {printable(line)}" for name, line in self.caption.items())
        notes = "".join(f"\n* note: {printable(note)}" for note in self.notes)
        return f"{table}\n\n{about}{notes}\n"


@dataclass(frozen=True)
class Report:
    """The measurements of one set of samples."""

    measurements: tuple[Measurement, ...]
    real_images: tuple[Measurement, ...] = ()
    """The same metrics of real images in place of samples: what a perfect generator would get."""
    notes: tuple[str, ...] = ()
    """Warnings, and metrics that could not be measured."""
    reference: tuple[Statistics, ...] = field(default=(), repr=False, compare=False)
    """The statistics of the reference, one for each of the features; not saved in files."""

    def __getitem__(self, name: str) -> Measurement:
        """The measurement of that name or label, such as `frechet` or `FID`, in the first features.

        Raises KeyError if there is none.
        """
        for measurement in self.measurements:
            if name.lower() in (measurement.name, measurement.label.lower()):
                return measurement
        raise KeyError(name)

    def table(self) -> Table:
        """Each metric of the samples and of real images, with all settings."""
        real = {(one.name, one.protocol.features): one.text for one in self.real_images}
        caption = settings_of(self.measurements)
        if self.real_images:
            mine, theirs = self.measurements[0].protocol, self.real_images[0].protocol
            counts = theirs.samples.count or 0, theirs.reference.count or 0
            caption["real images"] = "{:,} of the reference, against its other {:,}".format(*counts)
            if min(counts) < 0.9 * min(mine.samples.count or 0, mine.reference.count or 0):
                caption["real images"] += "; with fewer images, Frechet distances have more bias"
        rows = [
            (one.label, one.text, real.get((one.name, one.protocol.features), ""), one.better)
            for one in self.measurements
        ]
        header = ("metric", "samples", "real images", "better")
        return table_of(self.measurements, header, rows, caption | UNITS, self.notes)

    def __rich__(self) -> Table:
        return self.table()

    def __str__(self) -> str:
        return self.table().markdown()

    def as_dict(self) -> dict[str, Any]:
        """Everything, for JSON."""
        return {
            "measurements": [one.as_dict() for one in self.measurements],
            "real images": [one.as_dict() for one in self.real_images],
            "notes": self.notes,
        }


def table_of(
    measurements: Sequence[Measurement],
    header: Sequence[str],
    rows: Sequence[Sequence[str]],
    caption: Mapping[str, str],
    notes: Sequence[str],
) -> Table:
    """The table with one row per measurement; the features are named in the header or between rows."""
    specs = [one.protocol.features for one in measurements]
    if len(set(specs)) == 1:
        header = (f"{header[0]} in {specs[0].features} features", *header[1:])
        return Table(header, rows, caption, notes)
    found: list[Sequence[str]] = []
    before: FeatureSpec | None = None
    for spec, row in zip(specs, rows, strict=True):
        if spec != before:
            found.append((f"in {spec.features} features", *("" for _ in row[1:])))
        found.append(row)
        before = spec
    return Table(header, found, caption, notes)


def settings_of(measurements: Sequence[Measurement]) -> dict[str, str]:
    """The protocols and settings of measurements, each once."""
    lines: dict[str, dict[str, None]] = {}
    for measurement in measurements:
        for name, line in measurement.protocol.lines().items():
            lines.setdefault(name, {})[line] = None
        if measurement.settings:
            lines.setdefault("settings", {})[f"{measurement.label}: {measurement.details}"] = None
    return {name: "; ".join(each) for name, each in lines.items()}


def write(found: Report | Comparison, path: Path | str) -> None:
    """Returns nothing; writes a report to a .json or .md file, or a comparison to a .png plot too.

    Raises ValueError for another suffix, and OSError if the file cannot be written.
    """
    path = Path(path)
    require_suffix(path, plot=not isinstance(found, Report))
    if path.suffix == ".png" and not isinstance(found, Report):
        return found.plot(path)
    text = str(found) if path.suffix == ".md" else json_text(found.as_dict()) + "\n"
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def require_suffix(path: Path, *, plot: bool) -> None:
    """Returns nothing; raises ValueError unless a report (or a plot, with `plot`) can be written there."""
    suffixes = (".json", ".md", ".png") if plot else (".json", ".md")
    if path.suffix not in suffixes:
        what = "comparison" if plot else "report"
        raise ValueError(f"a {what} is written as {' or '.join(suffixes)}; got {path}")
    if path.suffix == ".png" and find_spec("matplotlib") is None:
        raise ValueError("a plot needs matplotlib: pip install 'eqm[demo]'")
