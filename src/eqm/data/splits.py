"""Which files of a data set are its pictures: no litter, one split, no masks."""

from __future__ import annotations

import os
import posixpath
import re
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from eqm.files import printable
from eqm.naming import counted, said, simple

DOCUMENTS = (
    *(".txt", ".md", ".rst", ".csv", ".tsv", ".json", ".jsonl", ".xml", ".yaml", ".yml", ".html"),
    *(".htm", ".pdf", ".py", ".ipynb", ".log", ".ini", ".cfg", ".toml", ".doc", ".docx", ".xls"),
    *(".xlsx", ".ods", ".odt", ".bib", ".sh", ".url", ".lnk", ".cls", ".cls2", ".names"),
    *(".sha256", ".md5"),
)
"""Endings of files beside pictures of which nobody thinks that they are pictures."""
_LITTER = re.compile(
    r"\.|__macosx|@eadir|@tmp|@recycle|@recently|#recycle|#snapshot|\$recycle\.bin|recycler$"
    r"|@transcode|lost\+found$|lost\.dir$|found\.\d{3}$|.+\.lrdata$|system volume information$"
    r"|network trash folder$|temporary items$|icon\r$"
    r"|(eh)?thumbs(_vista)?\.db$|desktop\.ini$|synofile_thumb|~\$|~lock|__pycache__$",
    re.IGNORECASE,
)
"""The start of names that operating systems, storage boxes and programs leave behind."""

TRAIN, MASKS, OTHER, PLAIN = "train", "masks", "other", "plain"
"""Kinds of splits. PLAIN is the folder of pictures beside a folder of masks."""
_SPLITS = {
    **dict.fromkeys(("train", "training", "trainset", "trainval", "trn"), TRAIN),
    **dict.fromkeys(("val", "valid", "validation", "validate", "valset", "dev"), "val"),
    **dict.fromkeys(("test", "testing", "testset", "tst", "eval", "evaluation", "holdout"), "test"),
    **dict.fromkeys(("groundtruth", "gt", "mask", "masks", "annotation", "annotations"), MASKS),
    **dict.fromkeys(("segmentation", "segmentations", "label", "labels"), MASKS),
    **dict.fromkeys(("pred", "predict", "prediction", "predictions", "extra"), OTHER),
    **dict.fromkeys(("unlabeled", "unlabelled"), OTHER),
}
"""Words that name a split, and its kind."""
_PICTURES = {
    *("images", "image", "img", "imgs", "pictures", "photos", "frames", "jpeg", "jpg", "png"),
    *("rgb", "input", "inputs"),
}
_FILLERS = _PICTURES | {
    *("set", "data", "dataset", "split", "seg", "part", "of", "a", "b", "raw", "class", "object"),
    *("shard", "fine", "coarse", "left", "right", "bit"),
}
"""Words beside the word of a split that are no names of their own."""
_LONE = {"test", "testing", "testset", "val", "validation", "groundtruth", "gt", "masks"}
"""Words that are hardly a class, where they stand beside class folders."""
_PIECE = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|\d+|[^\x00-\x7f]+")
_SHARD = re.compile(r"[-_.]?\d+([-_]of[-_]\d+)?$", re.IGNORECASE)
"""The number at the end of the name of a shard."""
_COMPANION = re.compile(
    r"(.+?)[._-](masks?|seg|segmentations?|gt|ground_?truth|labels?|annotations?)$", re.IGNORECASE
)
"""The stem of a picture that goes with another one, such as 0_mask with 0."""

_PART = re.compile(r"(.+)[._-]([^\W\d_]{2,})")
"""The stem of a picture that may go with another one, such as 0_depth with 0."""


def is_litter(name: str) -> bool:
    """Whether a file or a folder on its way was left behind by a system or a program, or is hidden."""
    return any(_LITTER.match(part) for part in name.split("/") if part not in (".", ".."))


Folder = tuple[str, ...]
"""The names of folders on the way to a file or a folder."""
Levels = dict[Folder, dict[str, str]]
"""The splits of a data set: by the folder that they lie in, their names and kinds."""


