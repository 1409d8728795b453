"""Opens the data set that a path or a name stands for, or checks all of it."""

from __future__ import annotations

import glob
from collections import Counter
from dataclasses import dataclass, field, replace
from math import ceil
from pathlib import Path

import torch

from eqm.data import builtin
from eqm.data.archives import PictureFiles, expanded, folder, tars, walk, zipped
from eqm.data.arrays import from_idx, from_npy, from_npz, is_idx
from eqm.data.builtin import say_small, small_copy
from eqm.data.config import DataConfig
from eqm.data.dataset import as_source
from eqm.data.decoding import Header, is_picture
from eqm.data.latents import check_latents, is_latents, open_latents
from eqm.data.parquet import hub_table, saved, table
from eqm.data.pictures import headers, pictures, remarks
from eqm.data.source import (
    MissingDataError,
    Source,
    class_names,
    notes_of,
    of_classes,
    say,
    without_labels,
)
from eqm.data.splits import check_no_splits
from eqm.data.values import Wanted
from eqm.registry import UnknownNameError, lookup, names


def open_source(config: DataConfig, *, small: bool = False, wanted: Wanted | None = None) -> Source:
    """The data set that `config` describes.

    How it was read, where there was a choice, is logged as information under `eqm.data`. Arrays have
    the axes and the range of the pictures `wanted` by a model, if one is given. If `small`, a data set
    that is not installed may be replaced by the small copy that comes with eqm; a warning says so.
    Raises MissingDataError where there is no data, and ValueError for data that cannot be trained on:
    no pictures, damaged archives, mixed sizes or channels, labels out of range, a class without
    pictures.
    """
    source = _opened(config, small=small, wanted=wanted)
    say(notes_of(source))
    return source


def _opened(config: DataConfig, *, small: bool = False, wanted: Wanted | None = None) -> Source:
    for name, value in (("size", config.size), ("channels", config.channels)):
        if value < 0:
            raise ValueError(
                f"data.{name} -1, to choose what suits the pictures, is for the recipe `folder`: set a "
                "number, or 0 to keep theirs"
            )
    try:
        source = _source(config, wanted)
    except MissingDataError:
        copy = small_copy(config) if small else None
        if copy is None:
            raise
        say_small(config.path, len(copy))
        source = copy
    if config.classes:
        source = of_classes(source, config.classes)
    if not config.labels:
        source = without_labels(source)
    if source.labels is not None:
        counts = torch.bincount(source.labels, minlength=source.num_classes)
        empty = (counts == 0).nonzero().flatten().tolist()
        if empty:
            known = class_names(source)
            named = ", ".join(known[number] for number in empty[:5])
            raise ValueError(
                f"{source.name}: {len(empty)} of {len(counts)} classes have no pictures: {named}"
                f"{', ...' if len(empty) > 5 else ''}: number the classes from 0, choose some by "
                "data.classes, or turn data.labels off"
            )
    return source


def opens_arrays(config: DataConfig) -> bool:
    """Whether the path stands for arrays or a data set with a name, not for encoded pictures."""
    path = Path(config.path)
    return (
        config.path in names("source")
        or (path.is_file() and (path.suffix.lower() in (".npz", ".npy") or is_idx(path)))
        or is_latents(path)
        or (path.is_dir() and any(is_idx(file) for file in path.iterdir()))
    )


def _source(config: DataConfig, wanted: Wanted | None) -> Source:
    if config.path in names("source"):
        make = lookup("source", config.path)
        if make.__module__ == builtin.__name__:  # one of your own may have splits
            _check_undivided(config)
        return as_source(make(config), name=config.path, config=config)
    path = Path(config.path)
    if is_latents(path):
        _check_undivided(config)
        if config.size or config.channels:
            raise ValueError(
                f"{path} holds latents, which have one size: leave data.size and data.channels 0, and "
                "set them in eqm encode"
            )
        return open_latents(path, flip=config.flip)
    if not opens_arrays(config):
        if config.layout or config.standardise:
            raise ValueError(
                f"{config.path} holds picture files: leave data.layout and data.standardise, which are for arrays"
            )
        return pictures(files_at(config), config)
    match path.suffix.lower():
        case ".npz":
            return from_npz(path, config, wanted=wanted)
        case ".npy":
            _check_undivided(config)
            return from_npy(path, config, wanted=wanted)
    return _idx(path, config)


