"""Encoded pictures in folders, zip and tar archives."""

from __future__ import annotations

import glob
import io
import lzma
import os
import posixpath
import re
import shutil
import stat
import tarfile
import zipfile
import zlib
from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Any, BinaryIO

from torch import Tensor

from eqm.data.config import DataConfig
from eqm.data.decoding import is_picture
from eqm.data.label_files import Contents, key_of
from eqm.data.labelling import Labelled, labelled
from eqm.data.source import MissingDataError, digest
from eqm.data.splits import DOCUMENTS, is_litter, kept_shards, kept_split, without_companions
from eqm.files import printable
from eqm.naming import counted, said
from eqm.reading import LARGEST, BoundedFile, PerProcess, inside, open_regular

MOST_FILES = 100_000
"""A pattern that stands for more files is refused."""
_BRACES = re.compile(r"\{(?:(\d{1,18})\.\.(\d{1,18})|([^{}]*,[^{}]*))\}")
_DEEP = 20
"""Paths that may lead to one folder by links."""


@dataclass(frozen=True, eq=False)
class PictureFiles:
    """N encoded pictures: their names, their classes, and how to open each."""

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
class Walk:
    """The files below a folder."""

    files: list[File]
    folders: list[str]
    litter: list[str]
    """What systems left behind, which is skipped."""


def walk(path: Path, *, outside: bool = False) -> Walk:
    """The files below `path`, sorted by name, without hidden ones and links to a folder around them.

    Raises ValueError for a folder that cannot be read, and for links that lead out of `path`, unless
    `outside`."""
    found = Walk([], [], [])
    visits: Counter[str] = Counter()
    real: dict[Path, str] = {}
    for root, below, names in os.walk(path, followlinks=True, onerror=_unreadable):
        base = Path(root).relative_to(path)
        real[base] = os.path.realpath(root)
        around = {real[part] for part in (base, *base.parents)}
        visits[real[base]] += 1
        if visits[real[base]] > _DEEP:
            raise ValueError(
                f"links in {path} lead to one folder by more than {_DEEP} paths, such as {base}: remove "
                "links"
            )
        before = "" if root == str(path) else f"{base.as_posix()}/"
        found.litter.extend(before + name for name in below if is_litter(name))
        below[:] = sorted(
            name
            for name in below
            if not is_litter(name)
            and not (Path(root, name).is_symlink() and os.path.realpath(Path(root, name)) in around)
        )
        found.folders.extend(before + name for name in below)
        for name in (*below, *names):
            if os.path.islink(os.path.join(root, name)) and not is_litter(name):  # noqa: PTH114, PTH118
                inside(path, before + name, outside=outside)
        for name in sorted(names):
            if is_litter(name):
                found.litter.append(before + name)
                continue
            try:
                size = os.stat(os.path.join(root, name)).st_size  # noqa: PTH116, PTH118
            except OSError:  # a link to nowhere: a picture that cannot be read
                size = 0
            found.files.append(File(before + name, size))
    found.files.sort(key=lambda file: file.name)
    return found


def folder(path: Path, config: DataConfig, walked: Walk | None = None) -> PictureFiles:
    """The pictures under `path`. Each folder in it is a class, unless it is a split, or a file beside the
    pictures has their labels; without folders there are no classes.

    Raises ValueError when there are no pictures, some lie beside class folders, or a class folder has
    none.
    """
    found = walked or walk(path, outside=config.outside)

    def read(file: File, most: int) -> bytes:
        with open_regular(path / file.name) as opened:
            return opened.read(most)

    chosen = _chosen(str(path), found.files, found.folders, config, read, found.litter)
    names = [file.name for file in chosen.pictures]
    fingerprint = digest(*names, *(file.size for file in chosen.pictures))
    return chosen.files(path.resolve().name, fingerprint, partial(open_file, path, names))


@dataclass(frozen=True)
class _Chosen:
    """The pictures of a data set that are read, and their labels."""

    pictures: list[File]
    found: Labelled
    others: tuple[str, ...]
    notes: tuple[str, ...]

    def files(self, name: str, fingerprint: str, opener: Callable[[int], BinaryIO]) -> PictureFiles:
        """They, with what differs between folders and archives."""
        names, found = [file.name for file in self.pictures], self.found
        return PictureFiles(
            *(name, names, found.labels, found.class_names, fingerprint, opener),
            others=self.others,
            notes=self.notes,
        )


