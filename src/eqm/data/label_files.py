"""Labels in files beside pictures: tables of names and labels, and a file for each picture."""

from __future__ import annotations

import csv
import io
import re
import unicodedata
from collections import defaultdict
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import PurePosixPath
from typing import Any

from eqm.data.classes import contradict
from eqm.files import printable
from eqm.naming import said, simple
from eqm.schema import parse_json, shown

Label = int | str
Entries = list[tuple[str, Any]]
"""Names of files, and what a table says is their label."""
_TABLE_ENDINGS = (".csv", ".tsv", ".json", ".jsonl")
_FILE_COLUMNS = (
    *("file name", "filename", "file", "image", "img", "path", "file path", "filepath"),
    *("image path", "image name", "img name", "image id", "picture", "id", "name"),
)
_LABEL_COLUMNS = (
    *("label", "labels", "class", "class name", "classname", "category", "target", "cls"),
    *("class id", "label id", "y"),
)
_KEYS = ("label", "cls")
"""Keys of a label in a JSON file beside a picture."""
_NUMBER = re.compile(r"[+-]?\d{1,30}(\.0+)?")
_TABLE, _ROW, _MOST_TABLE = 4 << 20, 1 << 10, 128 << 20
"""Bytes that a table may have, further ones for each picture, and the most in all; more is refused."""
_MOST_BESIDE = 1 << 20
"""Bytes that a file beside one picture may have."""
_LOOKED_AT = 1_000
"""JSON files that are searched for a label; without one the others are not read."""


@dataclass(frozen=True, eq=False)
class Contents:
    """The pictures of a data set, and the files beside them."""

    where: str
    pictures: Sequence[str]
    paths: Sequence[tuple[str, ...]]
    """The folders of each picture, without those that name splits."""
    folders: Collection[tuple[str, ...]]
    """All folders, likewise, with the empty ones."""
    others: Sequence[str]
    """Files that are no pictures."""
    read: Callable[[int, int], bytes]
    """The bytes of such a file, by its number, up to a limit; ValueError for more."""
    archives: tuple[Sequence[int], Sequence[int]]
    """The numbers of the archives of pictures and of others: files of one sample are in one archive."""
    left: Sequence[str]
    """Pictures that are not read, such as those of other splits."""

    @cached_property
    def beside(self) -> Mapping[str, Mapping[int, int]]:
        """By ending, the files with the name of a picture: numbers of pictures to numbers of others."""
        mine, theirs = self.archives
        pictures: defaultdict[tuple[int, str], list[int]] = defaultdict(list)
        for k, name in enumerate(self.pictures):
            pictures[mine[k], key_of(name)[0]].append(k)
        found: defaultdict[str, dict[int, int]] = defaultdict(dict)
        for row, name in enumerate(self.others):
            key, ending = key_of(name)
            for k in pictures.get((theirs[row], key), ()):
                if ending.startswith("cls") and k in found[ending]:
                    twice = said([self.others[found[ending][k]], name])
                    raise ValueError(f"{self.where}: {twice} belong to one picture: remove one")
                found[ending][k] = row
        return found

    @cached_property
    def tables(self) -> list[int]:
        """The numbers of the files that may be tables of names and labels."""
        return [
            row
            for row, name in enumerate(self.others)
            if name.lower().endswith(_TABLE_ENDINGS) and row not in self.paired
        ]

    @cached_property
    def paired(self) -> set[int]:
        """The numbers of the files that belong to one picture."""
        return {row for rows in self.beside.values() for row in rows.values()}

    def called(self, name: str) -> list[int]:
        """The numbers of the tables of that name."""
        return [
            row
            for row in self.tables
            if name.lower() in (self.others[row].lower(), base(self.others[row]))
        ]

    def complete(self, raw: Sequence[Label | None], what: str, advice: str = "") -> list[Label]:
        """The labels, if no picture is without. Raises ValueError for one that is."""
        missing = [k for k, label in enumerate(raw) if label is None]
        if missing:
            raise ValueError(
                f"{self.where}: {len(missing):,} of {len(raw):,} pictures have no {what}, the first is "
                f"{printable(self.pictures[missing[0]])}: {advice or 'add them, or turn data.labels off'}"
            )
        return [label for label in raw if label is not None]

    def text(self, row: int, most: int = _MOST_BESIDE) -> str:
        """The text of a file that is no picture: UTF-8, or UTF-16 as Excel writes it."""
        content = self.read(row, most)
        wide = content[:2] in (b"\xff\xfe", b"\xfe\xff")
        try:
            return content.decode("utf-16" if wide else "utf-8-sig")
        except UnicodeDecodeError as error:
            raise ValueError(
                f"{self.place(row)} must be text in UTF-8 ({error.reason} at byte {error.start}): save it again"
            ) from error

    def json(self, row: int, most: int = _MOST_BESIDE) -> Any:
        """The content of a JSON file."""
        return _json(self.read(row, most), self.place(row))

    def place(self, row: int) -> str:
        """A file that is no picture, as sentences name it."""
        return f"{self.where}: {printable(self.others[row])}"


