"""Columns of numbers and words as the numbers that a detector of tables learns."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any, Self

import numpy as np
from msgspec import Meta

from eqm.files import printable, replacing
from eqm.naming import said
from eqm.schema import convert, read_json

FILE = "columns.json"
"""In the folder of the detector."""
MOST = 50
"""Categories that a column of words may have."""


@dataclass(frozen=True)
class Column:
    """A column that is learnt."""

    name: str
    categories: tuple[str, ...] | None = None
    """The words of a column of words, sorted; None for a column of numbers."""

    @property
    def width(self) -> int:
        """The numbers that stand for one value: one for each category."""
        return 1 if self.categories is None else len(self.categories)


@dataclass(frozen=True)
class Encoding:
    """Which columns of a table are learnt, and how words become numbers: 1 for the category, 0 for the others.

    A word that was not learnt has 0 for all of them, so its row is unlike all others.
    """

    columns: Annotated[tuple[Column, ...], Meta(min_length=1)]
    label: str | None = None
    """The column that says which rows are anomalous."""
    ignored: tuple[str, ...] = ()
    """Columns that are left out."""

    @classmethod
    def of(
        cls,
        table: Mapping[str, np.ndarray],
        *,
        label: str | None = None,
        ignored: Sequence[str] = (),
    ) -> Self:
        """The encoding of a table: columns by name, of float64 or of str.

        Raises ValueError for more than 50 categories, and if no column is left."""
        columns = []
        for name, values in table.items():
            if name == label or name in ignored:
                continue
            categories = None
            if values.dtype == object:
                categories = tuple(sorted(set(values)))
                numbers = len(categories) - len(
                    words := [w for w in categories if w and not _is_number(w)]
                )
                if len(categories) > MOST and numbers > len(categories) / 2:
                    raise ValueError(
                        f"column {printable(name)!r} has numbers and words, such as {printable(words[0][:40])!r}: "
                        "replace the words, or leave these cells empty"
                    )
                if len(categories) > MOST:
                    raise ValueError(
                        f"column {printable(name)!r} has {len(categories):,} different words, such as "
                        f"{printable(categories[-1][:40])!r}; at most {MOST} can be learnt: leave it out "
                        f"(--ignore {printable(name)}), or turn it into numbers"
                    )
            columns.append(Column(name, categories))
        if not columns:
            raise ValueError("no column is left to learn: leave fewer out")
        return cls(tuple(columns), label, tuple(ignored))

    @property
    def words(self) -> tuple[str, ...]:
        """The names of the columns of words."""
        return tuple(column.name for column in self.columns if column.categories is not None)

    def check(self, names: Sequence[str], where: object) -> None:
        """Raises ValueError unless these columns of the table `where` are those learnt, in any order. The
        label and the ignored columns may be there too."""
        learnt = [column.name for column in self.columns]
        missing = [printable(name) for name in learnt if name not in names]
        if missing:
            raise ValueError(
                f"{where} must have the columns that were learnt; it has no {said(missing[:5])}: add or "
                "rename them"
            )
        known = {*learnt, *self.ignored, self.label}
        others = [printable(name) for name in names if name not in known]
        if others:
            raise ValueError(
                f"{where} has columns that were not learnt, {said(others[:5])}: remove them, or fit again with them"
            )

    def rows(self, table: Mapping[str, np.ndarray], first: int = 1) -> np.ndarray:
        """The rows of a table as numbers, (N, D) in float64; a missing number is NaN.

        `first` is the number of the first row, for sentences. Raises ValueError for words in a column of
        numbers and for infinity."""
        parts = []
        for column in self.columns:
            values = table[column.name]
            name = printable(column.name)
            if column.categories is not None:
                parts.append(values[:, None] == np.array(column.categories, dtype=object))
                continue
            if values.dtype == object:
                place = next(k for k, word in enumerate(values) if word and not _is_number(word))
                raise ValueError(
                    f"column {name!r} must hold numbers, as it did when it was learnt; row {first + place:,} "
                    f"has {printable(values[place][:40])!r}: write a number, or leave it empty"
                )
            if np.isinf(values).any():
                row = first + int(np.isinf(values).argmax())
                raise ValueError(
                    f"column {name!r} has infinity in row {row:,}: write a number, or leave it empty"
                )
            parts.append(values[:, None])
        return np.concatenate(parts, 1).astype(np.float64)

    def by_column(self, values: np.ndarray) -> np.ndarray:
        """Values of the numbers (N, D) as those of the columns, (N, C): the largest of each column."""
        starts = np.cumsum([0, *(column.width for column in self.columns)])[:-1]
        return np.maximum.reduceat(values, starts, axis=1)

    def save(self, folder: str | os.PathLike[str]) -> None:
        """Returns nothing; writes columns.json into the folder of a detector."""
        with replacing(Path(folder) / FILE) as path:
            path.write_text(json.dumps(asdict(self), indent=2) + "\n", encoding="utf-8")

    @classmethod
    def load(cls, folder: str | os.PathLike[str]) -> Self:
        """The encoding saved in the folder of a detector. Raises ValueError if there is none, or it is damaged."""
        path, advice = Path(folder) / FILE, "fit and save the detector again"
        if not path.is_file():
            raise ValueError(f"{folder} has no {FILE}, which `eqm detect fit` writes: {advice}")
        found: Any = convert(
            read_json(path, dict[str, Any], advice=advice), cls, f"{path}: ", advice=advice
        )
        return found


def _is_number(word: str) -> bool:
    try:
        float(word)
    except ValueError:
        return False
    return True