def _chosen(
    where: str,
    files: Sequence[File],
    folders: Collection[str],
    config: DataConfig,
    read: Callable[[File, int], bytes],
    litter: Sequence[str] = (),
    *,
    samples: bool = False,
) -> _Chosen:
    """The pictures of `config.split` among files, with their labels; what is not read is noted.

    `read` gives the first bytes of a file. With `samples`, files with one key are one sample, as in
    WebDataset. Raises ValueError where there are no pictures, and as `kept_split` and `labelled` do.
    """
    everything: list[File] = []
    others: list[File] = []
    litter = list(litter)
    for file in files:
        if is_litter(file.name):
            litter.append(file.name)
        else:
            (everything if is_picture(file.name) else others).append(file)
    if not everything:
        there = [file.name for file in others] or litter
        instead = f"; it holds {said(there)}" if there else ""
        raise ValueError(
            f"no pictures in {where}: expected files that end in .png, .jpg, .webp, .tif or the like{instead}"
        )
    twice, times = Counter((file.archive, file.name) for file in everything).most_common(1)[0]
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
    found = Labelled(None)
    if config.labels or config.classes:

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
        found = labelled(contents, config.labels_from)
    return _Chosen(pictures, found, tuple(file.name for file in others), (*notes, *found.notes))


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
        and not PurePosixPath(file.name).name.isupper()
    ]
    if unknown:
        notes.append(
            f"{where}: files that do not end as pictures do are not read ({len(unknown):,}), {said(unknown, most=2)}"
        )
    return tuple(notes)


def open_file(path: Path, names: Sequence[str], index: int) -> BinaryIO:
    """The file of that number in the folder `path`."""
    return open_regular(path / names[index])


def _unreadable(error: OSError) -> None:
    raise ValueError(f"cannot read {error.filename} ({error.strerror}): check its permissions")


def zipped(path: Path, config: DataConfig) -> PictureFiles:
    """The pictures in a zip, laid out as in a folder.

    Raises ValueError as `folder` does, and for a zip that is damaged or needs a password.
    """
    archive = PerProcess(partial(_open_zip, path))
    try:
        members = sorted(archive().infolist(), key=lambda member: member.filename)
        _check_apart(members)
    except (zipfile.BadZipFile, OSError, EOFError, ValueError, NotImplementedError) as error:
        raise ValueError(f"{path} is not a whole zip file ({error}): copy it again") from error
    files = [
        File(_slashed(one), one.file_size, one) for one in members if _slashed(one)[-1:] != "/"
    ]
    if any(file.place.flag_bits & 1 for file in files if not is_litter(file.name)):
        raise ValueError(f"{path} needs a password: unpack it, and give the folder")
    folders = {_slashed(one).rstrip("/") for one in members if _slashed(one)[-1:] == "/"}

    def read(file: File, most: int) -> bytes:
        with archive().open(file.place) as opened:
            return opened.read(most)

    try:
        chosen = _chosen(str(path), files, folders, config, read)
    except (zipfile.BadZipFile, zlib.error, lzma.LZMAError, EOFError, NotImplementedError) as error:
        raise ValueError(f"{path} is not a whole zip file ({error}): copy it again") from error
    pictures: list[zipfile.ZipInfo] = [file.place for file in chosen.pictures]
    fingerprint = digest(*((m.filename, m.file_size, m.CRC) for m in pictures))
    return chosen.files(path.stem, fingerprint, partial(_open_member, archive, pictures))


def _slashed(member: zipfile.ZipInfo) -> str:
    return member.filename.replace("\\", "/")  # as some programs for Windows write them


def _open_member(
    archive: PerProcess[zipfile.ZipFile], members: Sequence[zipfile.ZipInfo], index: int
) -> BinaryIO:
    member = members[index]
    if stat.S_ISLNK(member.external_attr >> 16):
        raise ValueError("it is a link: pack the file itself")
    _check_size(member.file_size)
    # Threads may read at once: the archive seeks and reads under a lock. It is read in pieces, as what is
    # unpacked from one could be far more than the archive says.
    content = io.BytesIO()
    with archive().open(member) as file:
        shutil.copyfileobj(file, content, 1 << 20)
    content.seek(0)
    return content


def _open_zip(path: Path) -> zipfile.ZipFile:
    return zipfile.ZipFile(BoundedFile(path))


def _check_apart(members: Iterable[zipfile.ZipInfo]) -> None:
    """Raises ValueError where members share bytes, so that a small zip unpacks to very much."""
    end = 0
    for member in sorted(members, key=lambda member: member.header_offset):
        if member.header_offset < end:
            raise ValueError(f"{member.filename} lies inside another file")
        end = member.header_offset + 30 + len(member.filename) + member.compress_size


def _check_size(size: int) -> None:
    if size > LARGEST:
        raise ValueError(
            f"it has {size:,} bytes, more than the {LARGEST:,} that are read from an archive: unpack the "
            "archive"
        )


