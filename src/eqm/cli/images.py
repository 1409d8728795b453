"""The pictures and the model that a command is given."""

from __future__ import annotations

import logging
import math
import re
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from eqm.cli.options import AS_FOUND, Reading

if TYPE_CHECKING:
    import numpy as np
    import torch
    from torch import Tensor

    from eqm.data import DataConfig
    from eqm.data.picture_files import PictureFiles
    from eqm.encoders import Encoder

LOG = logging.getLogger(__name__)
LISTED = 20
"""Unreadable pictures that are named in warnings."""
MAX_TILES = 64
"""Tiles of one picture at most."""
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
    """The names of those that cannot be read, and why."""
    missing: list[int]
    """Their numbers."""
    sizes: list[tuple[int, int]]
    """Height and width of each picture, before it was resized."""
    counts: list[int]
    """How many images each name has: 1, or the number of its tiles."""

    def labels(self, given: Sequence[str]) -> Sequence[str]:
        """The labels of the images, from those of all that were given."""
        whole = len(self.kept) + len(self.unreadable)
        return [given[k] for k in self.kept] if len(given) == whole > 1 else given

    @property
    def status(self) -> int:
        """The exit status of a command that used these pictures: 1 where some could not be read."""
        return 1 if self.unreadable else 0


class _Asked(NamedTuple):
    """What is asked of the pictures at a path."""

    shape: tuple[int, ...]
    resize: bool
    tiles: bool
    check: Check
    model: Any
    reading: Reading
    shared: bool

    def own(self, count: int, first: int) -> slice:
        """Which of `count` pictures, numbered from `first`, this process reads."""
        from eqm.devices import rank, world_size

        every = world_size() if self.shared else 1
        return slice((rank() - first) % every, count, every)

    @property
    def metadata(self) -> dict[str, Any]:
        """Those of the model."""
        return getattr(self.model, "metadata", None) or {}


class _Picture(NamedTuple):
    """A picture that was read."""

    images: Tensor
    """(1, C, H, W), or its tiles (T, C, H, W)."""
    size: tuple[int, int]
    """Its height and width in the file."""


def read_images(
    paths: Sequence[Path | str],
    shape: Sequence[int],
    *,
    resize: bool | None = False,
    taker: str = "the model takes",
    broken: Literal["skip", "fail"] = "fail",
    model: Any = None,
    reading: Reading = AS_FOUND,
    tiles: bool = False,
    shared: bool = False,
) -> Given:
    """The pictures at `paths`, and the name of each.

    For a model of signals, videos or points they are the samples of arrays, scaled as its training data
    were. A path is a picture or anything that `eqm train --data.path` takes. `:5` or `:0-7` after it picks
    some pictures, counted from 0. The pictures must have `shape` (C, H, W). `resize` crops them to a
    square, resizes them and converts their channels; None hides that offer in errors, where `taker`
    says what wants the shape. With `tiles` it does not crop: a picture that is no square becomes several
    images, squares that overlap and cover it, as `tiles_of` places them. Numbers of the kind that the
    `model` was trained on have the values of black and white of its training data, unless `reading` says
    others. With `shared`, each process of torchrun reads only its share: picture k belongs to the process
    with rank k modulo the number of processes.

    Where `broken` is "skip", a picture that cannot be read is left out, with a warning. Raises ValueError
    for missing files, other shapes, numbers out of range, and where no picture can be read.
    """
    import torch

    from eqm.data.source import say
    from eqm.devices import world_size

    if not paths:
        raise ValueError(
            "no pictures were given: pass files, folders, an .npz or a data set's name"
        )
    shape = tuple(shape)
    if resize and len(shape) != 3:
        raise ValueError("--resize is for models of pictures: leave it out")
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

    asked = _Asked(shape, bool(resize), bool(resize) and tiles, check, model, reading, shared)
    names: list[str] = []
    read: list[_Picture | str | None] = []
    for path in paths:
        more, images = _read(str(path), asked, len(names), inside=len(paths) > 1)
        names += more
        read += images
    names = names_apart(names)
    missing = [k for k, why in enumerate(read) if isinstance(why, str)]
    unreadable = {names[k]: str(read[k]) for k in missing}
    kept = [k for k, each in enumerate(read) if isinstance(each, _Picture)]
    alone = not shared or world_size() == 1
    if unreadable and (broken == "fail" or (alone and not kept)):
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
    good: list[_Picture] = [read[k] for k in kept]  # type: ignore[misc]
    if any(len(each.images) > 1 for each in good):
        cut = sum(len(each.images) > 1 for each in good)
        most = max(len(each.images) for each in good)
        say(
            [
                f"{cut} of {len(good)} pictures are no squares: each is cut into up to {most} square tiles that "
                "overlap and cover all of it"
            ]
        )
    return Given(
        torch.cat([torch.empty(0, *shape), *(each.images for each in good)]),
        [names[k] for k in kept],
        kept,
        unreadable,
        missing,
        [each.size for each in good],
        [len(each.images) for each in good],
    )