@dataclass(frozen=True)
class Kept:
    """The pictures of one split."""

    rows: list[int]
    """Their numbers among the names that were given."""
    paths: list[Folder]
    """The folders of each, without those that name splits."""
    folders: set[Folder]
    """All folders in the split, likewise."""
    divided: bool = False
    """Whether some folders are splits."""
    notes: tuple[str, ...] = ()


def kept_split(
    where: str, names: Sequence[str], folders: Iterable[str], split: str, *, shards: bool = False
) -> Kept:
    """The files of a split, by folders such as train, test and ground_truth at any level.

    `names` are files, `folders` all folders, also empty ones. Where no folders are splits, that is
    all files. `shards` are archives or tables, which may hold splits themselves. Raises ValueError
    where there are other splits only, and where a folder may be a split or a class.
    """
    parts = [_folders(name.split("/")[:-1]) for name in names]
    everything = {_folders(folder.split("/")) for folder in folders} - {()}
    everything |= {path[:depth] for path in parts for depth in range(1, len(path) + 1)}
    if split == "all":
        return Kept(list(range(len(names))), parts, everything)
    levels, notes = _levels(where, everything, shards)
    if not levels:
        if not shards:
            check_no_splits(where, split)
        return Kept(list(range(len(names))), parts, everything, notes=tuple(notes))
    noun = "file" if shards else "picture"
    matching = {at: _matching(kinds, split) for at, kinds in levels.items()}
    rows, paths, left = [], [], Counter[str]()
    outside: list[str] = []
    taken: defaultdict[Folder, set[str]] = defaultdict(set)
    for row, path in enumerate(parts):
        marks, rest = _marks(path, levels)
        if marks is not None and _wanted(marks, matching, split):
            rows.append(row)
            paths.append(rest)
            for at, name, _ in marks:
                taken[at] |= {name} & matching[at]
        elif marks:
            left[_special(marks)[0][1]] += 1
        else:
            outside.append(names[row])
    for same in taken.values():
        if len(same) > 1:
            raise ValueError(
                f"{where} has several folders of the split {split}, {said(sorted(same))}: give the path of one, or "
                "set data.split to its name, or to all if they are classes"
            )
    there = ", ".join(f"{printable(name)} ({number:,})" for name, number in sorted(left.items()))
    loose = f"{counted(len(outside), noun)} beside the folders of splits" if outside else ""
    if not rows:
        raise ValueError(missing_split(where, split, there or loose))
    if left or outside:
        loose = loose and f"{loose}, such as {printable(outside[0])}"
        others = ", and ".join(filter(None, (there, loose)))
        notes.append(split_note(where, split, others, count=f", {counted(len(rows), noun)}"))
    inside = set()
    for path in everything:
        marks, rest = _marks(path, levels)
        if marks is not None and rest and _wanted(marks, matching, split):
            inside.add(rest)
    return Kept(rows, paths, inside, True, tuple(notes))


def _levels(where: str, folders: Iterable[Folder], shards: bool) -> tuple[Levels, list[str]]:
    """The folders that are splits, and notes on those that could be."""
    children: defaultdict[Folder, set[str]] = defaultdict(set)
    for path in folders:
        for depth in range(len(path)):
            children[path[:depth]].add(path[depth])
    levels: Levels = {}
    notes: list[str] = []
    for parent, beside in children.items():
        found = splits_among(beside)
        if shards and not found:  # such as train and more
            found = {name: TRAIN for name in beside if _read(name) == (TRAIN, ())}
        if found:
            levels[parent] = found
        else:
            notes += _lone(where, "/".join(parent), beside)
    return levels, notes


