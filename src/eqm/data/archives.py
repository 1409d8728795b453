"""Encoded pictures in folders, zip and tar archives."""

from __future__ import annotations

import glob
import io
import json
import os
import posixpath
import stat
import tarfile
import zipfile
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path, PurePosixPath
from typing import BinaryIO

import torch
from torch import Tensor

from eqm.data.decoding import is_picture
from eqm.data.images import count_classes
from eqm.data.source import digest
from eqm.reading import LARGEST, BoundedFile, PerProcess, inside, open_regular

_LABEL = 1 << 20
"""Bytes of a label's file at most; a larger one holds something else."""
_DEEP = 100
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


def folder(path: Path, *, outside: bool = False) -> PictureFiles:
    """The pictures under `path`. Each folder in it is a class; without folders there are no classes.

    Hidden files and folders are ignored, and so are links to a folder around them. Raises ValueError
    when there are no pictures, some lie beside class folders, or a class folder has none; and for links
    that lead out of `path`, unless `outside`.
    """
    sizes: dict[str, int] = {}
    folders: set[str] = set()
    others: list[str] = []
    visits: Counter[str] = Counter()
    for root, below, found in os.walk(path, followlinks=True, onerror=_unreadable):
        base = Path(root).relative_to(path)
        around = {(path / part).resolve() for part in (base, *base.parents)}
        visits[real := os.path.realpath(root)] += 1
        if visits[real] > _DEEP:
            raise ValueError(
                f"links in {path} lead to {base} by more than {_DEEP} paths: remove them"
            )
        below[:] = sorted(
            name
            for name in below
            if not name.startswith(".")
            and not (Path(root, name).is_symlink() and Path(root, name).resolve() in around)
        )
        folders.update((base / name).as_posix() for name in below)
        for name in (*below, *found):
            if not name.startswith(".") and Path(root, name).is_symlink():
                inside(path, (base / name).as_posix(), outside=outside)
        for name in sorted(found):
            file = (base / name).as_posix()
            if name.startswith("."):
                continue
            if not is_picture(name):
                others.append(file)
                continue
            try:
                sizes[file] = (path / file).stat().st_size
            except OSError:  # a link to nowhere: a picture that cannot be read
                sizes[file] = 0
    names = sorted(sizes)
    labels, classes = classes_of(str(path), names, folders)
    return PictureFiles(
        path.resolve().name,
        names,
        labels,
        classes,
        digest(*names, *map(sizes.__getitem__, names)),
        partial(open_file, path, names),
        tuple(others),
    )


def open_file(path: Path, names: Sequence[str], index: int) -> BinaryIO:
    """The file of that number in the folder `path`."""
    return open_regular(path / names[index])


def _unreadable(error: OSError) -> None:
    raise ValueError(f"cannot read {error.filename} ({error.strerror}): check its permissions")


def zipped(path: Path) -> PictureFiles:
    """The pictures in a zip, laid out as in a folder.

    Raises ValueError as `folder` does, and for a zip that is damaged or needs a password.
    """
    archive = PerProcess(partial(_open_zip, path))
    try:
        members = sorted(archive().infolist(), key=lambda member: member.filename)
        _check_apart(members)
    except (zipfile.BadZipFile, OSError, EOFError, ValueError, NotImplementedError) as error:
        raise ValueError(f"{path} is not a whole zip file ({error}): copy it again") from error
    members = [member for member in members if not _hidden(member.filename)]
    if any(member.flag_bits & 1 for member in members):
        raise ValueError(f"{path} needs a password: unpack it, and give the folder")
    folders = {member.filename.rstrip("/") for member in members if member.is_dir()}
    files = [member for member in members if not member.is_dir()]
    pictures = [member for member in files if is_picture(member.filename)]
    names = [member.filename for member in pictures]
    labels, classes = classes_of(str(path), names, folders)
    return PictureFiles(
        path.stem,
        names,
        labels,
        classes,
        digest(*((m.filename, m.file_size, m.CRC) for m in pictures)),
        partial(_open_member, archive, pictures),
        tuple(member.filename for member in files if not is_picture(member.filename)),
    )


