"""The classes of pictures: by folders, tables, files beside each picture, or names."""

from __future__ import annotations

import csv
import io
import re
import unicodedata
from collections import defaultdict
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import PurePosixPath
from typing import Any

import torch
from torch import Tensor

from eqm.data.images import count_classes
from eqm.data.layout import classes_of, said
from eqm.files import printable
from eqm.naming import simple
from eqm.schema import parse_json

Label = int | str
TABLES = (
    *("dataset.json", "metadata.csv", "metadata.tsv", "metadata.jsonl", "labels.csv"),
    *("labels.tsv", "labels.json", "labels.jsonl"),
)
"""Tables of names and labels that are read unasked."""
CLASS_LISTS = (
    *("classes.txt", "class_names.txt", "classnames.txt", "labels.txt", "label_names.txt"),
    *("names.txt", "classes.names", "obj.names"),
)
"""Lists of the names of classes, one a line, in the order of their numbers."""
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
_TABLE, _ROW, _MOST_TABLE = 4 << 20, 1 << 10, 128 << 20
"""Bytes that a table may have, further ones for each picture, and the most in all; more is refused."""
_MOST_BESIDE = 1 << 20
"""Bytes that a file beside one picture may have."""
_LOOKED_AT = 1_000
"""JSON files that are searched for a label; without one the others are not read."""
_NUMBER = re.compile(r"[+-]?\d{1,30}(\.0+)?")
_CHUNK = re.compile(r"\d{5,}")
"""The folders that StyleGAN's tool makes only to divide a set."""


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
    archives: tuple[Sequence[int], Sequence[int]] = ((), ())
    """The numbers of the archives of pictures and of others, if there are several: files of one sample are in
    one archive."""
    left: Sequence[str] = ()
    """Pictures that are not read, such as those of other splits."""

    @cached_property
    def beside(self) -> Mapping[str, Mapping[int, int]]:
        """By ending, the files with the name of a picture: numbers of pictures to numbers of others."""
        mine, theirs = self.archives
        pictures: defaultdict[tuple[int, str], list[int]] = defaultdict(list)
        for k, name in enumerate(self.pictures):
            pictures[mine[k] if mine else 0, key_of(name)[0]].append(k)
        found: defaultdict[str, dict[int, int]] = defaultdict(dict)
        for row, name in enumerate(self.others):
            key, ending = key_of(name)
            for k in pictures.get((theirs[row] if theirs else 0, key), ()):
                if ending.startswith("cls") and k in found[ending]:
                    twice = said([self.others[found[ending][k]], name])
                    raise ValueError(f"{self.where}: {twice} belong to one picture: remove one")
                found[ending][k] = row
        return found

    @property
    def most(self) -> int:
        """Bytes that a table may have."""
        return min(_TABLE + _ROW * (len(self.pictures) + len(self.left)), _MOST_TABLE)

    @cached_property
    def tables(self) -> list[int]:
        """The numbers of the files that may be tables of names and labels."""
        paired = {row for rows in self.beside.values() for row in rows.values()}
        return [
            row
            for row, name in enumerate(self.others)
            if name.lower().endswith(_TABLE_ENDINGS) and row not in paired
        ]

    def called(self, name: str) -> list[int]:
        """The numbers of the tables of that name."""
        known = {row: self.others[row] for row in self.tables}
        return [
            row for row, other in known.items() if name.lower() in (other.lower(), _base(other))
        ]


@dataclass(frozen=True)
class Labelled:
    """The labels of pictures (N,), or None, and the names of the classes."""

    labels: Tensor | None
    class_names: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    beside: bool = False
    """Whether the labels are numbers in files beside the pictures, as in WebDataset."""


def key_of(name: str) -> tuple[str, str]:
    """The name that all files of a sample share, as in WebDataset, and the ending after it.

    It ends at the first dot that no number follows.

    >>> key_of("a/0.seg.png"), key_of("cat.12.jpg")
    (('a/0', 'seg.png'), ('cat.12', 'jpg'))
    """
    folder, slash, base = name.removeprefix("./").rpartition("/")
    first, *rest = base.split(".")
    while len(rest) > 1 and rest[0].isdecimal():
        first += f".{rest.pop(0)}"
    return f"{folder}{slash}{first}", ".".join(rest).lower()


