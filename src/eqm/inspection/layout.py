"""The layout of MVTec: test/KIND, and masks in ground_truth/KIND or masks/KIND."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath

from eqm.files import printable

GOOD = "good"
"""The kind of parts without defects."""
MASKS = ("ground_truth", "masks")
"""Folders of masks beside the folder test."""
SUFFIX = "_mask"
"""May stand behind the name of a picture in that of its mask."""


@dataclass(frozen=True)
class Tested:
    """A picture to test."""

    number: int
    """Among all files."""
    kind: str
    mask: int | None
    """The number of its mask; None if its kind has no masks."""


def tested(where: str, names: Sequence[str]) -> list[Tested]:
    """The pictures in test/KIND among files with these names, with their masks, sorted by kind.

    The folder test may lie deeper, if there is one. Raises ValueError where there is none or more than one, no
    test/good, no other kind, a picture beside the folders of kinds, or where masks do not fit their pictures."""
    paths = [PurePosixPath(name) for name in names]
    roots = {
        path.parents[-1 - k]
        for path in paths
        for k, part in enumerate(path.parts[:-1])
        if part == "test"
    }
    layout = "expected test/good, test/KIND, and masks in ground_truth/KIND or masks/KIND"
    if len(roots) != 1:
        what = f"several folders test, in {_said(map(str, roots))}: give one" if roots else "none"
        raise ValueError(
            f"{where} must have a folder test as MVTec has it; it has {what}: {layout}"
        )
    root = roots.pop()
    kinds: defaultdict[str, list[int]] = defaultdict(list)
    masks: defaultdict[str, dict[str, int]] = defaultdict(dict)
    for number, path in enumerate(paths):
        if not path.is_relative_to(root):
            continue
        first, *inside = path.relative_to(root).parts
        if first == "test":
            if len(inside) < 2:
                raise ValueError(
                    f"{where} has the picture {printable(names[number])} beside the folders of kinds: move it into "
                    "test/good or test/KIND"
                )
            kinds[inside[0]].append(number)
        elif first in MASKS and len(inside) > 1:
            key = _key(inside[1:])
            if key in masks[inside[0]]:
                raise ValueError(
                    f"{where} has two masks for one picture, such as {printable(names[number])}: remove one"
                )
            masks[inside[0]][key] = number
    if GOOD not in kinds or len(kinds) < 2:
        raise ValueError(
            f"{where} must have pictures in test/good and in a folder of anomalies; it has {_said(kinds)}: {layout}"
        )
    found = []
    for kind, numbers in sorted(kinds.items(), key=lambda item: (item[0] != GOOD, item[0])):
        pictures = {_key(paths[number].relative_to(root).parts[2:]): number for number in numbers}
        if len(pictures) < len(numbers):
            raise ValueError(
                f"{where} has pictures in test/{printable(kind)} that differ in their endings only: rename them"
            )
        found += _paired(where, kind, pictures, masks.get(kind, {}), names)
    if unknown := sorted(masks.keys() - kinds.keys()):
        raise ValueError(
            f"{where} has masks of {_said(unknown)}, but no such folder in test: rename one of them"
        )
    return found


def _paired(
    where: str, kind: str, pictures: dict[str, int], masks: dict[str, int], names: Sequence[str]
) -> list[Tested]:
    """The pictures of a kind with their masks: all of them have one, or none."""
    # a picture may be called part_mask itself
    own = {
        key: masks[key + SUFFIX] if key + SUFFIX in masks else masks.get(key) for key in pictures
    }
    if masks:
        missing = [pictures[key] for key, mask in own.items() if mask is None]
        if missing:
            raise ValueError(
                f"{len(missing):,} of {len(own):,} pictures of {printable(kind)} in {where} have no mask, such as "
                f"{printable(names[missing[0]])}: its mask must have the same name, or end in {SUFFIX}"
            )
        spare = sorted(set(masks.values()) - set(own.values()))
        if spare:
            raise ValueError(
                f"{len(spare):,} masks in {where} have no picture, such as {printable(names[spare[0]])}: remove them, "
                "or add the pictures"
            )
    return [Tested(number, kind, own[key]) for key, number in pictures.items()]


def _key(parts: Sequence[str]) -> str:
    """The path below a kind without the ending of the file."""
    return PurePosixPath(*parts).with_suffix("").as_posix()


def _said(names: Iterable[str]) -> str:
    listed = sorted(map(printable, names))
    return ", ".join(listed[:5]) + ", ..." * (len(listed) > 5) or "none"
