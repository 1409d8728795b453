"""The pictures and the model that a command is given."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from eqm.data.archives import PictureFiles
    from eqm.encoders import Encoder

Check = Callable[[str, tuple[int, ...]], None]
"""Takes the name of a picture and its shape; raises ValueError for an unwanted shape."""


def read_images(
    paths: Sequence[Path | str],
    shape: Sequence[int],
    *,
    resize: bool | None = False,
    taker: str = "the model takes",
) -> tuple[Tensor, list[str]]:
    """The pictures at `paths`, (B, C, H, W) float32 in -1..1, and the name of each.

    A path is a picture or anything that `eqm train --data.path` takes. `:5` or `:0-7` after it picks
    some pictures, counted from 0. The pictures must have `shape` (C, H, W). `resize` crops them to a
    square, resizes them and converts their channels; None hides that offer in errors, where `taker`
    says what wants the shape.

    Raises ValueError for missing or unreadable files, other shapes, and numbers out of range.
    """
    import torch

    if not paths:
        raise ValueError(
            "no pictures were given: pass files, folders, an .npz or a data set's name"
        )
    shape = tuple(shape)
    if resize and (len(shape) != 3 or shape[1] != shape[2] or shape[0] not in (1, 3, 4)):
        raise ValueError(
            f"--resize makes squares of 1, 3 or 4 channels; the model takes {shape}: resize the pictures "
            "yourself"
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
    from eqm.data.source import say
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
        say(files.notes)
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
            workers=config.threads,
        )
        names = [files.names[row] for row in rows.tolist()]
    return source.batch(rows, SampleRandom(0, rows)), names


def _picked(where: str) -> tuple[str, tuple[int, int] | None]:
    """A path, and the first and last picture that a `:0-7` behind it asks for."""
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
            f"{path} holds pictures 0 to {count - 1}; got {first}-{last}: pick numbers in that range"
        )
    return torch.arange(first, last + 1)


def _files(path: str) -> PictureFiles:
    from eqm.data.archives import SUFFIXES, PictureFiles
    from eqm.data.open_source import files_at

    if Path(path).suffix.lower() in SUFFIXES and not Path(path).is_dir():
        return PictureFiles(path, [path], None, (), path, lambda index: Path(path).open("rb"))
    return files_at(path)


def _check_headers(files: PictureFiles, rows: Tensor, check: Check) -> None:
    """Raises ValueError for a picture of an unwanted shape, before any is decoded."""
    from eqm.data.images import header, reason
    from eqm.data.pictures import BROKEN

    for row in rows.tolist():
        name = files.names[row]
        try:
            with files.open(row) as file:
                found = header(file)
        except BROKEN as error:
            raise ValueError(f"cannot read the picture {name} ({reason(error)})") from error
        check(f"{name} is a picture", (found.channels, found.height, found.width))


def _words(shape: tuple[int, ...]) -> str:
    if len(shape) != 3:
        return f"shape {shape}"
    channels, height, width = shape
    return f"{width}x{height} pixels and {channels} channel{'s' * (channels > 1)}"


def open_model(
    name: str,
    *,
    device: str | torch.device,
    precision: Literal["auto", "float32", "bfloat16"] | None = "auto",
    vae: str | None = None,
    compile: bool = False,
    latents: bool = True,
    output: Path | None = None,
) -> tuple[Any, Encoder]:
    """The model `name`, ready for inference, and the encoder that decodes its samples.

    With `precision` None the model is as it was stored. Raises ValueError for a model of anything but
    images, for one of latents unless `latents`, and for images that `output` cannot hold.
    """
    from eqm.cli.output import ending_of
    from eqm.devices import pick_device
    from eqm.encoders import encoder_of
    from eqm.models import for_inference, from_pretrained
    from eqm.pictures import check_channels

    where = pick_device(device) if isinstance(device, str) else device
    network = from_pretrained(name, device=where)
    if len(network.config.shape) != 3:
        raise ValueError(
            f"this command takes models of images (channels, height, width); {name} has samples of shape "
            f"{network.config.shape}: use it in Python, with eqm.tasks"
        )
    if not latents and (network.metadata.get("data") or {}).get("encoder"):
        raise ValueError(f"this command takes models of pixels; {name} is a model of latents")
    encoder = encoder_of(network.metadata, vae, device=where)
    if output is not None and ending_of(output) != ".npz":
        check_channels(encoder.image_shape_of(network.config.shape)[0])
    if precision is None:
        return network, encoder
    return for_inference(network, precision=precision, compile=compile), encoder


def input_of(model: Any, images: Tensor) -> Tensor:
    """The images on the device and in the dtype that the model takes."""
    weight = next(model.parameters())
    return images.to(weight.device, getattr(model, "dtype", weight.dtype))


def labels_of(labels: Sequence[str], count: int, model: Any) -> Tensor | None:
    """The classes of `count` pictures, (count,): one for each picture, one for all, or none.

    Raises ValueError for labels that the model does not have, or for another number of them.
    """
    from eqm.sampling import chosen_labels

    if not labels:
        return None
    chosen = chosen_labels(model, labels[0] if len(labels) == 1 else labels, count)
    return None if chosen is None else chosen.to(next(model.parameters()).device)