def labelled(contents: Contents, labels_from: str = "") -> Labelled:
    """The labels of pictures, from the place that `DataConfig.labels_from` names, or the only one there is.

    Raises ValueError for labels that are missing or damaged, and where two places disagree.
    """
    where = contents.where
    if labels_from == "folders":
        by_folder = _by_folder(contents)
        if by_folder.labels is None:
            raise ValueError(f"{where} has no class folders; got data.labels_from folders")
        return by_folder
    if labels_from:
        return _named(contents, {labels_from: _asked(contents, labels_from)})
    places, notes = _unasked(contents)
    try:
        by_folder = _by_folder(contents)
    except ValueError:
        if not places:
            raise
        by_folder = Labelled(None)
    divided = bool(by_folder.class_names) and all(map(_CHUNK.fullmatch, by_folder.class_names))
    if by_folder.labels is not None and not (divided and (places or notes)):
        places["folders"] = by_folder
    elif not places:
        return Labelled(None, (), (*notes, *by_folder.notes * (not divided), *_hints(contents)))
    (first, one), *rest = places.items()
    for name, other in rest:
        row = _first_difference(one, other)
        if row is not None:
            raise ValueError(
                f"{where}: the labels from {first} and from {name} differ, first for "
                f"{printable(contents.pictures[row])}: set data.labels_from to the right ones"
            )
    found = _named(contents, places)
    return replace(found, notes=(*notes, *found.notes))


def _by_folder(contents: Contents) -> Labelled:
    return Labelled(
        *classes_of(contents.where, contents.pictures, contents.paths, contents.folders)
    )


def _unasked(contents: Contents) -> tuple[dict[str, Labelled], tuple[str, ...]]:
    """The labels in every place that is read unasked, and notes on those without any."""
    places: dict[str, Labelled] = {}
    notes: list[str] = []
    for name in TABLES:
        if tables := contents.called(name):
            raw, note = _of_tables(contents, tables, "")
            if raw is not None:
                places[name] = _numbered(contents, name, raw)
            notes += [note] if note else []
    endings = [end for end in sorted(contents.beside) if re.fullmatch(r"cls\d*", end)]
    if "json" in contents.beside and _has_label(contents):
        endings.append("json")
    for ending in endings:
        raw = _of_beside(contents, ending, "")
        places[ending] = replace(_numbered(contents, ending, raw), beside=True)
    return places, tuple(notes)


def _asked(contents: Contents, place: str) -> Labelled:
    """The labels in the place that was asked for."""
    if place == "names":
        prefixes = [_prefix(name) for name in contents.pictures]
        return _numbered(contents, place, _complete(contents, prefixes, "class in their names"))
    name, _, column = place.partition(":")
    ending = name.removeprefix(".").lower()
    if ending in contents.beside:
        return _numbered(contents, place, _of_beside(contents, ending, column))
    if tables := contents.called(name):
        raw, note = _of_tables(contents, tables, column, asked=True)
        if raw is None:
            raise ValueError(note or f"{contents.where}: {printable(name)} holds no labels")
        return replace(_numbered(contents, place, raw), notes=(note,) if note else ())
    tables_there = sorted({_base(contents.others[row]) for row in contents.tables})
    places = ["folders", "names", *sorted(contents.beside), *tables_there]
    raise ValueError(
        f"{contents.where} has no labels in {printable(place)}: data.labels_from must be one of "
        f"{said(places, most=9)}"
    )


def _first_difference(one: Labelled, other: Labelled) -> int | None:
    """The first sample that shows that two labellings divide the samples differently."""
    there: dict[int, int] = {}
    back: dict[int, int] = {}
    assert one.labels is not None
    assert other.labels is not None
    for row, (a, b) in enumerate(zip(one.labels.tolist(), other.labels.tolist(), strict=True)):
        if there.setdefault(a, b) != b or back.setdefault(b, a) != a:
            return row
    return None


def _named(contents: Contents, places: Mapping[str, Labelled]) -> Labelled:
    """Of places that agree, the numbers beside the pictures, else the last; with names that are no numbers."""
    name = next((name for name, one in places.items() if one.beside), list(places)[-1])
    chosen = places[name]
    assert chosen.labels is not None
    names, notes = chosen.class_names, list(chosen.notes)
    for other in places.values():
        if _are_numbers(names) and not _are_numbers(other.class_names):
            assert other.labels is not None
            worded = dict(zip(chosen.labels.tolist(), other.labels.tolist(), strict=True))
            names = tuple(
                other.class_names[worded[k]] if k in worded else old for k, old in enumerate(names)
            )
    if name not in ("folders", "cls", "json"):
        notes.append(f"{contents.where}: the labels are those of {name}: {said(names)}")
    if all(name.isdecimal() for name in names):
        names, more = _listed(contents, names)
        notes += more
    return replace(chosen, class_names=names, notes=tuple(notes))