def key_of(name: str) -> tuple[str, str]:
    """The name that all files of a sample share, as in WebDataset, and the ending after it.

    It ends at the first dot that no number follows.

    >>> key_of("a/0.seg.png"), key_of("cat.12.jpg")
    (('a/0', 'seg.png'), ('cat.12', 'jpg'))
    """
    folder, slash, last = name.removeprefix("./").rpartition("/")
    first, *rest = last.split(".")
    while len(rest) > 1 and rest[0].isdecimal():
        first += f".{rest.pop(0)}"
    return f"{folder}{slash}{first}", ".".join(rest).lower()


def base(name: str) -> str:
    """The name without its folders, in lower case."""
    return PurePosixPath(name).name.lower()


def labels_beside(contents: Contents, ending: str, key: str = "") -> list[Label]:
    """The labels in the files of that ending beside the pictures; `key` is that of JSON files.

    Raises ValueError where a picture has none."""
    rows = contents.beside[ending]
    known = {row: _label_in(contents, row, ending, key) for row in dict.fromkeys(rows.values())}
    raw = [known[rows[k]] if k in rows else None for k in range(len(contents.pictures))]
    advice = f"add a .{ending} for each, or remove them all"
    return contents.complete(raw, f"label in a .{ending} file", advice)


def has_json_labels(contents: Contents) -> bool:
    """Whether one of the first JSON files beside pictures has a label."""
    rows = dict.fromkeys(contents.beside.get("json", {}).values())
    return any(_in_json(contents, row, _KEYS) is not None for row in list(rows)[:_LOOKED_AT])


def _in_json(contents: Contents, row: int, keys: Sequence[str]) -> Any:
    found = contents.json(row)
    values = [found.get(key) for key in keys] if isinstance(found, dict) else []
    return next((value for value in values if value is not None), None)


def _label_in(contents: Contents, row: int, ending: str, key: str) -> Label | None:
    """The label in a file beside a picture, or None."""
    if ending == "json":
        return _label(_in_json(contents, row, [key] if key else _KEYS), contents, row)
    text = contents.text(row).strip()
    if ending.startswith("cls") and not _NUMBER.fullmatch(text):
        raise _not_a_label(text, contents, row, "a whole number")
    return _label(text, contents, row)


def _label(value: Any, contents: Contents, row: int) -> Label | None:
    """A label of a file: a whole number, a word, or None for an empty one."""
    if value is None:
        return None
    if isinstance(value, str):
        text = unicodedata.normalize("NFC", value.strip())
        if text.lower() in ("", "nan"):  # as pandas writes what is missing
            return None
        return int(text.partition(".")[0]) if _NUMBER.fullmatch(text) else text
    whole = isinstance(value, int) or (isinstance(value, float) and value.is_integer())
    if isinstance(value, bool) or not whole:
        raise _not_a_label(value, contents, row, "a whole number or a word")
    return int(value)


