"""Pictures that a command is given (files, folders, archives, arrays, a data set by name), and the models
that take them."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor

    from eqm.data.archives import PictureFiles
    from eqm.encoders import Encoder

Check = Callable[[str, tuple[int, ...]], None]
"""Raises ValueError for what is called so where its shape is not the wanted one."""


def read_images(
    paths: Sequence[Path | str],
    shape: Sequence[int],
    *,
    resize: bool | None = False,
    taker: str = "the model takes",
) -> tuple[Tensor, list[str]]:
    """The pictures at `paths`, (B, C, H, W) float32 in -1..1, and what each is called.

    Each path is a picture, or what `eqm train --data.path` takes: a folder, an archive, an .npz, a data
    set by name. `:5` or `:0-7` after one that holds many picks some, counted from 0. `shape` (C, H, W)
    is what they must have, and `taker` who says so; with `resize` they are cropped to a square, resized
    and turned to its channels. None is for commands that do not offer that.

    Raises ValueError for what is not there or cannot be read, another shape, numbers out of range.
    """
    import torch

    if not paths:
        raise ValueError(
            "no pictures were given: pass files, folders, an .npz or a data set's name"
        )
    shape = tuple(shape)
    if resize and (len(shape) != 3 or shape[1] != shape[2] or shape[0] not in (1, 3, 4)):
        raise ValueError(
            f"pictures can be resized to squares of 1, 3 or 4 channels alone, not to {shape}: "
            "bring them to that shape first"
        )

    def check(what: str, found: tuple[int, ...]) -> None:
        if len(found) != 3 or (found != shape and not resize):
            offer = ", or add --resize" * (resize is False)
            raise ValueError(
                f"{what} of {_words(found)}; {taker} {_words(shape)}"
                + (f": bring it to that shape{offer}" if len(found) == 3 else "")
            )

    read = [_read(str(path), shape, bool(resize), check) for path in paths]
    return torch.cat([images for images, _ in read]), [name for _, names in read for name in names]


def _read(
    where: str, shape: tuple[int, ...], resize: bool, check: Check
) -> tuple[Tensor, list[str]]:
    import torch

    from eqm.data import DataConfig, Pictures, open_source
    from eqm.data.open_source import opens_arrays
    from eqm.data.pictures import threads
    from eqm.randomness import SampleRandom

    path, wanted = _picked(where)
    config = DataConfig(path)
    if opens_arrays(config):
        source = open_source(config, small=True)
        rows = _rows(path, wanted, len(source))
        names = [f"{path}:{row}" for row in rows.tolist()]
        if source.shape != shape:
            check(f"{path} holds pictures", source.shape)
            config = DataConfig(path, channels=shape[0], size=shape[1])
            source = open_source(config, small=True)
    else:
        files = _files(path)
        rows = _rows(path, wanted, len(files.names))
        _check_headers(files, rows, check)
        channels, height, width = shape
        source = Pictures(
            files,
            shape=(channels, height, width),
            size=height if resize else 0,
            rows=torch.arange(len(files.names)),
            labels=None,
            num_classes=0,
            class_names=(),
            on_broken="fail",
            workers=threads(config),
        )
        names = [files.names[row] for row in rows.tolist()]
    return source.batch(rows, SampleRandom(0, rows)), names


def _picked(where: str) -> tuple[str, tuple[int, int] | None]:
    """A path and the first and last of the pictures asked for by what follows it, if anything."""
    found = re.fullmatch(r"(.+):(\d+)(?:-(\d+))?", where)
    if found is None or Path(where).exists():
        return where, None
    path, first, last = found.groups()
    return path, (int(first), int(last or first))


def _rows(path: str, wanted: tuple[int, int] | None, count: int) -> Tensor:
    import torch

    first, last = wanted or (0, count - 1)
    if not first <= last < count:
        raise ValueError(
            f"{path} holds pictures 0 to {count - 1}; got {first}-{last}: pick some of them"
        )
    return torch.arange(first, last + 1)


def _files(path: str) -> PictureFiles:
    from eqm.data.archives import SUFFIXES, PictureFiles
    from eqm.data.open_source import files_at

    if Path(path).suffix.lower() in SUFFIXES and not Path(path).is_dir():
        return PictureFiles(path, [path], None, (), path, lambda index: Path(path).open("rb"))
    return files_at(path)


def _check_headers(files: PictureFiles, rows: Tensor, check: Check) -> None:
    """Before any is decoded: a wrong one says its name and what it is."""
    from eqm.data.decoding import header, reason
    from eqm.data.pictures import DAMAGED

    for row in rows.tolist():
        name = files.names[row]
        try:
            with files.open(row) as file:
                found = header(file)
        except DAMAGED as error:
            raise ValueError(f"cannot read the picture {name} ({reason(error)})") from error
        check(f"{name} is a picture", (found.channels, found.height, found.width))


def _words(shape: tuple[int, ...]) -> str:
    if len(shape) != 3:
        return f"shape {shape}"
    channels, height, width = shape
    return f"{width}x{height} pixels and {channels} channel{'s' * (channels > 1)}"


def open_model(
    name: str, *, vae: str | None, device: str, output: Path | None = None
) -> tuple[Any, Encoder]:
    """The model called `name` on its device, and what decodes its samples to pictures.

    Raises ValueError for a model of anything but pictures, or of such as `output` cannot hold.
    """
    from eqm.cli.output import check_drawable
    from eqm.devices import pick_device
    from eqm.encoders import encoder_of
    from eqm.models import from_pretrained

    where = pick_device(device)
    network = from_pretrained(name, device=where)
    if len(network.config.shape) != 3:
        raise ValueError(
            f"this command is for models of pictures; {name} is of shape {network.config.shape}: "
            "use it in Python"
        )
    encoder = encoder_of(network.metadata, vae, device=where)
    if output is not None:
        check_drawable(encoder.image_shape_of(network.config.shape)[0], output)
    return network, encoder


def open_pixel_model(name: str, *, device: str, output: Path) -> Any:
    """The model called `name` on its device.

    Raises ValueError for a model of anything but pixels, or of pictures that `output` cannot hold.
    """
    from eqm.cli.output import check_drawable
    from eqm.devices import pick_device
    from eqm.models import from_pretrained

    network = from_pretrained(name, device=pick_device(device))
    shape, data = network.config.shape, network.metadata.get("data") or {}
    if len(shape) != 3 or data.get("encoder"):
        raise ValueError(
            f"this command is for models of pixels; {name} is of "
            f"{'latents' if data.get('encoder') else f'shape {shape}'}: use another model"
        )
    check_drawable(shape[0], output)
    return network


def labels_of(labels: Sequence[str], count: int, model: Any) -> Tensor | None:
    """The classes of `count` pictures, (count,): one a picture, one for all, or none.

    Raises ValueError for labels that the model does not have, or another number of them.
    """
    from eqm.sampling.labels import chosen_labels

    if not labels:
        return None
    known = labels[0] if len(labels) == 1 else labels
    chosen = chosen_labels(model, known, count)
    return None if chosen is None else chosen.to(next(model.parameters()).device)
