"""Opens the data set that a path or a name stands for."""

from __future__ import annotations

import glob
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import BinaryIO

import torch

from eqm.data import builtin
from eqm.data.archives import folder, tars, walk, zipped
from eqm.data.arrays import from_idx, from_npy, from_npz, idx_images, is_idx
from eqm.data.builtin import say_small, small_copy
from eqm.data.captions import Captioned
from eqm.data.config import DataConfig
from eqm.data.dataset import as_source
from eqm.data.decoding import is_picture
from eqm.data.feature_maps import feature_maps
from eqm.data.latents import is_latents, open_latents
from eqm.data.parquet import hub_table, saved, table
from eqm.data.patterns import expanded
from eqm.data.picture_files import PictureFiles
from eqm.data.pictures import pictures
from eqm.data.series import is_series, windows
from eqm.data.sounds import is_sound, sounds
from eqm.data.source import (
    MissingDataError,
    Source,
    class_names,
    digest,
    notes_of,
    of_classes,
    say,
    without_labels,
)
from eqm.data.splits import check_no_splits
from eqm.data.values import Wanted
from eqm.files import printable
from eqm.reading import open_regular
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
    source = opened(config, small=small, wanted=wanted)
    say(notes_of(source))
    return source


def opened(config: DataConfig, *, small: bool = False, wanted: Wanted | None = None) -> Source:
    """The data set of `open_source`, whose notes are not logged."""
    for name, value in (("size", config.size), ("channels", config.channels)):
        if value < 0:
            raise ValueError(
                f"data.{name} -1, to choose what suits the pictures, is for the recipe `folder`: set a "
                "number, or 0 to keep theirs"
            )
    try:
        source = _source(replace(config, flip=config.flip and not config.features), wanted)
    except MissingDataError:
        copy = small_copy(config) if small else None
        if copy is None:
            raise
        say_small(config.path, len(copy))
        source = copy
    if config.captions and getattr(source, "captions", None) is None:
        raise ValueError(
            f"{source.name} has no captions, as it is no set of picture files, sounds or tables: leave data.captions "
            "out, or add them in Python with eqm.data.with_captions"
        )
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
                f"{', ...' if len(empty) > 5 else ''}: number the classes from 0, or turn "
                "data.labels off"
            )
    if config.features:
        source = feature_maps(source, config.features)
    return source


def applicable(config: DataConfig) -> DataConfig:
    """The config without the settings for which its path has no use, where they are meant for several data
    sets: those of arrays for pictures in files, and of files for what comes with eqm."""
    if config.path in names("source"):
        if lookup("source", config.path).__module__ != builtin.__name__:
            return config
        return replace(config, split="train", labels_from="", layout="", range=())
    return config if opens_arrays(config) else replace(config, layout="")