def _not_a_label(value: Any, contents: Contents, row: int, expected: str) -> ValueError:
    return ValueError(
        f"{contents.where}: the label in {printable(contents.others[row])} must be {expected}; got {shown(value)}: "
        "correct it, or turn data.labels off"
    )


def labels_in_tables(
    contents: Contents, tables: Sequence[int], column: str = ""
) -> tuple[list[Label] | None, str]:
    """The labels in tables of one name, each of which names pictures below its folder; and a note.

    Without labels they are None, and the note says why. Raises ValueError where a picture has two
    labels, or some have none."""
    places, name = Places(contents), printable(base(contents.others[tables[0]]))
    raw: list[Label | None] = [None] * len(contents.pictures)
    missing: list[str] = []
    why = f"{contents.where}: {name} has no label of any of these pictures"
    for row in tables:
        entries = _entries(contents, row, column)
        if isinstance(entries, str):
            why = entries
            continue
        below = PurePosixPath(contents.others[row]).parent
        for file, value in entries:
            label = _label(value, contents, row)
            meant = places.of(file, below)
            if not meant and not places.is_left(file):
                missing.append(file)
            for k in meant:
                if raw[k] not in (None, label):
                    raise ValueError(
                        f"{contents.where}: {name} has two labels for {printable(contents.pictures[k])}: "
                        f"{raw[k]} and {label}: remove one"
                    )
                raw[k] = label
    if all(label is None for label in raw):
        return None, why
    note = f"{contents.where}: {name} names pictures that are not there ({len(missing):,}), {said(missing)}"
    return contents.complete(raw, f"label in {name}"), note if missing else ""


class Places:
    """Finds pictures by the names that tables have for them."""

    def __init__(self, contents: Contents) -> None:
        self.full: defaultdict[str, list[int]] = defaultdict(list)
        self.base: defaultdict[str, list[int]] = defaultdict(list)
        self.stem: defaultdict[str, list[int]] = defaultdict(list)
        self.paths = [_path(name) for name in contents.pictures]
        left = [_path(name) for name in contents.left]
        self.left = {path.name for path in left} | {path.stem for path in left}
        for k, path in enumerate(self.paths):
            self.full[str(path)].append(k)
            self.base[path.name].append(k)
            self.stem[path.stem].append(k)

    def is_left(self, file: str) -> bool:
        """Whether `file` is a picture that is not read."""
        return _path(file.strip()).name in self.left

    def of(self, file: str, below: PurePosixPath) -> list[int]:
        """The pictures that `file` means in a table in the folder `below`; more than one is none."""
        name = _path(file.strip())
        full = self.full.get(str(below / name))
        if full or len(name.parts) > 1:
            return full or []
        for known in (self.base, self.stem):
            found = [k for k in known.get(str(name), ()) if self.paths[k].is_relative_to(below)]
            if found:
                return found if len(found) == 1 else []
        return []


def _path(name: str) -> PurePosixPath:
    return PurePosixPath(unicodedata.normalize("NFC", name.replace("\\", "/")))


