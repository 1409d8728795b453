"""The classes of pictures: by folders, tables, files beside each picture, or names."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import PurePosixPath

import torch
from torch import Tensor

from eqm.data.classes import by_name, count_classes
from eqm.data.label_files import (
    Contents,
    Label,
    base,
    has_json_labels,
    labels_beside,
    labels_in_tables,
)
from eqm.files import printable
from eqm.naming import counted, said, simple

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
_TABLE, _ROW, _MOST_TABLE = 4 << 20, 1 << 10, 128 << 20
"""Bytes that a table may have, further ones for each picture, and the most in all; more is refused."""
_SHEETS = (".xlsx", ".xls", ".ods")
_LIST, _MOST_LISTS = 32 << 20, 20
"""Bytes of a text that is searched for names of pictures, and how many texts are."""
_CHUNK = re.compile(r"\d{5,}")
"""The folders that StyleGAN's tool makes only to divide a set."""
_PARTS = re.compile(
    r"(part|batch|chunk|shard|fold|folder|dir|split|set|subset|group|session|seq(uence)?|video|clip"
    r"|cam(era)?|images?|imgs?|page|disk|vol(ume)?)"
    r"[\s_-]*\d+$",
    re.IGNORECASE,
)
"""Names of folders that often only divide one set."""


@dataclass(frozen=True)
class Labelled:
    """The labels of pictures (N,), or None, and the names of the classes."""

    labels: Tensor | None
    class_names: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    beside: bool = False
    """Whether the labels are numbers in files beside the pictures, as in WebDataset."""


def labelled(contents: Contents, labels_from: str = "") -> Labelled:
    """The labels of pictures, from the place that `DataConfig.labels_from` names, or the only one there is.

    Raises ValueError for labels that are missing or damaged, and where two places disagree.
    """
    where = contents.where
    if labels_from == "folders":
        by_folder = _by_folder(contents)
        if by_folder.labels is None:
            raise ValueError(
                f"{where} has no class folders; got data.labels_from folders: leave it out"
            )
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
    """The labels by the first of the folders around each picture.

    Folders around everything are ignored; pictures that all lie in one folder have no classes. Raises
    ValueError if some pictures lie beside class folders, or a class folder has none.
    """
    where, paths = contents.where, contents.paths
    depth = 0
    while True:
        first = {path[depth] if len(path) > depth else "" for path in paths}
        first |= {folder[depth] for folder in contents.folders if len(folder) > depth}
        if len(first) > 1 or "" in first:
            break
        depth += 1
    counts = Counter(path[depth] if len(path) > depth else "" for path in paths)
    around = "/".join(paths[0][:depth])
    if set(counts) == {""}:
        if first == {""}:
            alone = f"{where}: all pictures lie in the folder {printable(around)}, so there are no classes"
            return Labelled(None, notes=(alone,) if around else ())
    elif "" in counts:
        loose = next(k for k, path in enumerate(paths) if len(path) <= depth)
        raise ValueError(
            f"{where} has {counted(counts[''])} beside class folders, such as "
            f"{printable(contents.pictures[loose])}: put each into a folder, or keep only pictures or only folders, "
            "or turn data.labels off"
        )
    if empty := sorted(first - set(counts)):
        raise ValueError(
            f"{where}: the class folder {said(empty)} has no pictures: fill it, or move it elsewhere, or turn "
            "data.labels off"
        )
    labels, classes = by_name([path[depth] for path in paths])
    return Labelled(labels, classes, _notes_on_classes(where, classes, paths, depth))


def _notes_on_classes(
    where: str, classes: tuple[str, ...], paths: Sequence[tuple[str, ...]], depth: int
) -> tuple[str, ...]:
    notes = []
    deep = next((path for path in paths if len(path) > depth + 1), None)
    if deep:
        notes.append(
            f"{where}: folders inside the class folders, such as {printable('/'.join(deep[: depth + 2]))}, are no "
            "classes of their own"
        )
    numbers = all(name.isdecimal() for name in classes)
    if (numbers and classes != tuple(map(str, range(len(classes))))) or all(
        _PARTS.match(name) for name in classes
    ):
        meaning = ", each meant by its own number" if numbers else ""
        notes.append(
            f"{where}: the folders {said(classes)} are classes{meaning}: turn data.labels off if they only divide one "
            "set"
        )
    names: dict[str, str] = {}
    for name in classes:
        other = names.setdefault(simple(name), name)
        if other != name:
            notes.append(
                f"{where}: the class folders {printable(other)} and {printable(name)} are two classes, though their "
                "names hardly differ"
            )
    return tuple(notes)