def tiles_of(height: int, width: int) -> list[tuple[int, int]]:
    """The top and left of the squares, as wide as the shorter side, that cover a picture.

    They are as few as possible and evenly spread, from the first edge to the last. Raises ValueError
    where more than 64 are needed."""
    side, longer = sorted((height, width))
    count = -(-longer // side)
    if count > MAX_TILES:
        raise ValueError(
            f"it has {width}x{height} pixels and would need {count:,} square tiles: cut it into pieces"
        )
    places = [round(k * (longer - side) / max(count - 1, 1)) for k in range(count)]
    return [(place, 0) if height > width else (0, place) for place in places]


def names_apart(names: list[str]) -> list[str]:
    """The names; the second picture of a name gets `#2` behind it, and so on."""
    seen: Counter[str] = Counter()
    for k, name in enumerate(names):
        seen[name] += 1
        if seen[name] > 1:
            names[k] = f"{name}#{seen[name]}"
    return names


def _read(
    where: str, asked: _Asked, first: int, *, inside: bool
) -> tuple[list[str], list[_Picture | str | None]]:
    """The names of the pictures at a path, and each picture or why it cannot be read; None is left to
    another process. The first one has the number `first`.

    With `inside`, the path of a folder or archive stands before the names of the pictures inside of it."""
    from eqm.data import DataConfig
    from eqm.data.open_source import applicable, opens_arrays
    from eqm.data.source import say

    path, wanted = picked(where)
    config = applicable(asked.reading.applied(DataConfig(path, labels=False)))
    if len(asked.shape) != 3:
        return _of_samples(config, wanted, asked, first)
    if opens_arrays(config):
        return _of_arrays(config, wanted, asked, first)
    files = files_of(config)
    say(files.notes)
    rows = rows_of(path, wanted, len(files.names))
    names = [files.names[row] for row in rows.tolist()]
    if inside and names != [path]:
        names = [f"{path.rstrip('/')}/{name}" for name in names]
    trained = DataConfig.of(asked.metadata)
    config = replace(config, range=config.range or (trained.range if trained else ()))
    images: list[_Picture | str | None] = [None] * len(names)
    own = asked.own(len(names), first)
    images[own] = _decoded(files, rows[own], asked, config)
    return names, images


def _of_arrays(
    config: DataConfig, wanted: tuple[int, int] | None, asked: _Asked, first: int
) -> tuple[list[str], list[_Picture | str | None]]:
    """The names and the pictures of arrays, with their axes and range as the model takes them."""
    from eqm.data.open_source import open_source
    from eqm.data.values import Wanted
    from eqm.randomness import SampleRandom

    taken = Wanted.of(asked.shape, asked.metadata)
    source = open_source(config, small=True, wanted=taken)
    rows = rows_of(config.path, wanted, len(source))
    names = [f"{config.path}:{row}" for row in rows.tolist()]
    own = asked.own(len(names), first)
    rows = rows[own]
    shape = asked.shape
    if source.shape != shape:
        asked.check(f"{config.path} holds pictures", source.shape)
    height, width = source.shape[-2:]
    if source.shape != shape:
        cut = asked.tiles and height != width
        config = replace(config, channels=shape[0], size=0 if cut else shape[1])
        source = open_source(config, small=True, wanted=taken)
    images = source.batch(rows, SampleRandom(0, rows))
    if images.shape[1:] == shape:
        parts = list(images[:, None])
    else:
        parts = [_tiles(image.numpy(), shape[1]).clamp_(-1, 1) for image in images]
    pictures: list[_Picture | str | None] = [None] * len(names)
    pictures[own] = [_Picture(part, (height, width)) for part in parts]
    return names, pictures


def _of_samples(
    config: DataConfig, wanted: tuple[int, int] | None, asked: _Asked, first: int
) -> tuple[list[str], list[_Picture | str | None]]:
    """The names and the samples at a path for a model of signals, videos or points."""
    from eqm.cli.samples import open_samples

    source = open_samples(config, asked.shape, asked.metadata)
    rows = rows_of(config.path, wanted, len(source), "samples")
    samples: list[_Picture | str | None] = [None] * len(rows)
    own = asked.own(len(rows), first)
    samples[own] = [_Picture(one[None], (0, 0)) for one in source.scaled(rows[own])]
    return [f"{config.path}:{row}" for row in rows.tolist()], samples


def _tiles(pixels: np.ndarray, size: int) -> Tensor:
    """The tiles of a picture (C, H, W) of any type, (T, C, size, size) float32."""
    import numpy as np
    import torch
    from PIL import Image

    from eqm.data.decoding import centre_crop

    side = min(pixels.shape[1:])
    tiles = [
        [
            np.array(centre_crop(Image.fromarray(np.ascontiguousarray(plane)), size), np.float32)
            for plane in pixels[:, top : top + side, left : left + side]
        ]
        for top, left in tiles_of(*pixels.shape[1:])
    ]
    return torch.from_numpy(np.array(tiles))


def _decoded(
    files: PictureFiles, rows: Tensor, asked: _Asked, config: DataConfig
) -> list[_Picture | str]:
    """Each picture, or why it cannot be read. All headers are read before any is decoded."""
    from concurrent.futures import ThreadPoolExecutor

    import torch

    from eqm.data import Pictures
    from eqm.data.decoding import BROKEN, Header, decode, header, reason
    from eqm.data.pictures import remarks
    from eqm.data.source import say
    from eqm.randomness import SampleRandom

    channels, height, width = asked.shape
    source = Pictures(
        files,
        shape=(channels, height, width),
        size=height if asked.resize else 0,
        rows=torch.arange(len(files.names)),
        labels=None,
        num_classes=0,
        class_names=(),
        on_broken="fail",
        span=config.range,
    )
    heads: dict[int, Header] = {}
    found: dict[int, _Picture | str] = {}
    for row in rows.tolist():
        try:
            with files.open(row) as file:
                head = heads[row] = header(file, config.range)
        except BROKEN as error:
            found[row] = reason(error)
            continue
        asked.check(f"{files.names[row]} is a picture", (head.channels, head.height, head.width))
    say(remarks(files, heads, config.range, 0 if asked.tiles else source.size))

    def read(row: int) -> None:
        one, head = torch.tensor([row]), heads[row]
        size = head.height, head.width
        try:
            if asked.tiles and head.height != head.width:
                tiles_of(*size)  # refuses a long strip before it is decoded
                with files.open(row) as file:
                    pixels = decode(file, channels, 0, config.range)
                images = _tiles(pixels, height).clamp_(0, 255).div_(127.5).sub_(1)
            else:
                images = source.batch(one, SampleRandom(0, one))
            found[row] = _Picture(images, size)
        except BROKEN as error:
            found[row] = reason(error.__cause__ or error)

    with ThreadPoolExecutor(config.threads) as pool:
        list(pool.map(read, [row for row in rows.tolist() if row not in found]))
    return [found[row] for row in rows.tolist()]


def picked(where: str) -> tuple[str, tuple[int, int] | None]:
    """A path, and the first and last picture that a `:0-7` behind it asks for."""
    found = re.fullmatch(r"(.+):(\d+)(?:-(\d+))?", where)
    if found is None or Path(where).exists():
        return where, None
    path, first, last = found.groups()
    return path, (int(first), int(last or first))


def rows_of(
    path: str, wanted: tuple[int, int] | None, count: int, what: str = "pictures"
) -> Tensor:
    import torch

    first, last = wanted or (0, count - 1)
    if not first <= last < count:
        raise ValueError(
            f"{path} holds {what} 0 to {count - 1}; got {first}-{last}: pick numbers in that range"
        )
    return torch.arange(first, last + 1)


def files_of(config: DataConfig) -> PictureFiles:
    from eqm.data.decoding import is_picture
    from eqm.data.open_source import files_at
    from eqm.data.picture_files import PictureFiles
    from eqm.reading import open_regular

    path = config.path
    if is_picture(path) and not Path(path).is_dir():
        if not Path(path).exists():
            raise ValueError(f"cannot read the picture {path} (No such file): check its name")
        return PictureFiles(path, [path], None, (), path, lambda index: open_regular(path))
    return files_at(config)


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
    moving: bool = False,
    output: Path | None = None,
) -> tuple[Any, Encoder]:
    """The model `name`, ready for inference, and the encoder that decodes its samples.

    With `precision` None the model is as it was stored. Raises ValueError for a model of latents unless
    `latents`, and for samples that `output` cannot hold: images are an animation only if `moving`.
    """
    from eqm.cli.output import MOVING, STILL, check_output, ending_of
    from eqm.devices import pick_device
    from eqm.encoders import encoder_of
    from eqm.models import for_inference, from_pretrained
    from eqm.pictures import ANIMATION_SUFFIXES, check_channels

    where = pick_device(device) if isinstance(device, str) else device
    network = from_pretrained(name, device=where)
    shape = network.config.shape
    if not latents and (network.metadata.get("data") or {}).get("encoder"):
        raise ValueError(f"this command takes models of pixels; {name} is a model of latents")
    encoder = encoder_of(network.metadata, vae, device=where)
    rate = (network.metadata.get("data") or {}).get("sample_rate")
    if output is not None and len(shape) == 3:
        check_output(output, MOVING if moving else STILL)
        if ending_of(output) != ".npz":
            check_channels(encoder.image_shape_of(shape)[0])
    elif (
        output is not None
        and ending_of(output) in ANIMATION_SUFFIXES
        and ((len(shape) != 4 and shape != (3,)) or rate)
    ):
        raise ValueError(
            f"output must end in .png or .npz for samples that are no videos; got {output}"
        )
    if output is not None and ending_of(output) == ".wav" and not rate:
        raise ValueError(
            f"output must end in .png or .npz for samples that are no sounds; got {output}"
        )
    if precision is None:
        return network, encoder
    return for_inference(network, precision=precision, compile=compile), encoder


