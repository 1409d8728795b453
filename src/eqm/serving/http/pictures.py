"""Pictures in requests and answers: base64 to tensors and back."""

from __future__ import annotations

import base64
import binascii
import io
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from eqm.data.decoding import BROKEN, Header, decode, header, reason
from eqm.data.picture_files import PictureFiles
from eqm.data.pictures import remarks
from eqm.pictures import to_uint8
from eqm.serving.http.limits import Limits


@dataclass(frozen=True)
class Pictures:
    """Pictures that were sent."""

    images: Tensor
    """(B, C, H, W) float32, -1..1."""
    notes: list[str]
    """Sentences that say how they were read."""


def unpack(text: str, name: str) -> bytes:
    """The bytes of a base64 text. Raises ValueError for other text."""
    if text.startswith("data:"):
        raise ValueError(
            f"{name} must be plain base64; got a data: address: send what is after the comma"
        )
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        raise ValueError(f"{name} must be a picture file in base64; it is not base64") from None


def read_pictures(
    contents: Sequence[bytes],
    shape: Sequence[int],
    *,
    limits: Limits,
    resize: bool | None = False,
    name: str = "images",
    names: Sequence[str] | None = None,
) -> Pictures:
    """The pictures in `contents`, encoded files, as images of `shape` (C, H, W).

    Channels are converted. `resize` crops them to a square and resizes them to the shape; None hides that
    offer in errors. Headers are read before pixels.
    Raises ValueError for what is no picture, too many pixels, and another size.
    """
    channels, height, width = shape
    if not contents:
        raise ValueError(f"{name} must have at least one picture; got none")
    limits.check_count(f"the number of {name}", len(contents))
    if resize and height != width:
        raise ValueError(
            f"resize makes squares; the model takes {width}x{height} pixels: send that size"
        )
    if names is None:
        names = [name] if len(contents) == 1 else [f"{name}[{k}]" for k in range(len(contents))]
    heads = {}
    for k, (content, each) in enumerate(zip(contents, names, strict=True)):
        heads[k] = head = _header(content, each)
        if head.width * head.height > limits.pixels:
            raise ValueError(
                f"{each} must have at most {limits.pixels:,} pixels; got {head.width}x{head.height}: "
                "shrink it"
            )
        if (head.height, head.width) != (height, width) and not resize:
            offer = "" if resize is None else ", or send resize true"
            raise ValueError(
                f"{each} must have {width}x{height} pixels; got {head.width}x{head.height}: bring it to "
                f"that size{offer}"
            )
    files = PictureFiles(name, list(names), None, (), "", lambda k: io.BytesIO(contents[k]))
    size = height if resize else 0
    notes = list(remarks(files, heads, (), size))
    other = [head.channels for head in heads.values() if head.channels != channels]
    if other:
        notes.append(
            f"{len(other)} of {len(heads)} {name} had {other[0]} channels and were converted to {channels}"
        )
    images = torch.empty(len(contents), channels, height, width)
    for k, content in enumerate(contents):
        head = heads[k]
        side = size if (head.height, head.width) != (height, width) else 0
        try:
            pixels = decode(io.BytesIO(content), channels, side)
        except BROKEN as error:
            raise ValueError(
                f"{names[k]} cannot be read ({reason(error)}): send another file"
            ) from None
        images[k] = torch.from_numpy(np.array(pixels, np.float32))
    return Pictures(images.div_(127.5).sub_(1), notes)


def read_mask(
    content: bytes, sides: Sequence[int], *, limits: Limits, name: str = "mask"
) -> Tensor:
    """The values (H, W), 0 for black to 1 for white, of a picture of these sides.

    Raises ValueError as `read_pictures` does."""
    mask = read_pictures([content], (1, *sides), limits=limits, resize=None, name=name).images[0, 0]
    return (mask + 1) / 2


def png(image: Tensor, scale: int = 1) -> str:
    """An image (C, H, W) in -1..1 as a PNG in base64; each pixel becomes `scale` pixels wide."""
    pixels = to_uint8(image[None])[0]
    picture = Image.fromarray(pixels[:, :, 0] if pixels.shape[2] == 1 else pixels)
    if scale > 1:
        size = (picture.width * scale, picture.height * scale)
        picture = picture.resize(size, Image.Resampling.NEAREST)
    found = io.BytesIO()
    picture.save(found, "png", compress_level=1)
    return base64.b64encode(found.getvalue()).decode("ascii")


def _header(content: bytes, name: str) -> Header:
    try:
        return header(io.BytesIO(content))
    except BROKEN as error:
        why = reason(error).partition(": set data.range")[0]
        raise ValueError(f"{name} cannot be read ({why}): send a PNG or JPEG") from None