def kept_shards(
    where: str, paths: Sequence[Path], split: str, *, asked: bool
) -> tuple[list[Path], tuple[str, ...], bool]:
    """The archives or tables of a split, notes, and whether their names tell the split.

    The split is in the names of folders, or of files such as train-00000-of-00002. If `asked`, the
    paths were asked for, so all of one name are taken. Raises ValueError as `kept_split` does.
    """
    base = os.path.commonpath([path.parent for path in paths])
    # A file stands for a folder of its name without the number.
    names = [
        path.relative_to(base).parent / _SHARD.sub("", path.stem) / path.name for path in paths
    ]
    if asked and len({name.parent for name in names}) == 1:
        return list(paths), (), False
    kept = kept_split(where, [name.as_posix() for name in names], (), split, shards=True)
    return [paths[row] for row in kept.rows], kept.notes, kept.divided


def _folders(parts: Sequence[str]) -> Folder:
    return tuple(part for part in parts if part not in ("", "."))


def check_no_splits(where: str, split: str) -> None:
    """Raises ValueError where a split is asked for by name, as `where` has none."""
    if split not in (TRAIN, "all"):
        raise ValueError(
            f"{where} has no splits; got data.split {split}: leave it out, or give other data by the path of "
            "their part"
        )


def missing_split(where: str, split: str, there: str) -> str:
    """The sentence for a split that is not there."""
    return (
        f"{where} has no split {split}, only {there}: set data.split to one of them, or give the path of one "
        "(data.split all takes everything, and folders for classes)"
    )


def split_note(where: str, split: str, left: str, *, count: str = "") -> str:
    """The sentence for a split that is read, where others are left out."""
    return f"{where}: the split {split} is read{count}; left out: {left}; data.split takes others"


def splits_among(names: Collection[str]) -> dict[str, str]:
    """The kinds of those of the names beside each other that are splits; empty where none is.

    >>> splits_among({"train", "test", "preview"})
    {'train': 'train', 'test': 'test'}
    >>> splits_among({"train", "bus", "car"})
    {}
    """
    families: defaultdict[tuple[str, ...], dict[str, str]] = defaultdict(dict)
    plain: dict[str, str] = {}
    for name in sorted(names, key=lambda name: (-len(name), name)):
        kind, rest = _read(name)
        if kind:
            families[rest][name] = kind
        elif not rest and _PICTURES.intersection(_words(name)):
            plain[name] = PLAIN
    found: dict[str, str] = {}
    for rest, family in families.items():
        kinds = set(family.values())
        if not rest and MASKS in kinds:
            family, kinds = family | plain, kinds | set(plain.values())
        alone = not rest and len(family) == len(names)
        sure = kinds == {TRAIN} or all("".join(_words(name)) in _LONE for name in family)
        if (len(kinds) > 1 and (not rest or TRAIN in kinds)) or (alone and sure):
            found |= family
    return found


def _words(name: str) -> list[str]:
    """The words of a name, such as train and set of `trainSet_01`, and 01."""
    words = [piece.casefold() for piece in _PIECE.findall(name)]
    for k in range(len(words) - 1):
        if words[k : k + 2] == ["ground", "truth"]:
            return [*words[:k], "groundtruth", *words[k + 2 :]]
    return words


def _read(name: str) -> tuple[str, tuple[str, ...]]:
    """The kind of split that a name says, or an empty one, and the words that say something else."""
    words = _words(name)
    kinds = {_SPLITS[word] for word in words if word in _SPLITS}
    rest = tuple(w for w in words if not (w in _SPLITS or w in _FILLERS or w.isdecimal()))
    if MASKS in kinds:
        return MASKS, rest
    if kinds == {TRAIN, "val"}:
        return TRAIN, rest
    return (kinds.pop() if len(kinds) == 1 else ""), rest


def _lone(where: str, parent: str, beside: Collection[str]) -> list[str]:
    """A note on folders that are taken for classes but could be splits. Raises ValueError where they
    hardly are classes."""
    words = {name: "".join(_words(name)) for name in sorted(beside)}
    doubtful = [name for name, word in words.items() if word in _SPLITS]
    others = [name for name in words if name not in doubtful]
    if any(_PICTURES.intersection(_words(name)) for name in others):  # such as faces-img
        masks = [name for name in others if _read(name)[0] == MASKS]
        doubtful, others = doubtful + masks, [name for name in others if name not in masks]
    if not doubtful or not others:
        return []
    place = printable(f"{where}/{parent}" if parent else where)
    for name in doubtful:
        if words[name] in _LONE:
            raise ValueError(
                f"{place} has the folder {printable(name)} beside {said(others)}: if it is a class, set data.split "
                "all; if not, move it elsewhere"
            )
    return [
        f"{place}: the folder {said(doubtful)} beside {said(others)} is read as a class, not as a split"
    ]