def _open_member(
    archive: PerProcess[zipfile.ZipFile], members: Sequence[zipfile.ZipInfo], index: int
) -> BinaryIO:
    member = members[index]
    if stat.S_ISLNK(member.external_attr >> 16):
        raise ValueError("it is a link: pack the file itself")
    _check_size(member.file_size)
    # Threads may read at once: the archive seeks and reads under a lock.
    return io.BytesIO(archive().read(member))


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


def tars(pattern: str) -> PictureFiles:
    """The pictures in a tar, in all tars of a folder, or in all that match a pattern with `*`.

    Labels are those of WebDataset: `000.jpg` has its label in `000.cls`, or in `000.json` as `label`
    or `cls`. Without them, folders are classes. Archives are read once to note where each picture
    begins.

    Raises ValueError for archives that are compressed, damaged or cut short, and for labels that
    are missing or no whole numbers.
    """
    path = Path(pattern)
    matches = path.glob("*.tar") if path.is_dir() else map(Path, glob.glob(pattern))  # noqa: PTH207
    paths = sorted(matches)
    if not paths:
        raise ValueError(f"no tar files at {pattern}: give a tar, a folder of them, or a pattern")
    names: list[str] = []
    places: list[tuple[Path, int, int]] = []
    numbers: list[int | None] = []
    others: list[str] = []
    for archive in paths:
        # Shards may hold the same names again, so only the names within one are paired.
        shard: list[tuple[str, int, int]] = []
        labels: dict[str, int] = {}
        stored: dict[str, tuple[int, int]] = {}
        for member, content in _members(archive):
            if member.issym() or member.islnk():
                if (place := stored.get(_linked(member))) is None:
                    others.append(f"{archive.name}:{member.name}")
                    continue
                member.offset_data, member.size = place
            stored[member.name] = member.offset_data, member.size
            if is_picture(member.name):
                shard.append((member.name, member.offset_data, member.size))
            elif content is None:
                others.append(f"{archive.name}:{member.name}")
            elif (number := _label(archive, member.name, content)) is not None:
                labels[_key(member.name)] = number
        for name, start, size in shard:
            names.append(name)
            places.append((archive, start, size))
            numbers.append(labels.get(_key(name)))
    name = path.stem if len(paths) == 1 else (path if path.is_dir() else path.parent).name or "tar"
    missing = [where for where, number in zip(names, numbers, strict=True) if number is None]
    if missing and len(missing) < len(names):
        raise ValueError(
            f"{pattern}: {len(missing)} of {len(names)} pictures have no label, the first is "
            f"{missing[0]}: add a .cls for each, or remove them all"
        )
    known = [number for number in numbers if number is not None]
    if names and not missing:
        classes = tuple(map(str, range(count_classes(pattern, known))))
        labelled: Tensor | None = torch.tensor(known)
    else:
        labelled, classes = classes_of(pattern, names, ())

    sizes = [(archive.name, start, size) for archive, start, size in places]
    fingerprint = digest(*names, *sizes, *numbers)
    reader = partial(_open_place, places)
    return PictureFiles(name, names, labelled, classes, fingerprint, reader, tuple(others))


def _open_place(places: Sequence[tuple[Path, int, int]], index: int) -> BinaryIO:
    archive, start, size = places[index]
    _check_size(size)
    with open_regular(archive) as file:
        file.seek(start)
        return io.BytesIO(file.read(size))