def tars(where: str, archives: Sequence[Path], config: DataConfig, *, asked: bool) -> PictureFiles:
    """The pictures in tars; `where` names them together, and `asked` is that of
    `kept_shards`.

    Files of one sample have one key, as in WebDataset: `000.jpg` has its label in `000.cls`, or in
    `000.json` as `label` or `cls`. Without them, folders are classes. Archives are read once to note
    where each picture begins.

    Raises ValueError for archives that are compressed, damaged or cut short, and as `folder` does.
    """
    archives, notes, told = kept_shards(where, archives, config.split, asked=asked)
    found = [file for number, path in enumerate(archives) for file in _members(path, number)]
    # A link to nowhere, a device or a pipe is no file.
    files = [file for file in found if file.size >= 0]
    if told and config.split != "all":  # the archives were chosen
        config = replace(config, split="train")
    chosen = _chosen(where, files, (), config, _read_place, samples=True)
    path = Path(where)
    name = path.stem if len(archives) == 1 else (path if path.is_dir() else path.parent).name
    names = [file.name for file in chosen.pictures]
    places = [file.place for file in chosen.pictures]
    sizes = [(archive.name, start, size) for archive, start, size in places]
    labels, beside = chosen.found.labels, chosen.found.beside
    numbers = labels.tolist() if labels is not None and beside else [None] * len(names)
    links = (file.name for file in found if file.size < 0)
    chosen = replace(chosen, others=(*chosen.others, *links), notes=notes + chosen.notes)
    fingerprint = digest(*names, *sizes, *numbers)
    return chosen.files(name or "tar", fingerprint, partial(_open_place, places))


def _open_place(places: Sequence[tuple[Path, int, int]], index: int) -> BinaryIO:
    archive, start, size = places[index]
    _check_size(size)
    with open_regular(archive) as file:
        file.seek(start)
        return io.BytesIO(file.read(size))


def _read_place(file: File, most: int) -> bytes:
    archive, start, size = file.place
    with open_regular(archive) as opened:
        opened.seek(start)
        return bytes(opened.read(min(size, most)))


def _members(path: Path, number: int) -> Iterator[File]:
    """The files of a tar, in order; a link is the file that it stands for."""
    stored: dict[str, tuple[int, int]] = {}
    try:
        with BoundedFile(path) as file, tarfile.open(fileobj=file, mode="r:") as archive:
            length = path.stat().st_size
            for member in archive:
                if member.isdir():
                    continue
                if member.issparse():
                    raise tarfile.ReadError(
                        f"{member.name} is stored sparse: pack without --sparse"
                    )
                place = member.offset_data, member.size
                if member.issym() or member.islnk():
                    place = stored.get(_linked(member), (0, -1))
                elif not member.isfile():
                    place = (0, -1)
                elif sum(place) > length:
                    raise tarfile.ReadError("unexpected end of data")
                stored[member.name] = place
                yield File(member.name, place[1], (path, *place), number)
            # tarfile silently takes a damaged header for the end.
            file.seek(archive.offset)
            if file.read(tarfile.BLOCKSIZE) != bytes(tarfile.BLOCKSIZE):
                raise tarfile.ReadError("it is damaged or cut short amid its members")
    except (tarfile.TarError, OSError, EOFError, ValueError) as error:
        raise ValueError(
            f"{path} is not a whole, uncompressed tar ({error}): copy it again, or unpack it with gunzip"
        ) from error


def _linked(member: tarfile.TarInfo) -> str:
    """The name of the member that a link in a tar stands for."""
    if member.islnk():
        return member.linkname
    return posixpath.normpath(posixpath.join(posixpath.dirname(member.name), member.linkname))


def expanded(pattern: str) -> list[Path]:
    """The files that a pattern with `{000..009}`, `{a,b}`, `*`, `?` or `**` stands for.

    Raises MissingDataError where some of them are not there, and ValueError for too many.
    """
    found: list[Path] = []
    missing: list[str] = []
    for name in _unbraced(pattern):
        matches = [name]
        if glob.has_magic(name):
            matches = glob.glob(name, recursive=True)  # noqa: PTH207
        there = [Path(match) for match in sorted(matches) if Path(match).is_file()]
        found += [path for path in there if not is_litter(path.name)]
        if not there:
            missing.append(name)
    if missing:
        of = f", {len(missing):,} of {len(missing) + len(found):,} files" if found else ""
        raise MissingDataError(f"there is no {said(missing)}{of}: check {pattern}")
    return list(dict.fromkeys(found))


def _unbraced(pattern: str) -> list[str]:
    """The patterns without braces that a pattern with braces stands for, as in a shell."""
    done, left = [], [pattern]
    while left:
        text = left.pop()
        brace = _BRACES.search(text)
        if brace is None:
            done.append(text)
            continue
        if brace[1]:
            first, last = int(brace[1]), int(brace[2])
            if abs(last - first) >= MOST_FILES:
                raise ValueError(
                    f"{pattern} stands for more than {MOST_FILES:,} files: check the numbers in it"
                )
            width = (
                max(map(len, brace.groups()[:2])) if brace[1][0] == "0" or brace[2][0] == "0" else 0
            )
            steps = range(first, last + 1) if first <= last else range(first, last - 1, -1)
            choices = [f"{number:0{width}}" for number in steps]
        else:
            choices = brace[3].split(",")
        if len(choices) * (len(left) + len(done) + 1) > MOST_FILES:
            raise ValueError(
                f"{pattern} stands for more than {MOST_FILES:,} files: check the numbers in it"
            )
        left += [text[: brace.start()] + one + text[brace.end() :] for one in reversed(choices)]
    return done