Mark = tuple[Folder, str, str]
"""A folder that names a split: where it is, its name and its kind."""


def _marks(path: Folder, levels: Levels) -> tuple[list[Mark] | None, Folder]:
    """The splits on the way to a file, None beside them all, and the way without them."""
    marks: list[Mark] = []
    rest: list[str] = []
    for depth, name in enumerate(path):
        kinds = levels.get(path[:depth])
        if kinds is None:
            rest.append(name)
        elif name in kinds:
            marks.append((path[:depth], name, kinds[name]))
        else:
            return None, ()
    return None if path in levels else marks, tuple(rest)


def _matching(kinds: dict[str, str], split: str) -> set[str]:
    """Those of the names that are the split; a name that is typed in full is the only one."""
    exact = {name for name in kinds if simple(name) == simple(split)}
    if exact and split != TRAIN:
        return exact
    kind = _SPLITS.get("".join(_words(split)))
    return {name for name in kinds if kind == kinds[name] != OTHER}


def _special(marks: list[Mark]) -> list[Mark]:
    """The marks that decide: masks and predictions, else splits, else plain pictures."""
    special = [mark for mark in marks if mark[2] in (MASKS, OTHER)]
    return special or [mark for mark in marks if mark[2] != PLAIN] or marks


def _wanted(marks: list[Mark], matching: dict[Folder, set[str]], split: str) -> bool:
    """Whether a file with these splits on its way is of the split."""
    decisive = _special(marks)
    if all(kind == PLAIN for _, _, kind in decisive):
        return split == TRAIN
    found = [name in matching[at] for at, name, _ in decisive]
    return any(found) if decisive[0][2] in (MASKS, OTHER) else all(found)


def without_companions(names: Sequence[str], where: str) -> tuple[list[int], tuple[str, ...]]:
    """The numbers of the pictures that are no masks of others, such as 0_mask.png beside 0.png, and
    what there is to say."""
    stems = [posixpath.splitext(name)[0] for name in names]
    plain = set(stems)
    mask_of: dict[int, str] = {}
    for row, stem in enumerate(stems):
        found = _COMPANION.fullmatch(stem)
        if found and found[1] in plain:
            mask_of[row] = found[1]
    if not mask_of:
        return list(range(len(names))), _paired(names, stems, where)
    example, number = printable(names[next(iter(mask_of))]), len(mask_of)
    if 2 * len(set(mask_of.values())) < len(names) - number:
        return list(range(len(names))), (
            f"{where}: {counted(number)} with names such as {example} are read like the others: move them elsewhere "
            "if they are masks",
        )
    return [row for row in range(len(names)) if row not in mask_of], (
        f"{where}: {counted(number)} with names such as {example} are left out, as masks of others; data.split all "
        "takes them",
    )


def _paired(names: Sequence[str], stems: Sequence[str], where: str) -> tuple[str, ...]:
    """A note on pictures whose names say that they go with others, such as 0_depth with 0."""
    plain = set(stems)
    parts = [_PART.fullmatch(stem) for stem in stems]
    found = [part for part in parts if part and part[1] in plain]
    counts = Counter(part[2].casefold() for part in found)
    common = {word for word, number in counts.items() if 2 * number >= len(stems) - len(found)}
    paired = [
        name
        for name, part in zip(names, parts, strict=True)
        if part and part[1] in plain and part[2].casefold() in common
    ]
    if not paired:
        return ()
    return (
        f"{where}: {counted(len(paired))} with names such as {printable(paired[0])}, beside pictures without the last "
        "word, are read like the others: move them elsewhere if they are parts of others",
    )