def _are_numbers(names: Sequence[str]) -> bool:
    return all(name == str(k) for k, name in enumerate(names))


def _listed(contents: Contents, names: tuple[str, ...]) -> tuple[tuple[str, ...], list[str]]:
    """The names of classes that have numbers, in a list of classes that fits, if there is one, and notes."""
    for row, other in enumerate(contents.others):
        if _base(other) not in CLASS_LISTS:
            continue
        try:
            text = _text(contents.read(row, _MOST_BESIDE), other)
        except ValueError as error:
            return names, [f"{contents.where}: the names of the classes are not read: {error}"]
        lines = [line.strip() for line in text.splitlines() if line.strip()]
        numbered = [re.fullmatch(r"(\d+)[\s:,;=]+(.+)", line) for line in lines]
        if all(found and int(found[1]) == k for k, found in enumerate(numbered)):
            lines = [found[2].strip() for found in numbered if found]
        highest, different = max(map(int, names)), len(set(map(simple, lines)))
        if len(lines) <= highest or different < len(lines):
            return names, [
                f"{contents.where}: {printable(other)} does not name the classes: it has {different} different names "
                f"and the classes go up to {highest}"
            ]
        note = f"{contents.where}: the names of the classes are those of {printable(other)}: {said(lines)}"
        return tuple(lines[int(name)] for name in names), [note]
    return names, []


def _hints(contents: Contents) -> tuple[str, ...]:
    """What may hold labels and is not read."""
    where, hints = contents.where, []
    rows = [row for row in contents.tables if _base(contents.others[row]) not in TABLES]
    if rows:
        names = said([contents.others[row] for row in rows])
        hints.append(f"{where}: {names} is not read: if it holds labels, set data.labels_from")
    hints += [
        f"{where}: the .{ending} files beside pictures are not read: if they hold labels, set data.labels_from"
        for ending in sorted(contents.beside)
        if ending in ("txt", "json")
    ]
    alone = [name for name in contents.others if re.search(r"\.cls\d*$", name.lower())]
    if alone:
        hints.append(f"{where}: {said(alone)} is not read, as no picture has that name")
    prefixes = [_prefix(name) for name in contents.pictures]
    kinds = {prefix for prefix in prefixes if prefix is not None}
    if None not in prefixes and 1 < len(kinds) <= len(prefixes) // 2:
        hints.append(
            f"{where}: the names begin with {said(sorted(kinds))}: if these are classes, set data.labels_from names"
        )
    return tuple(hints)


def _prefix(name: str) -> str | None:
    """What stands before the number at the end of a name, such as cat in cat_12.png."""
    found = re.fullmatch(r"(.*?)[\s._(-]*\d+\)?", PurePosixPath(name).stem)
    return (found[1] or None) if found else None


def _complete(
    contents: Contents, raw: Sequence[Label | None], what: str, advice: str = ""
) -> list[Label]:
    """The labels, if no picture is without. Raises ValueError for one that is."""
    missing = [k for k, label in enumerate(raw) if label is None]
    if missing:
        raise ValueError(
            f"{contents.where}: {len(missing):,} of {len(raw):,} pictures have no {what}, the first is "
            f"{printable(contents.pictures[missing[0]])}: {advice or 'add them, or turn data.labels off'}"
        )
    return [label for label in raw if label is not None]


def _numbered(contents: Contents, place: str, raw: Sequence[Label]) -> Labelled:
    """Labels as class numbers: whole numbers are as they are, words are in their order."""
    if all(isinstance(label, int) for label in raw):
        numbers = [int(label) for label in raw]
        names = tuple(map(str, range(count_classes(contents.where, numbers))))
        return Labelled(torch.tensor(numbers), names)
    words = sorted(set(map(str, raw)))
    number = {word: k for k, word in enumerate(words)}
    return Labelled(torch.tensor([number[str(label)] for label in raw]), tuple(words))


def _has_label(contents: Contents) -> bool:
    """Whether one of the first JSON files beside pictures has a label."""
    rows = dict.fromkeys(contents.beside["json"].values())
    for row in list(rows)[:_LOOKED_AT]:
        found = _json(contents.read(row, _MOST_BESIDE), contents, row)
        if isinstance(found, dict) and any(found.get(key) is not None for key in _KEYS):
            return True
    return False


