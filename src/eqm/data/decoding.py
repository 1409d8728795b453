"""A picture from its file: what it is, and its pixels."""

from __future__ import annotations

import lzma
import struct
import zipfile
import zlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, BinaryIO

import numpy as np

if TYPE_CHECKING:
    from PIL.Image import Image

UNREADABLE = (
    *(OSError, ValueError, SyntaxError, EOFError, TypeError, IndexError, OverflowError),
    *(RuntimeError, struct.error, zlib.error, lzma.LZMAError, zipfile.BadZipFile),
)
"""What Pillow and archives raise for damaged files, besides decompression bombs."""


def reason(error: BaseException) -> str:
    """Why a picture cannot be read, in a line that is the same each time."""
    from PIL import UnidentifiedImageError

    if isinstance(error, UnidentifiedImageError):  # it names an address in memory
        return "it is no picture, or of an unknown kind"
    return " ".join(str(error).split()) or type(error).__name__


@dataclass(frozen=True)
class Header:
    """What a file says of its picture before it is decoded."""

    width: int
    height: int
    channels: int
    bits: int
    """A channel."""


def header(file: BinaryIO) -> Header:
    """The header of the picture in `file`. Raises what `UNREADABLE` holds."""
    from PIL import Image

    with Image.open(file) as picture:
        width, height = picture.size
        # Of a PNG without it at its beginning, Pillow would decode all to look for it at the end.
        noted = picture.format != "PNG" or "exif" in picture.info
        if noted and picture.getexif().get(0x0112, 1) >= 5:  # the camera was held upright
            width, height = height, width
        return Header(width, height, _channels(picture), _bits(picture))


def decode(file: BinaryIO, channels: int, size: int) -> np.ndarray:
    """The picture in `file` as (C, H, W): uint8, or float32 0..255 where it has 16 bits grey.

    It is turned upright as its camera noted. `channels` is 1, 3 or 4; `size` is the side of the
    square it is cropped to, or 0. What is see-through is laid on white unless there are 4 channels.
    Colours of 16 bits are read as 8, which is what Pillow does. Raises what `UNREADABLE` holds.
    """
    from PIL import Image, ImageOps

    with Image.open(file) as opened:
        picture = ImageOps.exif_transpose(opened)
        bits = _bits(picture)
        if bits == 32:
            raise ValueError("its pixels are floating-point: convert it to 8 or 16 bits")
        if bits == 16:
            grey = np.asarray(picture).astype(np.float32) / 257
            if grey.min() < 0 or grey.max() > 255:
                raise ValueError("its pixels have more than 16 bits: convert it to 16 bits")
            picture = Image.fromarray(grey)
        else:
            picture = _converted(picture, channels)
        if size:
            picture = centre_crop(picture, size)
        pixels = np.asarray(picture)
    if bits == 16:
        pixels = pixels.clip(0, 255)  # the bicubic filter overshoots
        if channels > 1:
            pixels = np.stack([pixels] * 3 + [np.full_like(pixels, 255)] * (channels - 3), axis=2)
    return pixels[None] if pixels.ndim == 2 else pixels.transpose(2, 0, 1)


def centre_crop(picture: Image, size: int) -> Image:
    """The square of side `size` in the middle, as ADM cuts it.

    Sides are halved by averaging while the shorter is at least twice `size`, then brought to it by a
    bicubic filter, and the longer one is cropped. From guided-diffusion, arXiv 2105.05233.
    """
    from PIL.Image import Resampling

    while min(picture.size) >= 2 * size:
        halved = (picture.width // 2, picture.height // 2)
        picture = picture.resize(halved, resample=Resampling.BOX)
    scale = size / min(picture.size)
    fitted = (round(picture.width * scale), round(picture.height * scale))
    picture = picture.resize(fitted, resample=Resampling.BICUBIC)
    left, top = (picture.width - size) // 2, (picture.height - size) // 2
    return picture.crop((left, top, left + size, top + size))


def _converted(picture: Image, channels: int) -> Image:
    from PIL import Image

    if channels == 4:
        return picture.convert("RGBA")
    if _channels(picture) == 4:
        white = Image.new("RGBA", picture.size, "white")
        picture = Image.alpha_composite(white, picture.convert("RGBA"))
    return picture.convert("L" if channels == 1 else "RGB")


def _channels(picture: Image) -> int:
    if picture.mode in ("LA", "PA", "La", "RGBA", "RGBa") or "transparency" in picture.info:
        return 4
    return 1 if picture.mode in ("1", "L", "F") or picture.mode.startswith("I") else 3


def _bits(picture: Image) -> int:
    if picture.mode == "F":
        return 32
    return 16 if picture.mode.startswith("I") else 1 if picture.mode == "1" else 8
