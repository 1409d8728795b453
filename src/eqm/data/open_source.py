"""Whatever a path or a name stands for, as a source."""

from __future__ import annotations

import glob
from pathlib import Path

import torch

from eqm.data.archives import SUFFIXES, PictureFiles, folder, tars, zipped
from eqm.data.arrays import from_idx, from_npy, from_npz, is_idx
from eqm.data.builtin import NAMED, say_small, small_copy
from eqm.data.config import DataConfig
from eqm.data.latents import is_latents, open_latents
from eqm.data.parquet import files_of, hub_table, table
from eqm.data.pictures import pictures
from eqm.data.source import MissingDataError, Source
from eqm.data.subset import class_names, of_classes, without_labels


def open_source(config: DataConfig, *, small: bool = False) -> Source:
    """The data set that `config` describes.

    If `small`, a data set that is not installed may be replaced by the small copy that comes with eqm;
    a warning says so. Raises MissingDataError where there is no data, and ValueError for data that
    cannot be trained on: no pictures, damaged archives, mixed sizes or channels, labels out of range,
    a class without pictures.
    """
    for name, value in (("size", config.size), ("channels", config.channels)):
        if value < 0:
            raise ValueError(
                f"data.{name} -1, to pick what suits the pictures, is for the recipe `folder`: "
                "set a number, or 0 for pictures as they are"
            )
    try:
        source = _source(config)
    except MissingDataError:
        found = small_copy(config) if small else None
        if found is None:
            raise
        say_small(config.path, len(found))
        source = found
    if config.classes:
        source = of_classes(source, config.classes)
    if not config.labels:
        source = without_labels(source)
    if source.labels is not None:
        counts = torch.bincount(source.labels, minlength=source.num_classes)
        empty = (counts == 0).nonzero().flatten().tolist()
        if empty:
            names = class_names(source)
            named = ", ".join(names[number] for number in empty[:5])
            raise ValueError(
                f"{source.name}: {len(empty)} of {len(counts)} classes have no pictures: {named}"
                f"{', ...' if len(empty) > 5 else ''}: number the classes anew, choose some by "
                "data.classes, or set data.labels off"
            )
    return source


def opens_arrays(config: DataConfig) -> bool:
    """Whether the path is that of arrays or a data set known by name, not of encoded pictures."""
    path = Path(config.path)
    return (
        config.path in NAMED
        or (path.is_file() and (path.suffix.lower() in (".npz", ".npy") or is_idx(path)))
        or is_latents(path)
        or (path.is_dir() and any(is_idx(file) for file in path.iterdir()))
    )


def _source(config: DataConfig) -> Source:
    if config.path in NAMED:
        return NAMED[config.path](config)
    path = Path(config.path)
    if is_latents(path):
        if config.size or config.channels:
            raise ValueError(
                f"{path} holds latents, which have one size: leave data.size and data.channels 0; "
                "eqm encode takes them"
            )
        return open_latents(path, flip=config.flip)
    if not opens_arrays(config):
        return pictures(files_at(config.path), config)
    match path.suffix.lower():
        case ".npz":
            return from_npz(path, config)
        case ".npy":
            return from_npy(path, config)
    return from_idx(path, config)


def files_at(where: str) -> PictureFiles:
    """The encoded pictures at a path, a pattern or a name on the hub.

    Raises MissingDataError where there is nothing, ValueError where there is nothing of use."""
    if where.startswith("hf:"):
        return hub_table(where.removeprefix("hf:"))
    path = Path(where)
    try:
        if path.is_dir():
            tables, archives = files_of(path), sorted(path.glob("*.tar"))
            loose = [file.name for file in path.iterdir() if file.suffix.lower() in SUFFIXES]
            if loose and (packed := tables or archives):
                raise ValueError(
                    f"{where} holds pictures, such as {loose[0]}, beside {packed[0].name}, which may hold "
                    "others: move one of the two elsewhere"
                )
            return table(path) if tables else tars(where) if archives else folder(path)
        match path.suffix.lower() if path.is_file() else "":
            case ".zip":
                return zipped(path)
            case ".tar":
                return tars(where)
            case ".parquet" | ".arrow":
                return table(path)
    except PermissionError as error:
        raise ValueError(f"cannot read {error.filename}: check its permissions") from error
    if glob.has_magic(where) and ".tar" in where:
        return tars(where)
    if path.is_file():
        raise ValueError(
            f"{where} is none of .npz, .npy, .zip, .tar, .parquet, IDX: put pictures into a folder or "
            "a zip, and unpack what is compressed"
        )
    if "latents" in path.name:
        raise MissingDataError(
            f"there are no latents at {where}: `eqm encode PICTURES --vae VAE --output {where}` makes "
            "them, or set data.path to those there are"
        )
    missing = f"there is no {where}" if len(path.parts) > 1 or path.suffix else f"got {where!r}"
    names = ", ".join(NAMED)
    raise MissingDataError(f"data.path must be a folder, a file or one of {names}; {missing}")