def _of_beside(contents: Contents, ending: str, key: str) -> list[Label]:
    """The labels in the files of that ending beside the pictures."""
    rows = contents.beside[ending]
    raw: list[Label | None] = [None] * len(contents.pictures)
    known: dict[int, Label | None] = {}
    for k, row in rows.items():
        if row not in known:
            known[row] = _of_file(contents, row, ending, key)
        raw[k] = known[row]
    advice = f"add a .{ending} for each, or remove them all"
    return _complete(contents, raw, f"label in a .{ending} file", advice)


def _of_file(contents: Contents, row: int, ending: str, key: str) -> Label | None:
    content = contents.read(row, _MOST_BESIDE)
    if ending == "json":
        found = _json(content, contents, row)
        if not isinstance(found, dict):
            return None
        value = next(
            (found[k] for k in ([key] if key else _KEYS) if found.get(k) is not None), None
        )
        return None if value is None else _label(value, contents, row, content)
    text = _text(content, contents.others[row]).strip()
    if ending.startswith("cls") and not _NUMBER.fullmatch(text):
        raise ValueError(
            f"{contents.where}: the label in {printable(contents.others[row])} must be a whole number; got "
            f"{content[:40]!r}"
        )
    return _label(text, contents, row, content)


def _not_a_label(contents: Contents, row: int, content: object) -> ValueError:
    shown = content[:40] if isinstance(content, bytes | str) else content
    return ValueError(
        f"{contents.where}: the label in {printable(contents.others[row])} must be a whole number or a word; got "
        f"{printable(repr(shown)[:60])}"
    )


def _label(value: Any, contents: Contents, row: int, content: object) -> Label | None:
    """A label of a file: a whole number, a word, or None for an empty one."""
    if isinstance(value, str):
        text = unicodedata.normalize("NFC", value.strip())
        return int(text.partition(".")[0]) if _NUMBER.fullmatch(text) else text or None
    whole = isinstance(value, int) or (isinstance(value, float) and value.is_integer())
    if isinstance(value, bool) or not whole:
        raise _not_a_label(contents, row, content)
    return int(value)


def _of_tables(
    contents: Contents, tables: Sequence[int], column: str, *, asked: bool = False
) -> tuple[list[Label] | None, str]:
    """The labels in tables of one name, each of which names pictures below its folder, or None; and a note."""
    place = _Places(contents)
    raw: list[Label | None] = [None] * len(contents.pictures)
    name, why = _base(contents.others[tables[0]]), ""
    missing: list[str] = []
    for row in tables:
        entries = _entries(contents, row, column)
        if isinstance(entries, str):
            why = entries
            continue
        below = str(PurePosixPath(contents.others[row]).parent)
        for file, value in entries:
            label = _label(value, contents, row, value) if value is not None else None
            meant = place.of(file, below)
            if not meant and not place.is_left(file):
                missing.append(file)
            for k in meant:
                if raw[k] not in (None, label):
                    raise ValueError(
                        f"{contents.where}: {printable(name)} has two labels for "
                        f"{printable(contents.pictures[k])}: {raw[k]} and {label}"
                    )
                raw[k] = label
    if all(label is None for label in raw):
        if not why:
            why = f"{contents.where}: {printable(name)} has no label of any of these pictures"
        return None, why
    why = ""
    if missing:
        why = (
            f"{contents.where}: {printable(name)} names pictures that are not there ({len(missing):,}), "
            f"{said(missing)}"
        )
    return _complete(contents, raw, f"label in {printable(name)}"), why


class _Places:
    """Finds pictures by the names that tables have for them."""

    def __init__(self, contents: Contents) -> None:
        self.full: defaultdict[str, list[int]] = defaultdict(list)
        self.base: defaultdict[str, list[int]] = defaultdict(list)
        self.stem: defaultdict[str, list[int]] = defaultdict(list)
        self.path = [PurePosixPath(unicodedata.normalize("NFC", n)) for n in contents.pictures]
        left = [PurePosixPath(unicodedata.normalize("NFC", name)) for name in contents.left]
        self.left = {path.name for path in left} | {path.stem for path in left}
        for k, path in enumerate(self.path):
            self.full[str(path)].append(k)
            self.base[path.name].append(k)
            self.stem[path.stem].append(k)

    def is_left(self, file: str) -> bool:
        """Whether `file` is a picture that is not read."""
        path = PurePosixPath(unicodedata.normalize("NFC", file.strip().replace("\\", "/")))
        return path.name in self.left

    def of(self, file: str, below: str) -> list[int]:
        """The pictures that `file` means in a table in the folder `below`; more than one is none."""
        name = unicodedata.normalize("NFC", file.strip().replace("\\", "/"))
        path = PurePosixPath(below, name)
        if str(path) in self.full:
            return self.full[str(path)]
        for known in (self.base, self.stem) if "/" not in name else ():
            found = [k for k in known.get(name, ()) if self.path[k].is_relative_to(below)]
            if found:
                return found if len(found) == 1 else []
        return []


