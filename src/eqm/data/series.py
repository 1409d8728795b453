"""Time series of tables and arrays, cut into windows (C, L)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np
import torch
from torch import Tensor

from eqm.data.array_files import read_npy
from eqm.data.config import DataConfig
from eqm.data.source import digest
from eqm.data.tables import ENDINGS, read_table
from eqm.data.values import plain
from eqm.files import printable
from eqm.naming import said
from eqm.randomness import SampleRandom

TIMES = {"t", "time", "date", "datetime", "timestamp", "ds", "day", "month", "year", "hour"}
"""Names of columns that are hardly a measurement."""
GAP = 1.5
"""A longer way to the next row, in steps, is a gap."""
EVEN = 0.9
"""So many of the rows must follow the one before by one step."""


@dataclass(frozen=True, eq=False)
class Series:
    """T rows of C channels in the order of time: one series after the other, each cut where rows are missing."""

    name: str
    values: Tensor
    """(T, C) float64; NaN where a value is missing."""
    times: np.ndarray
    """(T,) float64: seconds since 1970 for dates, else as written; 0, 1, ... without a column of times."""
    labels: list[str]
    """The times as they are written in the file, (T,)."""
    pieces: tuple[range, ...]
    """Rows without a gap between them, all of one series."""
    columns: tuple[str, ...]
    """The names of the channels."""
    owner: tuple[str, ...] = ()
    """The name of the series of each piece; empty for one series."""
    notes: tuple[str, ...] = ()
    """Sentences that say how the file was read."""

    def starts(self, length: int, stride: int = 1) -> Tensor:
        """The first rows of windows of `length` rows without missing values, (N,)."""
        known = self.values.isfinite().all(1)
        bad = torch.cat([torch.zeros(1), (~known).double().cumsum(0)])
        found = [
            first
            for piece in self.pieces
            for first in range(piece.start, piece.stop - length + 1, stride)
        ]
        starts = torch.tensor(found, dtype=torch.int64)
        return starts[bad[starts + length] == bad[starts]] if found else starts


@dataclass(frozen=True, eq=False)
class Windows:
    """Windows (C, L) of a series as samples, which may overlap; they are cut when they are needed."""

    series: Series
    first: Tensor
    """The first row of each window, (N,)."""
    length: int
    mean: Tensor
    """Of each channel, (C,) float64."""
    std: Tensor
    """Of each channel, (C,) float64."""
    notes: tuple[str, ...] = ()
    labels: None = None
    num_classes: int = 0
    class_names: tuple[str, ...] = field(default=())
    in_memory: ClassVar[bool] = True

    @property
    def name(self) -> str:
        """The name of the series."""
        return self.series.name

    @property
    def shape(self) -> tuple[int, int]:
        """Channels and steps of a window."""
        return self.series.values.shape[1], self.length

    @property
    def metadata(self) -> dict[str, Any]:
        """Mean, standard deviation and name of each channel."""
        columns = list(self.series.columns)
        return {"mean": self.mean.tolist(), "std": self.std.tolist(), "columns": columns}

    @cached_property
    def fingerprint(self) -> str:
        """Hexadecimal digest of the values, the windows and the scale."""
        return digest(self.series.values.nan_to_num(), self.first, self.length, self.mean, self.std)

    def __len__(self) -> int:
        return len(self.first)

    @cached_property
    def _scaled(self) -> Tensor:
        return ((self.series.values - self.mean) / self.std).float()

    def batch(self, rows: Tensor, random: SampleRandom) -> Tensor:
        """The windows at `rows` (B,), (B, C, L), scaled by mean and standard deviation."""
        at = self.first[rows][:, None] + torch.arange(self.length)
        return self._scaled[at].transpose(1, 2).contiguous()

    def subset(self, rows: Tensor, labels: Any, num_classes: int, class_names: Any) -> Self:
        """The windows at `rows`."""
        return replace(self, first=self.first[rows])

    def divided(self, fraction: float) -> tuple[Self, Self]:
        """The windows before a moment and those after it; those across it are in neither.

        A share `fraction` of all rows is after it. Raises ValueError where a part would be empty."""
        last = self.first + self.length - 1
        times = torch.from_numpy(self.series.times)
        cut = _cut(self.series, fraction)
        before, after = times[last] < cut, times[self.first] >= cut
        if not before.any() or not after.any():
            raise ValueError(
                f"{self.name}: a fraction of {fraction:g} leaves no whole window of {self.length} steps in one part: "
                "set data.val_fraction so that both have some, or a smaller data.length"
            )
        return replace(self, first=self.first[before]), replace(self, first=self.first[after])


def _cut(series: Series, fraction: float) -> float:
    """The time after which a share `fraction` of all rows lies."""
    times = np.sort(series.times)
    return float(times[min(round((1 - fraction) * len(times)), len(times) - 1)])


def is_series(config: DataConfig) -> bool:
    """Whether the path is a table or an array of series, which is cut into windows."""
    path = Path(config.path)
    ending = path.suffix.lower()
    asked = bool(config.length or config.time)
    return path.is_file() and (
        ending in (".csv", ".tsv") or (ending in (".parquet", ".npy") and asked)
    )


def is_table(path: Path) -> bool:
    """Whether a file is a table, by the end of its name: .csv, .tsv or .parquet."""
    return path.is_file() and path.suffix.lower() in ENDINGS


def windows(config: DataConfig) -> Windows:
    """The series at `config.path` in windows of `config.length` steps, one every `config.stride` steps.

    Each channel is scaled to the mean 0 and the standard deviation 1 of the rows before the part for validation.
    Raises ValueError as `read_series` does, and where no window is whole.
    """
    return cut_windows(read_series(config), config)


def cut_windows(series: Series, config: DataConfig) -> Windows:
    """The windows of a series, as `windows` says."""
    for setting in ("size", "channels", "flip", "range", "layout", "labels_from", "classes"):
        if getattr(config, setting):
            raise ValueError(f"{series.name} holds time series: leave data.{setting} out")
    length = config.length
    if not length:
        raise ValueError(
            f"{series.name} holds time series: set data.length, the number of steps in a window, such as 64"
        )
    longest = max(map(len, series.pieces), default=0)
    first = series.starts(length, config.stride)
    if not len(first):
        why = f"the longest part without a gap has {longest:,} steps"
        if longest >= length:
            why = "each has missing values"
        raise ValueError(
            f"{series.name} has no whole window of {length:,} steps, as {why}: set a smaller data.length, or fill "
            "the gaps"
        )
    notes = list(series.notes)
    if missing := int((~series.values.isfinite().all(1)).sum()):
        whole = sum(
            len(range(piece.start, piece.stop - length + 1, config.stride))
            for piece in series.pieces
        )
        notes.append(
            f"{series.name}: {missing:,} rows have missing values; {whole - len(first):,} windows with "
            "them are left out"
        )
    early = series.values
    if config.val_fraction:
        early = early[torch.from_numpy(series.times < _cut(series, config.val_fraction))]
    known = early[early.isfinite().all(1)]
    known = known if len(known) else series.values[series.values.isfinite().all(1)]
    std, mean = torch.std_mean(known, 0, correction=0)
    std = torch.where(std > 1e-12 * (1 + mean.abs()), std, 1.0)
    notes.append(
        f"{series.name}: {len(first):,} windows of {length} steps; channels {said(series.columns)}, scaled to "
        "the mean 0 and the standard deviation 1; their own are stored with the weights"
    )
    return Windows(series, first, length, mean, std, tuple(notes))


def read_series(config: DataConfig) -> Series:
    """The series in a .csv, .tsv or .parquet, whose rows are moments, or in a .npy, (T,) or (T, C).

    `config.time` names the column of times: numbers, or dates as in 2024-05-31 12:00. Without it, rows are in order
    and one step apart. `config.series` names the column that says to which series a row belongs. `config.columns`
    are the channels; by default all other columns of numbers.

    Rows are put in the order of time. A step is the median way to the next row. Longer ways than 1.5 steps are
    gaps. Of rows less than half a step apart the first is taken. Notes say how often.
    Raises ValueError for times that repeat with other values, cannot be read or are mostly uneven, for text
    in a channel, infinite values, and columns that are not there.
    """
    path = Path(config.path)
    if path.suffix.lower() == ".npy":
        return _of_array(path, config)
    table = read_table(path)
    unknown = [one for one in _named(config) if one not in table.names]
    if unknown:
        raise ValueError(
            f"{path} has no column {unknown[0]!r}; it has {said(table.names, most=12)}: set data.time, data.series and "
            "data.columns to these"
        )
    return series_of(path.stem, table.columns(), config, table.notes)


def _named(config: DataConfig) -> list[str]:
    """The columns that the config names."""
    return [one for one in (config.time, config.series, *config.columns) if one]


def series_of(
    name: str, columns: Mapping[str, np.ndarray], config: DataConfig, notes: Sequence[str] = ()
) -> Series:
    """The series in the columns of a table, float64 or str, as `read_series` says."""
    if len(set(_named(config))) < len(_named(config)):
        raise ValueError(
            "data.time, data.series and data.columns must name different columns: leave one of them out"
        )
    others = [one for one in columns if one not in (config.time, config.series)]
    text = [one for one in others if columns[one].dtype == object]
    if spoilt := [one for one in config.columns if one in text]:
        raise ValueError(
            f"{name}: a channel must hold numbers; column {spoilt[0]!r} holds {_word(columns[spoilt[0]])!r}: choose "
            "others with data.columns, or correct it"
        )
    doubtful = [one for one in others if one.strip().lower() in TIMES]
    if doubtful and not config.time and not config.columns:
        raise ValueError(
            f"{name}: column {doubtful[0]!r} may be the time: set data.time {doubtful[0]}, or data.columns to the "
            "columns to learn"
        )
    notes = list(notes)
    if text and not config.columns:
        notes.append(f"{name}: columns of text are left out: {said(text)}")
    channels = config.columns or tuple(one for one in others if one not in text)
    if not channels:
        raise ValueError(f"{name} has no column of numbers beside the times: give other data")
    values = np.stack([columns[one] for one in channels], 1)
    _check(name, values)
    groups = columns[config.series] if config.series else None
    if groups is not None and groups.dtype != object:
        groups = np.array([f"{one:.15g}" for one in groups])
    if config.time:
        times, labels = _times(name, config.time, columns[config.time])
    else:
        times, labels = _counted(values)
        for one in [] if groups is None else np.unique(groups.astype(str)):
            times[groups == one] = np.arange((groups == one).sum())
    return _arranged(name, values, times, labels, groups, channels, notes)


def _check(name: str, values: np.ndarray) -> None:
    if np.isinf(values).any():
        raise ValueError(f"{name}: values must be finite; some are infinite: remove them")


def _counted(values: np.ndarray) -> tuple[np.ndarray, list[str]]:
    """The numbers of the rows as times, and as text."""
    return np.arange(len(values), dtype=np.float64), [str(row) for row in range(len(values))]


def _of_array(path: Path, config: DataConfig) -> Series:
    """The series of a .npy (T,) or (T, C), a row for each step."""
    for setting in ("time", "series", "columns"):
        if getattr(config, setting):
            raise ValueError(f"{path} is an array: leave data.{setting} out, which is for tables")
    array = plain(path.name, read_npy(path))
    if array.ndim not in (1, 2):
        raise ValueError(
            f"{path} must hold a series (T,) or (T, C) to be cut by data.length; got {array.shape}: leave "
            "data.length out if it holds windows"
        )
    values = array.astype(np.float64).reshape(len(array), -1)
    if values.shape[1] > values.shape[0]:
        raise ValueError(
            f"{path}: rows are steps and columns are channels, but there are {len(values):,} rows and "
            f"{values.shape[1]:,} columns: transpose it"
        )
    return as_series(path.stem, values)


def as_series(name: str, values: np.ndarray) -> Series:
    """Rows (T,) or (T, C), one step apart, as a series; NaN are missing. Raises ValueError for infinite values."""
    rows = np.asarray(values, np.float64)
    rows = rows.reshape(len(rows), -1)
    _check(name, rows)
    columns = tuple(f"column {k + 1}" for k in range(rows.shape[1]))
    times, labels = _counted(rows)
    return _arranged(name, rows, times, labels, None, columns, [])


def _times(table: str, name: str, cells: np.ndarray) -> tuple[np.ndarray, list[str]]:
    """The times of a column, and how they are written."""
    if cells.dtype != object:
        if not np.isfinite(cells).all():
            raise ValueError(
                f"{table}: {int((~np.isfinite(cells)).sum()):,} cells of {name!r} hold no time: remove these rows"
            )
        return cells.astype(np.float64), [f"{value:.15g}" for value in cells]
    found = np.empty(len(cells))
    for row, cell in enumerate(cells):
        try:
            if _is_number(cells[0]):
                found[row] = float(cell)
                continue
            moment = datetime.fromisoformat(cell)
        except ValueError:
            raise ValueError(
                f"{table}: times must be numbers or dates such as 2024-05-31 12:00; row {row + 1:,} of {name!r} has "
                f"{printable(cell[:40])!r}: write them so"
            ) from None
        found[row] = (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()
    return found, [str(cell) for cell in cells]


def _is_number(cell: str) -> bool:
    try:
        float(cell or "nan")
    except ValueError:
        return False
    return True


def _word(cells: np.ndarray) -> str:
    """The first cell that is no number."""
    return next((printable(cell[:40]) for cell in cells if not _is_number(cell)), "")


def _arranged(
    name: str,
    values: np.ndarray,
    times: np.ndarray,
    labels: list[str],
    groups: np.ndarray | None,
    columns: tuple[str, ...],
    notes: list[str],
) -> Series:
    """The rows in the order of time, one series after the other, cut at gaps."""
    owners: np.ndarray = np.zeros(len(times), np.int64)
    names: Sequence[str] = ("",)
    if groups is not None:
        unique, owners = np.unique(groups.astype(str), return_inverse=True)
        names = unique.tolist()
    order = np.lexsort((times, owners))
    if (order != np.arange(len(order))).any():
        notes.append(f"{name}: rows are put in the order of time")
    kept: list[np.ndarray] = []
    pieces: list[range] = []
    owner: list[str] = []
    gaps = close = uneven = copies = start = 0
    for number, one in enumerate(names):
        rows = order[owners[order] == number]
        way = np.diff(times[rows])
        equal = way == 0
        same = (values[rows][1:] == values[rows][:-1]) | (
            np.isnan(values[rows][1:]) & np.isnan(values[rows][:-1])
        )
        if (equal & ~same.all(1)).any():
            at = labels[rows[1:][equal & ~same.all(1)][0]]
            advice = "remove one of the rows"
            if groups is None:
                advice = "set data.series to the column that tells series apart, or " + advice
            raise ValueError(f"{name}: the time {at} has several rows with other values: {advice}")
        copies += int(equal.sum())
        rows = rows[np.concatenate([[True], ~equal])]
        way = np.diff(times[rows])
        if len(way):
            step = float(np.median(way))
            regular = (way > step / 2) & (way < GAP * step)
            if regular.mean() < EVEN:
                raise ValueError(
                    f"{name}: times must be even; the way to the next row is {way.min():g} to {way.max():g}, "
                    f"{step:g} in the median, and {1 - regular.mean():.0%} are far from it: bring the rows to "
                    "even times first, or leave data.time out to take each row as a step"
                )
            uneven += int(((np.abs(way / step - 1) > 0.01) & regular).sum())
            late = np.concatenate([[True], way > step / 2])
            close += int((~late).sum())
            rows = rows[late]
            breaks = np.flatnonzero(np.diff(times[rows]) >= GAP * step) + 1
        else:
            breaks = np.zeros(0, np.int64)
        gaps += len(breaks)
        for part in np.split(np.arange(start, start + len(rows)), breaks):
            if len(part):
                pieces.append(range(int(part[0]), int(part[-1]) + 1))
                owner.append(str(one))
        start += len(rows)
        kept.append(rows)
    for count, what in (
        (copies, "rows that repeat another one are left out"),
        (close, "rows less than half a step after another one are left out"),
        (uneven, "steps differ by more than 1 % from the usual one and are taken as even"),
        (gaps, "gaps in time: no window goes across them"),
    ):
        if count:
            notes.append(f"{name}: {count:,} {what}")
    chosen = np.concatenate(kept)
    return Series(
        name,
        torch.from_numpy(values[chosen]),
        times[chosen],
        [labels[row] for row in chosen],
        tuple(pieces),
        columns,
        tuple(owner) if groups is not None else (),
        tuple(notes),
    )
