"""Tables of numbers and words: csv, tsv and parquet, read in parts."""

from __future__ import annotations

import csv
import io
import os
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from eqm.files import printable
from eqm.naming import said
from eqm.reading import check_unpacked, open_regular

ENDINGS = (".csv", ".tsv", ".parquet")
"""Endings of files that are tables."""
ROWS = 1 << 14
"""Rows that are read at once."""
MISSING = ("", "na", "n/a", "nan", "null", "none", "?")
"""What a missing number is written as, in small letters."""
LONGEST = 1 << 22
"""Letters of a line; a file with longer ones is no table."""
_TRUTH = {"true": 1.0, "false": 0.0}
Kind = Literal["number", "text"]


@dataclass(frozen=True)
class Table:
    """A file of rows with named columns. Only its first lines are read before you ask for rows."""

    path: Path
    names: tuple[str, ...]
    """The names of the columns."""
    notes: tuple[str, ...]
    """What the reader took for granted, one sentence each."""
    delimiter: str = ""
    """Between the cells of a line; empty for parquet."""
    header: bool = True
    """Whether the first line holds the names."""

    def chunks(
        self, rows: int = ROWS, *, text: Collection[str] = (), names: Collection[str] | None = None
    ) -> Iterator[dict[str, np.ndarray]]:
        """The columns by name, at most `rows` rows at a time: of all, or of `names`.

        A column is float64 if all of its values in these rows are numbers or missing (NaN); "true" and
        "false" are 1 and 0. It is an array of str otherwise, and always if it is named in `text`. Raises
        ValueError for a line with too few or too many cells, for lists in cells, and for a damaged file.
        """
        wanted = [name for name in self.names if names is None or name in names]
        read = self._parquet if self.path.suffix.lower() == ".parquet" else self._lines
        with _sentence(self.path):
            for columns in read(rows, wanted):
                yield {
                    name: _words(column) if name in text else _values(column)
                    for name, column in zip(wanted, columns, strict=True)
                }

    def kinds(self) -> dict[str, Kind]:
        """The kind of each column, number or text; this reads all rows.

        Raises ValueError as `chunks`, and for a table without rows."""
        text: set[str] = set()
        count = 0
        for chunk in self.chunks(names=self.names):
            text |= {name for name, values in chunk.items() if values.dtype == object}
            count += len(chunk[self.names[0]])
        if not count:
            raise ValueError(f"{self.path} has no rows: give a table with some")
        return {name: "text" if name in text else "number" for name in self.names}

    def columns(self) -> dict[str, np.ndarray]:
        """All rows, by the names of the columns: float64 or str, as `kinds` says. Raises as `kinds`."""
        text = [name for name, kind in self.kinds().items() if kind == "text"]
        parts = list(self.chunks(text=text))
        return {name: np.concatenate([part[name] for part in parts]) for name in self.names}

    def _lines(self, rows: int, wanted: Sequence[str]) -> Iterator[list[Sequence[Any]]]:
        places = [self.names.index(name) for name in wanted]
        count, cells = 0, list[list[str]]()
        with _text(self.path) as file:
            lines = _cells(file, self.delimiter)
            if self.header:
                next(lines, None)
            for line in lines:
                count += 1
                if len(line) != len(self.names):
                    raise ValueError(
                        f"{self.path} has {len(self.names)} columns; row {count:,} has {len(line)} "
                        f"cells: mend that line"
                    )
                cells.append(line)
                if len(cells) == rows:
                    yield _turned(cells, places)
                    cells = []
        if cells:
            yield _turned(cells, places)

    def _parquet(self, rows: int, wanted: Sequence[str]) -> Iterator[list[Sequence[Any]]]:
        with _parquet_file(self.path) as file:
            for batch in file.iter_batches(batch_size=rows, columns=list(wanted)):
                yield [_plain(self.path, name, batch.column(name)) for name in wanted]


def read_table(path: str | os.PathLike[str]) -> Table:
    """The table in a .csv, .tsv or .parquet file, whose rows are still to be read.

    Cells of .csv are separated by commas, or by semicolons or tabs if its first line has no comma. The first
    line has the names, unless all of its cells are numbers; then columns are called column 1, column 2, and
    so on. Parquet needs pyarrow. Raises ValueError for other files, damaged ones, empty ones, and two columns of
    one name.
    """
    path = Path(path)
    ending = path.suffix.lower()
    if ending not in ENDINGS:
        raise ValueError(f"a table must end in {said(ENDINGS)}; got {printable(path)}: convert it")
    if not path.exists():
        raise ValueError(f"there is no table {printable(path)}: check the path")
    with _sentence(path):
        if ending == ".parquet":
            with _parquet_file(path) as file:
                found = Table(path, tuple(file.schema_arrow.names), ())
        else:
            found = _csv(path, ending)
    twice = sorted({name for name in found.names if found.names.count(name) > 1})
    if twice:
        raise ValueError(f"{path} has two columns of the name {twice[0]!r}: rename one of them")
    return found


def has_pictures(path: Path) -> bool:
    """Whether a table is a parquet file with bytes, or structures of them, in a column.

    Raises as `read_table`."""
    if path.suffix.lower() != ".parquet" or not path.is_file():
        return False
    with _sentence(path), _parquet_file(path) as file:
        kinds = [str(kind) for kind in file.schema_arrow.types]
    return any("binary" in kind for kind in kinds)