Entries = list[tuple[str, Any]]


def _entries(contents: Contents, row: int, column: str) -> Entries | str:
    """The pairs of file and label in a table, or a sentence that says why there are none."""
    name = contents.others[row]
    content = contents.read(row, contents.most)
    if name.lower().endswith(".json"):
        return _of_json(_json(content, contents, row), contents, row, column)
    if name.lower().endswith(".jsonl"):
        lines = _text(content, name).splitlines()
        records = [_json(line.encode(), contents, row) for line in lines if line.strip()]
    else:
        records = _csv(_text(content, name), name)
    return _of_records(records, contents, name, column)


def _of_json(found: Any, contents: Contents, row: int, column: str) -> Entries | str:
    name = contents.others[row]
    pairs = found.get("labels", found) if isinstance(found, dict) else found
    if pairs is None:
        return f"{contents.where}: {printable(name)} says that there are no labels"
    if isinstance(pairs, dict):
        pairs = list(pairs.items())
    if isinstance(pairs, list) and pairs and all(isinstance(pair, dict) for pair in pairs):
        return _of_records(pairs, contents, name, column)
    if not isinstance(pairs, list) or not all(
        isinstance(pair, list | tuple) and len(pair) == 2 and isinstance(pair[0], str)
        for pair in pairs
    ):
        return (
            f"{contents.where}: {printable(name)} is not read, as it is no list of names and labels"
        )
    return [(file, label) for file, label in pairs]


def _of_records(
    records: Sequence[Any], contents: Contents, name: str, column: str
) -> Entries | str:
    """Pairs of file and label, of records with named values."""
    if not records:
        return f"{contents.where}: {printable(name)} has no rows"
    records = [record for record in records if isinstance(record, dict)]
    columns = list(dict.fromkeys(key for record in records[:100] for key in record if key))
    file = _column(columns, _FILE_COLUMNS)
    at = f"{contents.where}: {printable(name)}"
    if file is None:
        return f"{at} is not read, as none of its columns names files: {said(columns, most=6)}"
    known = [
        key for word in _LABEL_COLUMNS for key in columns if simple(key) == word and key != file
    ]
    if column:
        known = [key for key in columns if simple(key) == simple(column)]
    if not known:
        rest = [key for key in columns if key != file]
        if column:
            raise ValueError(f"{at} has no column {printable(column)}, only {said(rest, most=9)}")
        return (
            f"{at} has no column `label`, only {said(rest, most=6)}: if one of them holds classes, set "
            f"data.labels_from {printable(name)}:COLUMN"
        )
    if len(known) > 1:
        pairs = {(str(record.get(known[0])), str(record.get(known[1]))) for record in records}
        if len(pairs) > min(len({pair[side] for pair in pairs}) for side in (0, 1)):
            raise ValueError(
                f"{at} has labels in {said(known)}, which differ: set data.labels_from {printable(name)}:COLUMN"
            )
    return [
        (str(record[file]), record.get(known[0]))
        for record in records
        if record.get(file) not in (None, "")
    ]


def _column(columns: Sequence[str], words: Sequence[str]) -> str | None:
    return next((key for word in words for key in columns if simple(key) == word), None)


def _csv(text: str, name: str) -> list[dict[str, str]]:
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
        raise ValueError(
            f"{printable(name)} is no readable table ({error}): save it again"
        ) from error


def _text(content: bytes, name: str) -> str:
    """The text of a file, which is UTF-8, or UTF-16 as Excel writes it."""
    wide = content[:2] in (b"\xff\xfe", b"\xfe\xff")
    try:
        return content.decode("utf-16" if wide else "utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(
            f"{printable(name)} must be text in UTF-8 ({error.reason} at byte {error.start}): save it again"
        ) from error


def _json(content: bytes, contents: Contents, row: int) -> Any:
    name = f"{contents.where}: {printable(contents.others[row])}"
    return parse_json(content, Any, name, advice="save it again")


def _base(name: str) -> str:
    return PurePosixPath(name).name.lower()
