"""Which files of a folder or an archive are the pictures of a data set, and their labels."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath
from posixpath import normpath
from typing import Any, BinaryIO

from torch import Tensor

from eqm.data.caption_files import Captions, captions_beside
from eqm.data.config import DataConfig
from eqm.data.decoding import is_picture
from eqm.data.label_files import Contents, key_of
from eqm.data.labelling import Labelled, labelled
from eqm.data.splits import DOCUMENTS, is_litter, kept_split, without_companions
from eqm.files import printable
from eqm.naming import counted, said

SOUNDS = (".wav", ".flac", ".ogg")
"""Endings of sounds that are read where there are no pictures."""


@dataclass(frozen=True, eq=False)
class PictureFiles:
    """N encoded pictures, or sounds: their names, their classes, and how to open each."""

    name: str
    names: Sequence[str]
    labels: Tensor | None
    class_names: tuple[str, ...]
    fingerprint: str
    """Hexadecimal digest of names and sizes, in archives also of checksums or labels; not of the
    pictures themselves."""
    open: Callable[[int], BinaryIO]
    """Opens a picture by its number. It pickles, and works in a forked process."""
    others: tuple[str, ...] = ()
    """Files that are no pictures, which are ignored."""
    notes: tuple[str, ...] = ()
    """Sentences that say how the files were read."""
    captions: Captions | None = None
    """The captions of each, if they are asked for."""


@dataclass(frozen=True)
class File:
    """A file in a folder or an archive."""

    name: str
    size: int
    place: Any = None
    """Where it is, for the container that opens it."""
    archive: int = 0
    """The number of its archive, if there are several."""


@dataclass(frozen=True)
class Chosen:
    """The pictures of a data set that are read, and their labels."""

    pictures: list[File]
    found: Labelled
    others: tuple[str, ...]
    notes: tuple[str, ...]
    captions: Captions | None = None

    def files(self, name: str, fingerprint: str, opener: Callable[[int], BinaryIO]) -> PictureFiles:
        """They, with what differs between folders and archives."""
        names, found = [file.name for file in self.pictures], self.found
        return PictureFiles(
            *(name, names, found.labels, found.class_names, fingerprint, opener),
            others=self.others,
            notes=self.notes,
            captions=self.captions,
        )


def choose(
    where: str,
    files: Sequence[File],
    folders: Collection[str],
    config: DataConfig,
    read: Callable[[File, int], bytes],
    litter: Sequence[str] = (),
    *,
    samples: bool = False,
) -> Chosen:
    """The pictures of `config.split` among files, with their labels; what is not read is noted.

    `read` gives the first bytes of a file. With `samples`, files with one key are one sample, as in
    WebDataset. Raises ValueError where there are no pictures, and as `kept_split` and `labelled` do.
    """
    everything: list[File] = []
    others: list[File] = []
    litter = list(litter)
    is_wanted = is_picture
    if not any(is_picture(file.name) and not is_litter(file.name) for file in files):
        sounds = any(file.name.lower().endswith(SOUNDS) for file in files)
        is_wanted = _is_sound if sounds else is_picture
    for file in files:
        if is_litter(file.name):
            litter.append(file.name)
        else:
            (everything if is_wanted(file.name) else others).append(file)
    if not everything:
        there = [file.name for file in others] or litter
        instead = f"; it holds {said(there)}" if there else ""
        raise ValueError(
            f"no pictures in {where}: expected files that end in .png, .jpg, .webp, .tif or the like, or "
            f"sounds (.wav, .flac, .ogg){instead}"
        )
    places = Counter((file.archive, normpath(file.name)) for file in everything)
    twice, times = places.most_common(1)[0]
    if times > 1:
        raise ValueError(f"{where} holds {printable(twice[1])} {times} times: pack it again")
    folders = [name for name in folders if not is_litter(name)]
    kept = kept_split(where, [file.name for file in everything], folders, config.split)
    notes = _notes_on_files(where, everything, others, litter) + kept.notes
    pictures = [everything[row] for row in kept.rows]
    paths = kept.paths
    if config.split != "all":
        rows, more = without_companions([file.name for file in pictures], where)
        if samples:
            rows, also = _one_of_each_sample(where, pictures, rows)
            more += also
        pictures, paths = [pictures[row] for row in rows], [paths[row] for row in rows]
        notes += more
    found, captions = Labelled(None), None
    labels = config.labels and not config.captions
    if labels or config.classes or config.captions:

        def content(row: int, most: int) -> bytes:
            start = b"" if others[row].size > most else read(others[row], most + 1)
            if max(others[row].size, len(start)) > most:
                raise ValueError(
                    f"{where}: {printable(others[row].name)} has more than {most:,} bytes: move it elsewhere, or turn "
                    "data.labels off"
                )
            return start

        contents = Contents(
            where,
            [file.name for file in pictures],
            paths,
            kept.folders,
            [file.name for file in others],
            content,
            ([file.archive for file in pictures], [file.archive for file in others]),
            sorted({file.name for file in everything} - {file.name for file in pictures}),
        )
        if labels or config.classes:
            found = labelled(contents, config.labels_from)
        if config.captions:
            captions, more = captions_beside(contents, config.captions)
            notes += more
    names = tuple(file.name for file in others)
    return Chosen(pictures, found, names, (*notes, *found.notes), captions)


def _is_sound(name: str) -> bool:
    return name.lower().endswith(SOUNDS)


def _one_of_each_sample(
    where: str, pictures: Sequence[File], rows: Sequence[int]
) -> tuple[list[int], tuple[str, ...]]:
    """Of several pictures with one key, such as 0.png and 0.seg.png, the one with a plain ending."""
    samples: defaultdict[tuple[int, str], list[int]] = defaultdict(list)
    for row in rows:
        samples[pictures[row].archive, key_of(pictures[row].name)[0]].append(row)
    kept: list[int] = []
    left: list[int] = []
    for row in rows:
        same = samples[pictures[row].archive, key_of(pictures[row].name)[0]]
        plain = [one for one in same if "." not in key_of(pictures[one].name)[1]]
        if len(same) > 1 and len(plain) != 1:
            raise ValueError(
                f"{where}: {said([pictures[one].name for one in same])} belong to one sample: keep one picture of "
                "each, or set data.split all to read all of them"
            )
        (kept if len(same) == 1 or row in plain else left).append(row)
    if not left:
        return kept, ()
    example = printable(pictures[left[0]].name)
    return kept, (
        f"{where}: {counted(len(left))} with names such as {example} are left out, as other parts of samples; "
        "data.split all takes them",
    )


def _notes_on_files(
    where: str, pictures: Sequence[File], others: Sequence[File], litter: Sequence[str]
) -> tuple[str, ...]:
    notes = []
    # Files such as .DS_Store are in every folder, and nobody misses them.
    skipped = [
        name for name in litter if is_picture(name) or not PurePosixPath(name).name.startswith(".")
    ]
    skipped = [name for name in skipped if PurePosixPath(name).suffix.lower() not in DOCUMENTS]
    if skipped:
        notes.append(f"{where}: what a system left behind is skipped, {said(skipped, most=2)}")
    empty = [file.name for file in pictures if not file.size]
    if empty:
        notes.append(
            f"{where}: some pictures have no bytes ({len(empty):,}), {said(empty, most=2)}"
        )
    unknown = [
        file.name
        for file in others
        if PurePosixPath(file.name).suffix.lower() not in DOCUMENTS
        and (PurePosixPath(file.name).suffix or not PurePosixPath(file.name).name.isupper())
    ]
    if unknown:
        notes.append(
            f"{where}: files that do not end as pictures do are not read ({len(unknown):,}), {said(unknown, most=2)}"
        )
    return tuple(notes)