def _csv(path: Path, ending: str) -> Table:
    with _text(path) as file:
        first = file.readline(LONGEST)
    choices = {"," if ending == ".csv" else "\t": 0} | dict.fromkeys(",;\t", 0)
    delimiter = next((one for one in choices if one in first), next(iter(choices)))
    notes = []
    if delimiter != next(iter(choices)):
        written = {",": "commas", ";": "semicolons", "\t": "tabs"}[delimiter]
        notes.append(f"the cells of {path} are separated by {written}")
    with _text(path) as file:
        names = next(_cells(file, delimiter), [])
    if not names:
        raise ValueError(f"{path} is empty: give a table with names of columns and rows")
    header = _numbers(names) is None
    if not header:
        notes.append(f"{path} has no line of names: its columns are called column 1, column 2, ...")
    called = tuple(
        (name.strip() if header else "") or f"column {number}"
        for number, name in enumerate(names, 1)
    )
    return Table(path, called, tuple(notes), delimiter, header)


@contextmanager
def _text(path: Path) -> Iterator[io.TextIOWrapper]:
    """The file as text: UTF-8, or UTF-16 as Excel writes it."""
    with open_regular(path) as file:
        wide = file.peek(2)[:2] in (b"\xff\xfe", b"\xfe\xff")
        yield io.TextIOWrapper(file, "utf-16" if wide else "utf-8-sig", newline="")


def _cells(file: io.TextIOWrapper, delimiter: str) -> Iterator[list[str]]:
    """The cells of each line that is not blank."""
    lines = iter(lambda: file.readline(LONGEST), "")
    return (line for line in csv.reader(lines, delimiter=delimiter) if line)


@contextmanager
def _parquet_file(path: Path) -> Iterator[Any]:
    try:
        import pyarrow as pa
        from pyarrow.parquet import ParquetFile
    except ImportError as error:
        raise ValueError("parquet needs pyarrow: pip install 'eqm[data]'") from error
    try:
        with open_regular(path) as opened, ParquetFile(opened) as file:
            about = file.metadata
            groups = [about.row_group(group) for group in range(about.num_row_groups)]
            size = max((group.total_byte_size for group in groups), default=0)
            check_unpacked(str(path), path.stat().st_size, size)
            yield file
    except pa.ArrowException as error:
        reason = str(error).splitlines()[0]
        raise ValueError(f"{path} cannot be read ({reason}): replace it") from error


@contextmanager
def _sentence(path: Path) -> Iterator[None]:
    """Turns the errors of readers into one sentence."""
    try:
        yield
    except UnicodeDecodeError as error:
        raise ValueError(
            f"{path} must be text in UTF-8 ({error.reason}): save it as UTF-8"
        ) from error
    except csv.Error as error:
        raise ValueError(f"{path} is no table ({error}): mend or replace it") from error


def _plain(path: Path, name: str, column: Any) -> Any:
    """A column of parquet as float64, or as a list of str."""
    import pyarrow as pa

    kind = column.type
    if pa.types.is_dictionary(kind):
        column = column.dictionary_decode()
        kind = column.type
    if pa.types.is_nested(kind) or pa.types.is_binary(kind) or pa.types.is_large_binary(kind):
        raise ValueError(
            f"{path}: column {name!r} holds {kind}: leave it out, or store one number each"
        )
    if pa.types.is_boolean(kind):
        column = column.cast(pa.uint8())
    if pa.types.is_temporal(kind) or pa.types.is_string(kind) or pa.types.is_large_string(kind):
        return ["" if value is None else str(value) for value in column.to_pylist()]
    return column.cast(pa.float64(), safe=False).to_numpy(zero_copy_only=False)


def _turned(cells: list[list[str]], places: Sequence[int]) -> list[Sequence[str]]:
    columns = list(zip(*cells, strict=True))
    return [columns[place] for place in places]


def _values(cells: Sequence[str] | np.ndarray) -> np.ndarray:
    """A column as numbers if all of its values are numbers or missing, as str otherwise."""
    if isinstance(cells, np.ndarray):
        return cells
    numbers = _numbers(cells)
    return _words(cells) if numbers is None else numbers


def _words(cells: Sequence[str] | np.ndarray) -> np.ndarray:
    if isinstance(cells, np.ndarray):
        cells = [f"{value:.15g}" for value in cells]
    words = np.empty(len(cells), dtype=object)
    words[:] = [cell.strip() for cell in cells]
    return words


def _numbers(cells: Sequence[str]) -> np.ndarray | None:
    for read in (float, _number):  # the fast way first
        try:
            if read is float and any("_" in cell for cell in cells):
                continue
            return np.fromiter(map(read, cells), np.float64, len(cells))
        except ValueError:
            continue
    return None


def _number(cell: str) -> float:
    """The number in a cell, NaN if it is missing. Raises ValueError for other words."""
    word = cell.strip().lower()
    if word in MISSING:
        return np.nan
    if "_" in word:  # Python takes 1_000
        raise ValueError(word)
    return _TRUTH[word] if word in _TRUTH else float(word)