def opens_arrays(config: DataConfig) -> bool:
    """Whether the path stands for arrays or a data set with a name, not for encoded pictures."""
    path = Path(config.path)
    return (
        config.path in names("source")
        or (path.is_file() and (path.suffix.lower() in (".npz", ".npy") or is_idx(path)))
        or is_series(config)
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
    if is_series(config):
        check_no_splits(config.path, config.split)
        return windows(config)
    for setting, value in (
        ("time", config.time),
        ("series", config.series),
        ("columns", config.columns),
    ):
        if value and path.exists():
            raise ValueError(
                f"data.{setting} is for tables of time series, .csv, .tsv or .parquet; got {path}: leave it out"
            )
    if is_latents(path):
        _check_undivided(config)
        if config.size or config.channels:
            raise ValueError(
                f"{path} holds latents, which have one size: leave data.size and data.channels 0, and "
                "set them in eqm encode"
            )
        return open_latents(path, flip=config.flip)
    if not opens_arrays(config):
        files = files_at(config)
        if is_sound(files.names[0]):
            return _captioned(sounds(files, config), files)
        if config.length or config.sound != "waveform":
            fault = "length out, which is for sounds and series"
            fault = fault if config.length else "sound out, which is for sounds"
            raise ValueError(f"{path} holds pictures: leave data.{fault}")
        return _captioned(pictures(files, config), files)
    match path.suffix.lower():
        case ".npz":
            return from_npz(path, config, wanted=wanted)
        case ".npy":
            _check_undivided(config)
            return from_npy(path, config, wanted=wanted)
    if path.is_file():
        return from_idx(path, config)
    file, notes = idx_images(path, config.split)
    source = from_idx(file, config, name=path.resolve().name)
    return replace(source, notes=(*source.notes, *notes))


def _captioned(source: Source, files: PictureFiles) -> Source:
    if files.captions is None:
        return source
    if len(source) != len(files.captions):
        raise ValueError(
            f"{source.name}: captions need files that can all be read; some cannot: remove them"
        )
    return Captioned(source, files.captions, notes_of(source))


def _check_undivided(config: DataConfig) -> None:
    """Raises ValueError where a split or a place of labels is asked for, as there is no choice."""
    check_no_splits(config.path, config.split)
    if config.labels_from:
        raise ValueError(
            f"{config.path} has its labels in one place; got data.labels_from {config.labels_from}: leave it out"
        )


def files_at(config: DataConfig) -> PictureFiles:
    """The encoded pictures at a path, a pattern or a name on the hub, with the labels that are asked for.

    Raises MissingDataError where there is nothing, ValueError where there is nothing of use."""
    where = config.path
    if where.startswith("hf:"):
        return hub_table(where.removeprefix("hf:"), config)
    if "://" in where:
        raise ValueError(f"{where} is an address on the network: download it, and give the file")
    path = Path(where)
    for name in ("layout", "standardise"):
        if getattr(config, name) and path.exists():
            raise ValueError(
                f"{where} holds picture files: leave data.{name} out, which is for arrays"
            )
    try:
        if path.is_dir():
            return _in_folder(path, config)
        if path.is_file():
            if path.suffix.lower() == ".zip":
                return zipped(path, config)
            if _is_packed(path.name):
                return _packed(where, [path], config, asked=True)
            if is_sound(path.name):
                return PictureFiles(
                    path.stem,
                    [path.name],
                    None,
                    (),
                    digest(where),
                    partial(_open_one, path),
                )
        elif not path.exists() and (glob.has_magic(where) or "{" in where):
            return _packed(where, expanded(where), config, asked=True)
    except PermissionError as error:
        raise ValueError(f"cannot read {error.filename}: check its permissions") from error
    if path.is_file():
        raise ValueError(
            f"{where} is none of .npz, .npy, .csv, .zip, .tar, .parquet, IDX, .wav, .flac, .ogg: put pictures "
            "into a folder or a zip, and unpack compressed files"
        )
    if "latents" in path.name:
        raise MissingDataError(
            f"there are no latents at {where}: make them by `eqm encode PICTURES --vae VAE --output "
            f"{where}`, or set data.path to a folder of latents"
        )
    if path.exists():
        raise ValueError(
            f"{where} must be a folder or a regular file; it is a device or a pipe: copy its content to a file"
        )
    if set(where) & set("/."):
        raise MissingDataError(f"data.path must be a folder or a file; there is no {where}")
    try:
        lookup("source", where)
    except UnknownNameError as error:
        raise MissingDataError(f"data.path must be a folder, a file or a name: {error}") from None
    raise ValueError(
        f"{where} is a data set with a name, but picture files are needed: give their path"
    )


def _open_one(path: Path, index: int) -> BinaryIO:
    return open_regular(path)


def _in_folder(path: Path, config: DataConfig) -> PictureFiles:
    tables, notes = saved(path, config.split)
    if tables:
        found = table(path, tables, replace(config, split="all"))
        return replace(found, notes=(*notes, *found.notes))
    walked = walk(path, outside=config.outside)
    names = [file.name for file in walked.files]
    packed = [name for name in names if _is_packed(name) and name.lower() != "metadata.parquet"]
    loose = next(filter(is_picture, names), None)
    if packed and loose is None:
        return _packed(str(path), [path / name for name in packed], config, asked=False)
    beside = [name for name in packed if "/" not in name]
    if beside:
        raise ValueError(
            f"{path} holds pictures, such as {printable(loose)}, beside {printable(beside[0])}, which may hold others: "
            "move one of them elsewhere"
        )
    return folder(path, config, walked)


def _is_packed(name: str) -> bool:
    """Whether a file is an archive or a table of which several may form one data set."""
    return name.lower().endswith((".tar", ".parquet", ".arrow"))


def _packed(where: str, files: Sequence[Path], config: DataConfig, *, asked: bool) -> PictureFiles:
    """The pictures in tars, or in tables; `where` names them together, `asked` is that of `kept_shards`."""
    kinds = {file.suffix.lower() for file in files}
    if kinds == {".tar"}:
        return tars(where, files, config, asked=asked)
    if kinds in ({".parquet"}, {".arrow"}):
        return table(Path(where), files, config, asked=asked)
    raise ValueError(
        f"{where} must stand for tars, or for tables of one kind; it holds {', '.join(sorted(kinds))} files: give the "
        "path of one kind, or of their folder"
    )