def _check_undivided(config: DataConfig) -> None:
    """Raises ValueError where a split or a place of labels is asked for, as there is no choice."""
    check_no_splits(config.path, config.split)
    if config.labels_from:
        raise ValueError(
            f"{config.path} has its labels in one place; got data.labels_from {config.labels_from}: leave it out"
        )


def _idx(path: Path, config: DataConfig) -> Source:
    if path.is_file():
        return from_idx(path, config)
    names = {"train": "train", "test": "t10k", "t10k": "t10k"}
    if config.split.lower() not in names:
        raise ValueError(f"{path} has the splits train and test; got data.split {config.split}")
    part = names[config.split.lower()]
    several = sorted(
        {f.name.removesuffix(".gz") for f in path.iterdir() if is_idx(f) and part in f.name}
    )
    if len(several) > 1:
        raise ValueError(f"{path} holds {', '.join(several)}: give the path of one")
    source = from_idx(path, config, part=part)
    others = [f.name for f in path.iterdir() if is_idx(f) and part not in f.name]
    if not others:
        return source
    note = f"{path}: the split {config.split} is read, not {', '.join(sorted(others))}; data.split takes others"
    return replace(source, notes=(*source.notes, note))


def files_at(config: DataConfig) -> PictureFiles:
    """The encoded pictures at a path, a pattern or a name on the hub, with the labels that are asked for.

    Raises MissingDataError where there is nothing, ValueError where there is nothing of use."""
    where = config.path
    if where.startswith("hf:"):
        return hub_table(where.removeprefix("hf:"), config)
    if "://" in where:
        raise ValueError(f"{where} is an address on the network: download it, and give the file")
    path = Path(where)
    try:
        if path.is_dir():
            return _in_folder(path, config)
        match path.suffix.lower() if path.is_file() else "":
            case ".zip":
                return zipped(path, config)
            case ".tar":
                return tars(where, [path], config, asked=True)
            case ".parquet" | ".arrow":
                return table(path, [path], config, asked=True)
        if not path.exists() and (glob.has_magic(where) or "{" in where):
            return _matching(where, config)
    except PermissionError as error:
        raise ValueError(f"cannot read {error.filename}: check its permissions") from error
    if path.is_file():
        raise ValueError(
            f"{where} is none of .npz, .npy, .zip, .tar, .parquet, IDX: put pictures into a folder or "
            "a zip, and unpack compressed files"
        )
    if "latents" in path.name:
        raise MissingDataError(
            f"there are no latents at {where}: make them by `eqm encode PICTURES --vae VAE --output "
            f"{where}`, or set data.path to a folder of latents"
        )
    if path.exists():
        raise ValueError(f"{where} must be a folder or a regular file; it is a device or a pipe")
    if set(where) & set("/."):
        raise MissingDataError(f"data.path must be a folder or a file; there is no {where}")
    try:
        lookup("source", where)
    except UnknownNameError as error:
        raise MissingDataError(f"data.path must be a folder, a file or a name: {error}") from None
    raise ValueError(f"{where} is a data set with a name, not one of picture files")


def _in_folder(path: Path, config: DataConfig) -> PictureFiles:
    tables, notes = saved(path, config.split)
    if tables:
        found = table(path, tables, replace(config, split="all"))
        return replace(found, notes=(*notes, *found.notes))
    walked = walk(path, outside=config.outside)
    names = [file.name for file in walked.files]
    packed = [name for name in names if name.lower().endswith((".parquet", ".arrow", ".tar"))]
    packed = [name for name in packed if name.lower() != "metadata.parquet"]
    loose = next(filter(is_picture, names), None)
    if loose is not None:
        beside = [name for name in packed if "/" not in name]
        if beside:
            raise ValueError(
                f"{path} holds pictures, such as {loose}, beside {beside[0]}, which may hold others: move one of them "
                "elsewhere"
            )
        return folder(path, config, walked)
    kinds = {Path(name).suffix.lower() for name in packed}
    if len(kinds) > 1:
        raise ValueError(
            f"{path} holds {', '.join(sorted(kinds))} files: give the path of one kind"
        )
    files = [path / name for name in packed]
    if kinds == {".tar"}:
        return tars(str(path), files, config, asked=False)
    if kinds:
        return table(path, files, config)
    return folder(path, config, walked)