def _members(path: Path) -> Iterable[tuple[tarfile.TarInfo, bytes | None]]:
    """The files of a tar in order, with the content of those that may hold labels."""
    try:
        with BoundedFile(path) as file, tarfile.open(fileobj=file, mode="r:") as archive:
            length = path.stat().st_size
            for member in archive:
                if member.isdir() or _hidden(member.name):
                    continue
                if member.issparse():
                    raise tarfile.ReadError(
                        f"{member.name} is stored sparse: pack without --sparse"
                    )
                if not member.isfile():
                    yield member, None
                    continue
                if member.offset_data + member.size > length:
                    raise tarfile.ReadError("unexpected end of data")
                content = None
                labelled = PurePosixPath(member.name).suffix in (".cls", ".json")
                if labelled and member.size <= _LABEL:
                    file.seek(member.offset_data)
                    content = file.read(member.size)
                yield member, content
            # tarfile silently takes a damaged header for the end.
            file.seek(archive.offset)
            if file.read(tarfile.BLOCKSIZE) != bytes(tarfile.BLOCKSIZE):
                raise tarfile.ReadError("it is damaged or cut short amid its members")
    except (tarfile.TarError, OSError, EOFError) as error:
        raise ValueError(
            f"{path} is not a whole, uncompressed tar ({error}): copy it again, or unpack it with gunzip"
        ) from error


def _linked(member: tarfile.TarInfo) -> str:
    """The name of the member that a link in a tar stands for."""
    if member.islnk():
        return member.linkname
    return posixpath.normpath(posixpath.join(posixpath.dirname(member.name), member.linkname))


def _key(name: str) -> str:
    """The name up to the first dot, which all files of a sample share."""
    return f"{PurePosixPath(name).parent}/{PurePosixPath(name).name.partition('.')[0]}"


def _label(archive: Path, name: str, content: bytes) -> int | None:
    try:
        if name.endswith(".cls"):
            return int(content)
        found = json.loads(content)
        label = found.get("label", found.get("cls")) if isinstance(found, dict) else None
        if isinstance(label, float) and not label.is_integer():
            raise ValueError(label)
        return None if label is None else int(label)
    except (ValueError, TypeError) as error:
        raise ValueError(
            f"{archive}: the label in {name} must be a whole number; got {content[:40]!r}"
        ) from error


def _hidden(name: str) -> bool:
    return any(part.startswith((".", "__MACOSX")) for part in PurePosixPath(name).parts)


def classes_of(
    where: str, names: Sequence[str], folders: Iterable[str]
) -> tuple[Tensor | None, tuple[str, ...]]:
    """The labels of pictures by the first folder in their names, and the names of those folders.

    `folders` are all folders, with the empty ones. Folders around everything are ignored; pictures
    that all lie in one folder have no classes, (None, ()). Raises ValueError as `folder` does.

    >>> classes_of("pets", ["pets/cat/1.png", "pets/dog/1.png"], ())[1]
    ('cat', 'dog')
    """
    if not names:
        raise ValueError(
            f"no pictures in {where}: expected files that end in .png, .jpg, .webp, .tif or the like"
        )
    parts = [PurePosixPath(name).parts for name in names]
    kinds = {PurePosixPath(name).parts for name in folders}
    depth = 0
    while True:
        first = {part[depth] if len(part) > depth + 1 else "" for part in parts}
        first |= {kind[depth] for kind in kinds if len(kind) > depth}
        if len(first) > 1 or "" in first:
            break
        depth += 1
    counts = Counter(part[depth] if len(part) > depth + 1 else "" for part in parts)
    if set(counts) == {""}:
        if first == {""}:
            return None, ()
    elif "" in counts:
        loose = next(n for n, part in zip(names, parts, strict=True) if len(part) <= depth + 1)
        raise ValueError(
            f"{where} has {counts['']} picture{'s' * (counts[''] > 1)} beside class folders, such as {loose}: "
            "put each into a folder, or keep only pictures or only folders"
        )
    if empty := sorted(first - set(counts)):
        raise ValueError(
            f"{where}: the class folder {', '.join(empty)} has no pictures: fill it, or move it elsewhere"
        )
    classes = tuple(sorted(counts))
    number = {name: k for k, name in enumerate(classes)}
    return torch.tensor([number[part[depth]] for part in parts]), classes
