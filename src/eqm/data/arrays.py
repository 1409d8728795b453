"""Arrays as sources: those of .npz, .npy and IDX files, and any other."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from eqm.data.array_files import read_idx, read_npy, read_npz
from eqm.data.axes import (
    arranged,
    find_layout,
    layout_note,
    of_pictures,
    suiting_layout,
    told_layout,
)
from eqm.data.classes import class_labels
from eqm.data.config import DataConfig
from eqm.data.decoding import centre_crop, cut_note
from eqm.data.splits import is_litter, split_note
from eqm.data.tensors import Images, Tensors
from eqm.data.values import Wanted, check_finite, kind_of, plain, scaled, standardised
from eqm.naming import said

_IMAGES = ("images", "image", "imgs", "img", "x", "data", "samples", "arr_0")
_LABELS = ("labels", "label", "y", "targets", "target", "classes", "arr_1")
"""Names of pictures and of labels in an .npz, in any case; the first that is there is taken."""
_SETS = ("images", "imgs", "x", "samples")
"""Names of arrays that are never a single picture."""
_CLASS_NAMES = ("class_names", "label_names", "target_names")
_SPLITS = {
    "train": ("train", "training"),
    "val": ("val", "valid", "validation"),
    "test": ("test", "testing"),
}


def _joined(path: Path, found: Mapping[str, np.ndarray], part: Sequence[str]) -> np.ndarray:
    """Arrays of several splits as one. Raises ValueError unless they are alike."""
    arrays = [found[name] for name in part]
    if len(arrays) == 1:  # it may be mapped
        return arrays[0]
    kinds = {name: f"{found[name].dtype} {found[name].shape}" for name in part}
    whole = all(array.dtype.kind in "iu" and array.ndim < 3 for array in arrays)  # such as labels
    same = {("int" if whole else kind_of(array), array.shape[1:]) for array in arrays}
    if len(same) > 1 or not all(array.ndim for array in arrays):
        raise ValueError(
            f"{path}: {said(list(part))} must be alike to be read together; got {said(list(kinds.values()))}: set "
            "data.split to one of them"
        )
    return np.concatenate(arrays)


def from_npz(path: Path, config: DataConfig, *, wanted: Wanted | None = None) -> Tensors:
    """The pictures, signals or points of an .npz with their labels, if there are any.

    Pictures are an array called images, image, imgs, img, x, data, samples or arr_0; labels are
    called labels, label, y, targets, target, classes or arr_1. A split is named before or behind, as
    in train_images and x_train; `config.split` chooses it, and "all" joins them. `wanted` are the
    pictures that a model takes. Notes say which other arrays there are. Raises
    ValueError for anything else, and as `from_array` does.
    """
    found = read_npz(path)
    images, labels, note = _chosen(path, found, config)
    names = next((found[name] for name in _CLASS_NAMES if name in found), None)
    arrays = [_joined(path, found, part) for part in (images, labels) if part]
    split, base = _divided(images[0])
    source = from_array(
        path.stem,
        arrays[0],
        arrays[1] if labels else None,
        config,
        several=bool(split) or base in _SETS,
        wanted=wanted,
    )
    if names is not None and names.ndim == 1 and len(names) == source.num_classes:
        source = replace(source, class_names=tuple(map(str, names.tolist())))
    return replace(source, notes=(*note, *source.notes))


def _chosen(
    path: Path, found: Mapping[str, np.ndarray], config: DataConfig
) -> tuple[list[str], list[str], tuple[str, ...]]:
    """The names of the arrays of pictures and of labels in an .npz, and a note about the others."""
    images, labels = _named(found, _IMAGES), _named(found, _LABELS)
    if not images:
        raise ValueError(
            f"{path} must hold an array `images` or `arr_0`; it holds {', '.join(sorted(found)) or 'nothing'}: rename "
            "the array of pictures"
        )
    splits = sorted(filter(None, images), key=list(_SPLITS).index)
    asked = config.split.lower()
    wanted = next((split for split, names in _SPLITS.items() if asked in names), "")
    if asked == "all":
        parts = [""] * ("" in images) + splits
    elif wanted in images and wanted:
        parts = [wanted]
    elif wanted == "train" and "" in images:
        parts = [""]
    else:
        raise ValueError(
            f"{path} holds no split {config.split!r}, but {', '.join(splits) or 'no splits'}: set data.split "
            "to what it holds, or to all"
        )
    chosen = [images[part] for part in parts]
    beside = [labels[part] for part in parts if part in labels]
    if config.labels_from:
        if config.labels_from not in found:
            raise ValueError(
                f"{path} holds no array {config.labels_from!r} for data.labels_from; it holds "
                f"{', '.join(sorted(found))}: set it to one of these"
            )
        beside = [config.labels_from]
    if beside and len(beside) < len(parts) and not config.labels_from:
        raise ValueError(
            f"{path} holds labels for some splits only, {', '.join(beside)}: choose one by data.split, or "
            "turn data.labels off"
        )
    others = sorted(found.keys() - {*chosen, *beside, *_CLASS_NAMES})
    if not others and not (splits and parts != [""]):
        return chosen, beside, ()
    read = " and ".join(chosen + beside)
    note = f"{path.name}: {read} {'are' if len(chosen + beside) > 1 else 'is'} read"
    if others:
        note += f", not {', '.join(others[:8])}{', ...' * (len(others) > 8)}"
    if splits and parts != [""]:
        note += f"; data.split chooses among {', '.join(splits)} and all"
    return chosen, beside, (note,)


def _named(found: Mapping[str, np.ndarray], known: Sequence[str]) -> dict[str, str]:
    """The array of each split, "" for none, whose name is the first of the `known` names."""
    chosen: dict[str, tuple[int, str]] = {}
    for name in found:
        part, base = _divided(name)
        if base in known:
            place = (known.index(base), name)
            chosen[part] = min(chosen.get(part, place), place)
    return {part: name for part, (_, name) in chosen.items()}


def _divided(name: str) -> tuple[str, str]:
    """The split that the name of an array names, "" for none, and the rest of the name."""
    words = re.split("[_-]", name.lower())
    for split, spellings in _SPLITS.items():
        for rest, word in ((words[1:], words[0]), (words[:-1], words[-1])):
            if rest and word in spellings:
                return split, "_".join(rest)
    return "", name.lower()


def from_npy(path: Path, config: DataConfig, *, wanted: Wanted | None = None) -> Tensors:
    """The pictures, signals or points of an .npy; `wanted` is as in `from_npz`.

    Labels come from NAME-labels.npy beside it, if there is one. The file is mapped, not read, as it
    may be larger than the memory.
    """
    beside = path.with_name(f"{path.stem}-labels.npy")
    images = read_npy(path)
    labels = read_npy(beside) if beside.is_file() else None
    return from_array(path.stem, images, labels, config, wanted=wanted)


def from_array(
    name: str,
    array: Any,
    labels: Any,
    config: DataConfig,
    class_names: tuple[str, ...] = (),
    *,
    several: bool = False,
    wanted: Wanted | None = None,
) -> Tensors:
    """Pictures, videos, signals or points of an array, with the size and channels that `config` sets.

    Its axes and its values of black and white are those that `config` says, else they are found, as
    `find_layout` and `find_range` do; notes say how. `several` is as there. For the pictures `wanted` by
    a model, both are those of its training data, if they are of the same kind. Labels that are none are
    ignored without `config.labels`.
    """
    array = plain(name, array)
    form = np.shape(labels) if labels is not None else ()
    counted = (max(form) if len(form) == 2 and 1 in form else form[0]) if form else None
    layout = told_layout(name, array.shape, config.layout)
    if wanted and not layout and len(wanted.shape) != 3:
        layout = suiting_layout(name, array.shape, wanted.shape, wanted.layout)
    if wanted and not layout and len(wanted.layout) == array.ndim:
        layout = wanted.layout.upper()
    notes: tuple[str, ...] = ()
    if not layout:
        shape = wanted.shape if wanted else ()
        layout = find_layout(name, array, labels=counted, several=several, shape=shape)
        if layout != "NHW" or counted is None:  # labels tell which axis is N
            notes = layout_note(name, array.shape, layout, several=several)
    array = arranged(array, layout)
    try:
        numbers, classes, words, more = class_labels(name, labels, len(array))
    except ValueError:
        if config.labels:
            raise
        numbers, classes, words, more = None, 0, (), ()
    notes, class_names = notes + more, class_names or words
    limits = config.range or (wanted.limits(array) if wanted else ())
    if "T" in layout and (array.dtype.kind != "f" or config.range):
        if config.standardise:
            raise ValueError(
                f"{name}: data.standardise is for numbers without black and white; these are pixels: leave "
                "it out"
            )
        data, about, more = scaled(name, array, limits, alone=bool(wanted))
        if data.dtype == torch.uint8:
            data = data.float() / 127.5 - 1
        return Tensors(name, data, numbers, classes, class_names, notes + more, about)
    if not of_pictures(layout):
        if config.range:
            raise ValueError(
                f"{name}: data.range is for pictures; these are points or signals: leave it out"
            )
        if "T" in layout and not config.standardise:
            notes += (
                f"{name}: the numbers are taken as they are: set data.range to the values of black and white, "
                "if they are pixels",
            )
        with np.errstate(over="ignore"):  # what is too large becomes infinite, and is refused
            data = torch.from_numpy(np.array(array, np.float32))
        check_finite(name, data)
        data, about, more = standardised(name, data, config.standardise)
        notes += more if wanted is None else ()  # a trained model decides
        return Tensors(name, data, numbers, classes, class_names, notes, about)
    if config.standardise:
        raise ValueError(
            f"{name}: data.standardise is for points and signals; these are pictures: leave it out"
        )
    data, about, more = scaled(name, array, limits, alone=bool(wanted))
    notes += more + cut_note(name, {name: (array.shape[3], array.shape[2])}, config.size)
    data = _fitted(name, data, config)
    return Images(name, data, numbers, classes, class_names, notes, about, flip=config.flip)


def _fitted(name: str, data: Tensor, config: DataConfig) -> Tensor:
    """The images (N, C, H, W) with the channels and the size that `config` sets."""
    if config.channels and config.channels != data.shape[1]:
        if not {config.channels, data.shape[1]} <= {1, 3, 4}:
            raise ValueError(
                f"{name}: data.channels converts between 1, 3 and 4 channels; got {data.shape[1]} to "
                f"{config.channels}: leave it 0"
            )
        data = torch.cat([_coloured(part, config.channels) for part in data.split(1024)])
    size = config.size
    if size <= 0 or data.shape[2:] == (size, size):
        return data
    from PIL import Image

    out = torch.empty(*data.shape[:2], size, size, dtype=data.dtype)
    for source, target in zip(data.flatten(0, 1), out.flatten(0, 1), strict=True):
        plane = np.array(centre_crop(Image.fromarray(source.contiguous().numpy()), size))
        target.copy_(torch.from_numpy(plane))
    return out if out.dtype == torch.uint8 else out.clamp_(-1, 1)  # the filter overshoots


def is_idx(path: Path) -> bool:
    """Whether a file is named as IDX images are, such as train-images-idx3-ubyte.gz."""
    name = path.name
    return name.removesuffix(".gz").endswith("-ubyte") and "images" in name and not is_litter(name)


def idx_images(folder: Path, split: str) -> tuple[Path, tuple[str, ...]]:
    """The file of the images of a split in a folder of IDX files, and a note if there are others.

    Raises ValueError where there is none, or more than one."""
    part = {"train": "train", "test": "t10k", "t10k": "t10k"}.get(split.lower())
    if part is None:
        raise ValueError(
            f"{folder} has the splits train and test; got data.split {split}: set it to one of them"
        )
    there = sorted(file.name for file in folder.iterdir() if is_idx(file))
    found = [name for name in there if part in name]
    if not found:
        raise ValueError(
            f"{folder} has no IDX images of the split {split}, only {said(there) or 'none'}: add "
            f"{part}-images-idx3-ubyte or the same with .gz"
        )
    if len(different := sorted({name.removesuffix(".gz") for name in found})) > 1:
        raise ValueError(f"{folder} holds {', '.join(different)}: give the path of one")
    others = ", ".join(name for name in there if name not in found)
    return folder / found[0], (split_note(str(folder), split, others),) if others else ()


def from_idx(path: Path, config: DataConfig, *, name: str = "") -> Images:
    """The images of an IDX file, plain or .gz.

    Labels come from the file beside it with `labels-idx1` in its name. Raises ValueError when a file
    is cut short or of another kind.
    """
    images = read_idx(path)
    if images.ndim != 3 or images.dtype != np.uint8:
        raise ValueError(
            f"{path} must hold bytes of shape (N, H, W); it holds {images.dtype} {images.shape}: save other arrays as "
            ".npy"
        )
    beside = path.with_name(path.name.replace("images", "labels").replace("idx3", "idx1"))
    other = beside.with_suffix("") if beside.suffix == ".gz" else Path(f"{beside}.gz")
    labels = next((read_idx(file) for file in (beside, other) if file.is_file()), None)
    source = from_array(
        name or path.name.split(".")[0], images, labels, replace(config, layout="NHW")
    )
    assert isinstance(source, Images)  # three axes were asked for
    return source


def _coloured(images: Tensor, channels: int) -> Tensor:
    """Images (N, 1, 3 or 4, H, W) with other channels, as Pillow converts files: transparent pixels
    become white, and grey weighs colours by ITU-R 601."""
    low, high = (0.0, 255.0) if images.dtype == torch.uint8 else (-1.0, 1.0)
    x = images.float()
    if x.shape[1] == 4:
        share = (x[:, 3:] - low) / (high - low)
        x = x[:, :3] * share + high * (1 - share)
    if channels == 1:
        x = (x * x.new_tensor([0.299, 0.587, 0.114]).view(3, 1, 1)).sum(1, keepdim=True)
    elif x.shape[1] == 1:
        x = x.expand(-1, 3, -1, -1)
    if channels == 4:
        x = torch.cat([x, torch.full_like(x[:, :1], high)], 1)
    return x.round().byte() if images.dtype == torch.uint8 else x