def _entries(contents: Contents, row: int, column: str) -> Entries | str:
    """The pairs of file and label in a table, or a sentence that says why there are none."""
    pictures = len(contents.pictures) + len(contents.left)
    most = min(_TABLE + _ROW * pictures, _MOST_TABLE)
    ending = PurePosixPath(base(contents.others[row])).suffix
    place = contents.place(row)
    if ending == ".jsonl":
        lines = contents.text(row, most).splitlines()
        records = [_json(line, place) for line in lines if line.strip()]
        return _of_records(records, contents, row, column)
    if ending != ".json":
        return _of_records(_csv(contents.text(row, most), place), contents, row, column)
    found = contents.json(row, most)
    pairs = found.get("labels", found) if isinstance(found, dict) else found
    if pairs is None:
        return f"{place} says that there are no labels"
    if isinstance(pairs, dict):
        pairs = list(pairs.items())
    if isinstance(pairs, list) and pairs and all(isinstance(pair, dict) for pair in pairs):
        return _of_records(pairs, contents, row, column)
    if not isinstance(pairs, list) or not all(
        isinstance(pair, list | tuple) and len(pair) == 2 and isinstance(pair[0], str)
        for pair in pairs
    ):
        return f"{place} is not read, as it is no list of names and labels"
    return [(file, label) for file, label in pairs]


def file_column(columns: Sequence[str]) -> str | None:
    """The column that names files, if there is one."""
    return next(iter(_called(_FILE_COLUMNS, columns)), None)


def records_in(contents: Contents, row: int) -> list[dict[str, Any]]:
    """The rows of a table, by the names of its columns; none where it is of another kind."""
    pictures = len(contents.pictures) + len(contents.left)
    most = min(_TABLE + _ROW * pictures, _MOST_TABLE)
    ending, place = PurePosixPath(base(contents.others[row])).suffix, contents.place(row)
    found: Any
    if ending == ".jsonl":
        lines = contents.text(row, most).splitlines()
        found = [_json(line, place) for line in lines if line.strip()]
    elif ending == ".json":
        found = contents.json(row, most)
    else:
        found = _csv(contents.text(row, most), place)
    records = found if isinstance(found, list) else []
    return [record for record in records if isinstance(record, dict)]


def _of_records(records: Sequence[Any], contents: Contents, row: int, column: str) -> Entries | str:
    """Pairs of file and label, of records with named values."""
    place, table = contents.place(row), printable(contents.others[row])
    if not records:
        return f"{place} has no rows"
    records = [record for record in records if isinstance(record, dict)]
    columns = list(dict.fromkeys(key for record in records[:100] for key in record if key))
    file = file_column(columns)
    if file is None:
        return f"{place} is not read, as none of its columns names files: {said(columns, most=6)}"
    rest = [key for key in columns if key != file]
    known = _called([simple(column)], columns) if column else _called(_LABEL_COLUMNS, rest)
    if not known and column:
        raise ValueError(
            f"{place} has no column {printable(column)}, only {said(rest, most=9)}: set data.labels_from to one"
        )
    if not known:
        return (
            f"{place} has no column `label`, only {said(rest, most=6)}: if one of them holds classes, set "
            f"data.labels_from {table}:COLUMN"
        )
    label, *others = known

    def values(key: str) -> list[str]:
        return [str(record.get(key)) for record in records]

    if others and contradict(values(label), values(others[0])):
        raise ValueError(
            f"{place} has labels in {said(known)}, which differ: set data.labels_from {table}:COLUMN"
        )
    return [
        (str(record[file]), record.get(label))
        for record in records
        if record.get(file) not in (None, "")
    ]


def _called(words: Sequence[str], columns: Sequence[str]) -> list[str]:
    """The columns with one of these names, in the order of the names."""
    return [key for word in words for key in columns if simple(key) == word]


def _csv(text: str, place: str) -> list[dict[str, str]]:
    """The records of a text with commas, semicolons or tabs, and a first line of names."""
    first = text.partition("\n")[0]
    separator = max(",;\t|", key=first.count)
    try:
        reader = csv.DictReader(io.StringIO(text, newline=""), delimiter=separator)
        columns = [column for column in reader.fieldnames or () if column]
        if len(set(columns)) < len(columns):
            raise csv.Error("two columns have one name")
        return list(reader)
    except csv.Error as error:
        raise ValueError(f"{place} is no readable table ({error}): save it again") from error


def _json(content: bytes | str, place: str) -> Any:
    return parse_json(content, Any, place, advice="save it again")