def input_of(model: Any, images: Tensor) -> Tensor:
    """The images on the device and in the dtype that the model takes."""
    weight = next(model.parameters())
    return images.to(weight.device, getattr(model, "dtype", weight.dtype))


def conditions_of(labels: Sequence[str], prompts: Sequence[str], model: Any) -> Sequence[str]:
    """The labels or the prompts of a command, whichever the model takes.

    Raises ValueError for both, and for those that it does not take."""
    from eqm.sampling import describe
    from eqm.sampling.labels import labels_or_prompts

    if labels and prompts:
        raise ValueError("give --labels or --prompt, not both")
    if labels and describe(model).sentence:
        raise ValueError(
            "this model takes sentences, not classes: leave --labels out, and give --prompt 'a smiling cat'"
        )
    labels_or_prompts(model, None, list(prompts) or None)
    return labels or prompts


def labels_of(labels: Sequence[str], count: int, model: Any) -> Tensor | None:
    """The classes of `count` pictures, (count,): one for each picture, one for all, or none.

    Raises ValueError for labels that the model does not have, or for another number of them.
    """
    from eqm.sampling import chosen_labels

    if not labels:
        return None
    chosen = chosen_labels(model, labels[0] if len(labels) == 1 else labels, count)
    return None if chosen is None else chosen.to(next(model.parameters()).device)


LARGEST_SHEET = 2**28
"""A sheet has at most so many pixels; most programs open no larger picture."""


def check_samples(count: int, shape: Sequence[int], scale: int = 0) -> None:
    """Raises ValueError if so many samples of `shape` do not fit into memory, or are too many pixels for a
    sheet with this scale."""
    from eqm.memory import check_memory

    pixels = count * math.prod(shape[-2:]) * scale**2
    if pixels > LARGEST_SHEET:
        raise ValueError(
            f"a sheet must have at most {LARGEST_SHEET:,} pixels; got {pixels:,}: take a smaller scale"
        )
    needed = count * (200 + 16 * math.prod(shape))
    check_memory(f"the work on {count:,} samples", needed, "take fewer at a time")
