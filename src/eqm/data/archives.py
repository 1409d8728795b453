"""Encoded pictures in folders, zips and tars."""

from __future__ import annotations

import io
import lzma
import os
import posixpath
import shutil
import stat
import tarfile
import zipfile
import zlib
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import BinaryIO

from eqm.data.config import DataConfig
from eqm.data.picture_files import File, PictureFiles, choose
from eqm.data.source import digest
from eqm.data.splits import is_litter, kept_shards
from eqm.naming import said
from eqm.reading import LARGEST, BoundedFile, PerProcess, inside, open_regular

_DEEP = 20
"""Paths that may lead to one folder by links."""


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

    chosen = choose(str(path), found.files, found.folders, config, read, found.litter)
    names = [file.name for file in chosen.pictures]
    fingerprint = digest(*names, *(file.size for file in chosen.pictures))
    return chosen.files(path.resolve().name, fingerprint, partial(open_file, path, names))


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
        chosen = choose(str(path), files, folders, config, read)
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
    chosen = choose(
        where, files, (), config, lambda file, most: _read(file.place, most), samples=True
    )
    path = Path(where)
    name = path.stem if len(archives) == 1 else (path if path.is_dir() else path.parent).name
    names = [file.name for file in chosen.pictures]
    places = [file.place for file in chosen.pictures]
    sizes = [(archive.name, start, size) for archive, start, size in places]
    labels, beside = chosen.found.labels, chosen.found.beside
    numbers = labels.tolist() if labels is not None and beside else [None] * len(names)
    links = tuple(file.name for file in found if file.size < 0)
    if links:
        notes += (
            f"{where}: links that lead to no file in the tar are not read ({len(links):,}), {said(links, most=2)}",
        )
    chosen = replace(chosen, others=chosen.others + links, notes=notes + chosen.notes)
    fingerprint = digest(*names, *sizes, *numbers)
    return chosen.files(name or "tar", fingerprint, partial(_open_place, places))


Place = tuple[Path, int, int]
"""Where a file lies in a tar: the tar, the first byte and the number of bytes."""


def _open_place(places: Sequence[Place], index: int) -> BinaryIO:
    place = places[index]
    _check_size(place[2])
    return io.BytesIO(_read(place, LARGEST))


def _read(place: Place, most: int) -> bytes:
    archive, start, size = place
    with open_regular(archive) as file:
        file.seek(start)
        return file.read(min(size, most))


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
