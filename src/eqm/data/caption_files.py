"""Captions of pictures in files: a text or JSON beside each, or a table of names and sentences."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from pathlib import PurePosixPath
from typing import Any

from eqm.data.label_files import Contents, Places, base, file_column, records_in
from eqm.data.labelling import TABLES
from eqm.files import printable
from eqm.naming import said, simple

Captions = tuple[tuple[str, ...], ...]
"""The sentences of each sample: none, one or several."""
WORDS = ("text", "caption", "captions", "prompt", "sentence", "sentences", "description", "title")
"""Columns of tables and keys of JSON that are read unasked, the first one that is there."""
ENDINGS = ("txt", "text", "caption", "prompt")
"""Endings of files of sentences, one a line, beside a picture."""
_LOOKED_AT = 100
"""Files beside pictures that are searched for captions; without one the others are not read."""
_LETTER = re.compile(r"[^\W\d_]")


def captions_beside(contents: Contents, place: str) -> tuple[Captions, tuple[str, ...]]:
    """The sentences of each picture, from the place that `DataConfig.captions` names, and notes.

    With the place `auto` it is found. Raises ValueError where there are no captions, and where two places
    differ."""
    where = contents.where
    if place == "auto":
        found = {name: some for name, some in _everywhere(contents) if any(some)}
        if not found:
            raise ValueError(
                f"{where} has no captions: put a .txt or .json beside each picture, or a metadata.csv with the "
                "columns file_name and text, or set data.captions to where they are"
            )
        (first, captions), *rest = found.items()
        for other, others in rest:
            for k, (one, two) in enumerate(zip(captions, others, strict=True)):
                if one != two:
                    raise ValueError(
                        f"{where}: the captions from {first} and from {other} differ, first for "
                        f"{printable(contents.pictures[k])}: set data.captions to the right ones"
                    )
        place = first
    else:
        captions = _asked(contents, place)
        if not any(captions):
            raise ValueError(
                f"{where} has no captions in {printable(place)}: set another data.captions"
            )
    example = next(some[0] for some in captions if some)
    note = f"{where}: the captions are those of {printable(place)}, such as {said([example])}"
    most = max(map(len, captions))
    if most > 1:
        note += f"; one of up to {most} of a picture is taken at a time"
    return captions, (note,)


def _everywhere(contents: Contents) -> list[tuple[str, Captions]]:
    """The captions in every place that is read unasked."""
    found = []
    for ending in ENDINGS:
        if ending in contents.beside and _some(contents, ending, _lines):
            found.append((ending, _beside(contents, ending, _lines)))
    for key in WORDS:
        if "json" in contents.beside and _some(contents, "json", _key(key)):
            found.append((f"json:{key}", _beside(contents, "json", _key(key))))
            break
    for name in TABLES:
        if (tables := contents.called(name)) and (some := _in_tables(contents, tables, "")):
            found.append(some)
    return found


def _asked(contents: Contents, place: str) -> Captions:
    name, _, column = place.partition(":")
    ending = name.removeprefix(".").lower()
    if ending in contents.beside:
        read = _key(column or "caption") if ending == "json" else _lines
        return _beside(contents, ending, read)
    if tables := contents.called(name):
        some = _in_tables(contents, tables, column)
        if some is None:
            raise ValueError(
                f"{contents.where}: {printable(name)} has no column of captions: set data.captions {name}:COLUMN"
            )
        return some[1]
    tables_there = sorted({base(contents.others[row]) for row in contents.tables})
    raise ValueError(
        f"{contents.where} has no captions in {printable(place)}: data.captions must be one of "
        f"{said(['auto', *sorted(contents.beside), *tables_there], most=9)}"
    )


Read = Callable[[Contents, int], tuple[str, ...]]
"""The sentences in a file beside a picture, by its number."""


def _lines(contents: Contents, row: int) -> tuple[str, ...]:
    return sentences(contents.text(row).splitlines())


def _key(key: str) -> Read:
    def read(contents: Contents, row: int) -> tuple[str, ...]:
        found = contents.json(row)
        return sentences(found.get(key)) if isinstance(found, dict) else ()

    return read


def _some(contents: Contents, ending: str, read: Read) -> bool:
    """Whether one of the first files has a caption."""
    rows = list(dict.fromkeys(contents.beside[ending].values()))[:_LOOKED_AT]
    return any(read(contents, row) for row in rows)


def _beside(contents: Contents, ending: str, read: Read) -> Captions:
    rows = contents.beside[ending]
    known = {row: read(contents, row) for row in dict.fromkeys(rows.values())}
    return tuple(known[rows[k]] if k in rows else () for k in range(len(contents.pictures)))


def _in_tables(
    contents: Contents, tables: Sequence[int], column: str
) -> tuple[str, Captions] | None:
    """The captions in tables of one name, with the name of their column; None without such a column.

    Raises ValueError for a column that was asked for and is not there."""
    places = Places(contents)
    found: list[list[str]] = [[] for _ in contents.pictures]
    used = ""
    for row in tables:
        records = records_in(contents, row)
        columns = list(dict.fromkeys(key for record in records[:100] for key in record if key))
        file = file_column(columns)
        words = [simple(column)] if column else WORDS
        known = [key for word in words for key in columns if simple(key) == word]
        if not known and column:
            raise ValueError(
                f"{contents.place(row)} has no column {printable(column)}, only {said(columns, most=9)}: set "
                "data.captions to one"
            )
        if file is None or not known:
            continue
        used = used or f"{base(contents.others[row])}:{known[0]}"
        below = PurePosixPath(contents.others[row]).parent
        for record in records:
            for k in places.of(str(record.get(file) or ""), below):
                found[k] += sentences(record.get(known[0]))
    return (used, tuple(map(tuple, found))) if used else None


def sentences(value: Any) -> tuple[str, ...]:
    """The sentences in a value of a file: a text, or a list of texts. What has no letter is none."""
    values = value if isinstance(value, list | tuple) else [value]
    texts = [re.sub(r"\s+", " ", each).strip() for each in values if isinstance(each, str)]
    return tuple(text for text in texts if _LETTER.search(text))