def _unasked(contents: Contents) -> tuple[dict[str, Labelled], tuple[str, ...]]:
    """The labels in every place that is read unasked, and notes on those without any."""
    places: dict[str, Labelled] = {}
    notes: list[str] = []
    for name in TABLES:
        if tables := contents.called(name):
            raw, note = labels_in_tables(contents, tables)
            if raw is not None:
                places[name] = _numbered(contents, raw)
            notes += [note] if note else []
    endings = [end for end in sorted(contents.beside) if re.fullmatch(r"cls\d*", end)]
    if has_json_labels(contents):
        endings.append("json")
    for ending in endings:
        raw = labels_beside(contents, ending)
        places[ending] = replace(_numbered(contents, raw), beside=True)
    return places, tuple(notes)


def _asked(contents: Contents, place: str) -> Labelled:
    """The labels in the place that was asked for."""
    if place == "names":
        prefixes = [_prefix(name) for name in contents.pictures]
        return _numbered(contents, contents.complete(prefixes, "class in their names"))
    name, _, column = place.partition(":")
    ending = name.removeprefix(".").lower()
    if ending in contents.beside:
        return _numbered(contents, labels_beside(contents, ending, column))
    if tables := contents.called(name):
        raw, note = labels_in_tables(contents, tables, column)
        if raw is None:
            raise ValueError(note)
        return replace(_numbered(contents, raw), notes=(note,) if note else ())
    tables_there = sorted({base(contents.others[row]) for row in contents.tables})
    places = ["folders", "names", *sorted(contents.beside), *tables_there]
    raise ValueError(
        f"{contents.where} has no labels in {printable(place)}: data.labels_from must be one of "
        f"{said(places, most=9)}"
    )


def _numbered(contents: Contents, raw: Sequence[Label]) -> Labelled:
    """Labels as class numbers: whole numbers are as they are, words are in their order."""
    numbers = [label for label in raw if isinstance(label, int)]
    if len(numbers) < len(raw):
        return Labelled(*by_name(list(map(str, raw))))
    names = tuple(map(str, range(count_classes(contents.where, numbers))))
    return Labelled(torch.tensor(numbers), names)


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
        if base(other) not in CLASS_LISTS:
            continue
        try:
            lines = [line.strip() for line in contents.text(row).splitlines() if line.strip()]
        except ValueError as error:
            return names, [f"{error}; it does not name the classes"]
        numbered = [re.fullmatch(r"(\d+)[\s:,;=]+(.+)", line) for line in lines]
        if all(found and int(found[1]) == k for k, found in enumerate(numbered)):
            lines = [found[2].strip() for found in numbered if found]
        highest, different = max(map(int, names)), len(set(map(simple, lines)))
        if len(lines) <= highest or different < len(lines):
            return names, [
                f"{contents.place(row)} does not name the classes: it has {different} different names and the classes "
                f"go up to {highest}"
            ]
        note = f"{contents.where}: the names of the classes are those of {printable(other)}: {said(lines)}"
        return tuple(lines[int(name)] for name in names), [note]
    return names, []


def _hints(contents: Contents) -> tuple[str, ...]:
    """What may hold labels and is not read."""
    where, hints = contents.where, []
    rows = [row for row in contents.tables if base(contents.others[row]) not in TABLES]
    if rows:
        names = said([contents.others[row] for row in rows])
        hints.append(f"{where}: {names} is not read: if it holds labels, set data.labels_from")
    if lists := _lists(contents):
        hints.append(
            f"{where}: {said(lists)} is not read: if it holds labels, save it as a .csv with a line of names, and set "
            "data.labels_from; if it holds a split, put that into a folder"
        )
    hints += [
        f"{where}: the .{ending} files beside pictures are not read: if they hold labels, set data.labels_from; if "
        "captions, set data.captions"
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


def _lists(contents: Contents) -> list[str]:
    """Files that may list labels in a form that is not read: spreadsheets, and texts whose first lines
    begin with names of pictures."""
    alone = [row for row in range(len(contents.others)) if row not in contents.paired]
    found = [row for row in alone if base(contents.others[row]).endswith(_SHEETS)]
    pictures = {PurePosixPath(name).name for name in contents.pictures}
    texts = [row for row in alone if base(contents.others[row]).endswith(".txt")]
    for row in texts[:_MOST_LISTS]:
        try:
            lines = contents.text(row, _LIST).splitlines()[:10]
        except ValueError:  # it is too large, or no text
            continue
        first = {re.split(r"[\s,;]", line.strip(), maxsplit=1)[0] for line in lines}
        if any(PurePosixPath(word).name in pictures for word in first if word):
            found.append(row)
    return [contents.others[row] for row in sorted(found)]


def _prefix(name: str) -> str | None:
    """What stands before the number at the end of a name, such as cat in cat_12.png."""
    found = re.fullmatch(r"(.*?)[\s._(-]*\d+\)?", PurePosixPath(name).stem)
    return (found[1] or None) if found else None
