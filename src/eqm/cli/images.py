"""The pictures and the model that a command is given."""

from __future__ import annotations

import logging
import re
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from eqm.data import DataConfig
    from eqm.data.archives import PictureFiles
    from eqm.encoders import Encoder

LOG = logging.getLogger(__name__)
LISTED = 20
"""Unreadable pictures that are named in warnings."""
Check = Callable[[str, tuple[int, ...]], None]
"""Takes the name of a picture and its shape; raises ValueError for an unwanted shape."""


class Given(NamedTuple):
    """The pictures that a command was given."""

    images: Tensor
    """(B, C, H, W) float32 in -1..1, those that can be read."""
    names: list[str]
    """The name of each image: its path relative to the folder or archive that was given, or, where several
    paths were given, with that path in front."""
    kept: list[int]
    """The number of each image among all that were given."""
    unreadable: dict[str, str]
    """The names of the others, and why they cannot be read."""

    def labels(self, given: Sequence[str]) -> Sequence[str]:
        """The labels of the images, from those of all that were given."""
        whole = len(self.kept) + len(self.unreadable)
        return [given[k] for k in self.kept] if len(given) == whole > 1 else given

    @property
    def status(self) -> int:
        """The exit status of a command that used these pictures: 1 where some could not be read."""
        return 1 if self.unreadable else 0


def read_images(
    paths: Sequence[Path | str],
    shape: Sequence[int],
    *,
    resize: bool | None = False,
    taker: str = "the model takes",
    broken: Literal["skip", "fail"] = "fail",
    span: Sequence[float] = (),
) -> Given:
    """The pictures at `paths`, and the name of each.

    A path is a picture or anything that `eqm train --data.path` takes. `:5` or `:0-7` after it picks
    some pictures, counted from 0. The pictures must have `shape` (C, H, W). `resize` crops them to a
    square, resizes them and converts their channels; None hides that offer in errors, where `taker`
    says what wants the shape. `span` are the values of black and white in grey pictures of more than 8
    bits, as in `DataConfig.range`.

    Where `broken` is "skip", a picture that cannot be read is left out, with a warning. Raises ValueError
    for missing files, other shapes, numbers out of range, and where no picture can be read.
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

    found = [
        _read(str(path), shape, bool(resize), check, inside=len(paths) > 1, span=tuple(span))
        for path in paths
    ]
    names = _apart([name for names, _ in found for name in names])
    read = [image for _, images in found for image in images]
    unreadable = {name: why for name, why in zip(names, read, strict=True) if isinstance(why, str)}
    kept = [k for k, name in enumerate(names) if name not in unreadable]
    if unreadable and (broken == "fail" or not kept):
        name, why = next(iter(unreadable.items()))
        count = (
            f"none of the {len(names)} pictures can be read; "
            if len(names) > 1 and not kept
            else ""
        )
        raise ValueError(f"{count}cannot read the picture {name} ({why}): replace or remove it")
    for name in list(unreadable)[:LISTED]:
        LOG.warning("cannot read the picture %s (%s): it is left out", name, unreadable[name])
    if len(unreadable) > LISTED:
        LOG.warning("%d more pictures cannot be read", len(unreadable) - LISTED)
    images = torch.stack([read[k] for k in kept])  # type: ignore[misc]
    return Given(images, [names[k] for k in kept], kept, unreadable)


def _apart(names: list[str]) -> list[str]:
    """The names; the second picture of a name gets `#2` behind it, and so on."""
    seen: Counter[str] = Counter()
    for k, name in enumerate(names):
        seen[name] += 1
        if seen[name] > 1:
            names[k] = f"{name}#{seen[name]}"
    return names


def _read(
    where: str,
    shape: tuple[int, ...],
    resize: bool,
    check: Check,
    *,
    inside: bool,
    span: tuple[float, ...],
) -> tuple[list[str], Sequence[Tensor | str]]:
    """The names of the pictures at a path, and each picture (C, H, W) or why it cannot be read.

    With `inside`, the path of a folder or archive stands before the names of the pictures inside of it."""

    from eqm.data import DataConfig, open_source
    from eqm.data.open_source import opens_arrays
    from eqm.data.source import say
    from eqm.randomness import SampleRandom

    path, wanted = _picked(where)
    config = DataConfig(path, range=span)
    if opens_arrays(config):
        source = open_source(config, small=True)
        rows = _rows(path, wanted, len(source))
        if source.shape != shape:
            check(f"{path} holds pictures", source.shape)
            config = replace(config, channels=shape[0], size=shape[1])
            source = open_source(config, small=True)
        return [f"{path}:{row}" for row in rows.tolist()], source.batch(rows, SampleRandom(0, rows))
    files = _files(path)
    say(files.notes)
    rows = _rows(path, wanted, len(files.names))
    names = [files.names[row] for row in rows.tolist()]
    if inside and names != [path]:
        names = [f"{path.rstrip('/')}/{name}" for name in names]
    return names, _decoded(files, rows, shape, resize, check, config)


def _decoded(
    files: PictureFiles,
    rows: Tensor,
    shape: tuple[int, ...],
    resize: bool,
    check: Check,
    config: DataConfig,
) -> list[Tensor | str]:
    """Each picture (C, H, W), or why it cannot be read. All headers are read before any is decoded."""
    from concurrent.futures import ThreadPoolExecutor

    import torch

    from eqm.data import Pictures
    from eqm.data.decoding import BROKEN, Header, header, reason
    from eqm.data.pictures import remarks
    from eqm.data.source import say
    from eqm.randomness import SampleRandom

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
        span=config.range,
    )
    heads: dict[int, Header] = {}
    found: dict[int, Tensor | str] = {}
    for row in rows.tolist():
        try:
            with files.open(row) as file:
                head = heads[row] = header(file, config.range)
        except BROKEN as error:
            found[row] = reason(error)
            continue
        check(f"{files.names[row]} is a picture", (head.channels, head.height, head.width))

    say(remarks(files, heads, config.range))

    def decode(row: int) -> None:
        one = torch.tensor([row])
        try:
            found[row] = source.batch(one, SampleRandom(0, one))[0]
        except ValueError as error:
            found[row] = reason(error.__cause__ or error)

    with ThreadPoolExecutor(config.threads) as pool:
        list(pool.map(decode, [row for row in rows.tolist() if row not in found]))
    return [found[row] for row in rows.tolist()]


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
    from eqm.data import DataConfig
    from eqm.data.archives import PictureFiles
    from eqm.data.decoding import is_picture
    from eqm.data.open_source import files_at
    from eqm.reading import open_regular

    if is_picture(path) and not Path(path).is_dir():
        if not Path(path).exists():
            raise ValueError(f"cannot read the picture {path} (No such file): check its name")
        return PictureFiles(path, [path], None, (), path, lambda index: open_regular(path))
    return files_at(DataConfig(path, labels=False))


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


def range_of(model: Any) -> tuple[float, ...]:
    """The values of black and white that the model's data were read with, `DataConfig.range`."""
    from eqm.data import DataConfig

    config = DataConfig.of(model.metadata)
    return config.range if config else ()


def labels_of(labels: Sequence[str], count: int, model: Any) -> Tensor | None:
    """The classes of `count` pictures, (count,): one for each picture, one for all, or none.

    Raises ValueError for labels that the model does not have, or for another number of them.
    """
    from eqm.sampling import chosen_labels

    if not labels:
        return None
    chosen = chosen_labels(model, labels[0] if len(labels) == 1 else labels, count)
    return None if chosen is None else chosen.to(next(model.parameters()).device)