def _matching(where: str, config: DataConfig) -> PictureFiles:
    """The pictures in the files that match a pattern."""
    files = expanded(where)
    kinds = {file.suffix.lower() for file in files}
    if kinds == {".tar"}:
        return tars(where, files, config, asked=True)
    if kinds in ({".parquet"}, {".arrow"}):
        return table(Path(where), files, config, asked=True)
    raise ValueError(
        f"a pattern must stand for tars or for tables; {where} stands for {', '.join(sorted(kinds))} files: give their "
        "folder"
    )


@dataclass(frozen=True)
class Report:
    """The contents of a data set."""

    name: str
    images: int
    """Number of images that can be read."""
    sizes: Counter[tuple[int, ...]]
    """Images of each width and height, or points of each length."""
    channels: Counter[int]
    """Images of each number of channels."""
    bits: Counter[int]
    """Images of each number of bits a channel."""
    classes: dict[str, int]
    """Readable images of each class; empty without classes."""
    fingerprint: str
    broken: dict[str, str] = field(default_factory=dict)
    """The files that cannot be read, and why."""
    others: tuple[str, ...] = ()
    """Files that are no pictures."""
    notes: tuple[str, ...] = ()
    """Sentences that say how the data were read."""

    @property
    def faults(self) -> list[str]:
        """Sentences that say why no training is possible on these data."""
        if not self.images:
            return ["no picture can be read"]
        empty = [name for name, count in self.classes.items() if not count]
        return [f"these classes have no readable pictures: {', '.join(empty)}"] if empty else []

    @property
    def advice(self) -> list[str]:
        """Sentences that say which settings these data need."""
        said = []
        if len(self.sizes) > 1:
            said.append("sizes differ: set data.size, the side of the square to crop to")
        shares = [1 - min(sides) / max(sides) for sides in self.sizes if len(sides) == 2]
        if any(shares):
            said.append(
                f"the crop to a square, if data.size is set, crops away up to {ceil(100 * max(shares))} % of "
                "a picture"
            )
        if len(self.channels) > 1:
            said.append("channels differ: set data.channels, 1 for grey or 3 for colour")
        if self.broken:
            said.append(
                "training skips broken files and counts them; set data.broken fail to end it instead"
            )
        return said


def check(
    path: str,
    *,
    split: str = "train",
    labels: bool = True,
    labels_from: str = "",
    layout: str = "",
    range: tuple[float, ...] = (),
    outside: bool = False,
    workers: int = 0,
) -> Report:
    """The contents of the data set at `path`; every picture is decoded.

    The options are those of `DataConfig`. Raises ValueError when it cannot be opened.
    """
    config = DataConfig(
        path,
        split=split,
        labels=labels,
        labels_from=labels_from,
        layout=layout,
        range=range,
        outside=outside,
        workers=workers,
    )
    if opens_arrays(config):
        return _of_source(config)
    files = files_at(config)
    found = list(headers(files, config.threads, span=range, decoded=True))
    good = [index for index, each in enumerate(found) if isinstance(each, Header)]
    read = [each for each in found if isinstance(each, Header)]
    counts: list[int] = []
    if files.labels is not None:
        counts = torch.bincount(files.labels[good], minlength=len(files.class_names)).tolist()
    return Report(
        files.name,
        len(read),
        Counter((each.width, each.height) for each in read),
        Counter(each.channels for each in read),
        Counter(each.bits for each in read),
        dict(zip(files.class_names, counts, strict=True)),
        files.fingerprint,
        {n: why for n, why in zip(files.names, found, strict=True) if isinstance(why, str)},
        files.others,
        (*files.notes, *remarks(files, dict(zip(good, read, strict=True)), range)),
    )


def _of_source(config: DataConfig) -> Report:
    if is_latents(config.path):
        check_latents(config.path)
    source = _opened(config)
    data = getattr(source, "data", None)
    count = len(source)
    channels, *sides = source.shape
    counts = [] if source.labels is None else torch.bincount(source.labels).tolist()
    bits = data.dtype.itemsize * 8 if isinstance(data, torch.Tensor) else 8
    return Report(
        source.name,
        count,
        Counter({tuple(reversed(sides)): count}),
        Counter({channels: count}),
        Counter({bits: count}),
        dict(zip(class_names(source), counts, strict=True)),
        source.fingerprint,
        notes=notes_of(source),
    )
