"""The pixels of one picture file."""

from __future__ import annotations

import lzma
import math
import os
import struct
import zipfile
import zlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from functools import cache
from pathlib import PurePosixPath
from threading import Lock
from typing import Any, BinaryIO

import numpy as np
from PIL import Image, UnidentifiedImageError

from eqm.reading import PerProcess

BROKEN = (
    *(OSError, ValueError, SyntaxError, EOFError, TypeError, IndexError, KeyError, OverflowError),
    *(RuntimeError, MemoryError, ZeroDivisionError, AssertionError),
    *(struct.error, zlib.error, lzma.LZMAError, zipfile.BadZipFile),
    *(Image.DecompressionBombError, Image.DecompressionBombWarning),
)
"""What Pillow and archives raise for damaged files."""
_UNREAD = ("EPS", "MPEG", "WMF", "BUFR", "GRIB", "HDF5")
"""Formats of Pillow that it hands to other programs, such as Ghostscript, or does not decode."""
_LONG = 16
"""Of a side that is more times as long as the crop, only the part in the crop is resized."""
_MANY = 1 << 25
"""Pixels of a picture that is not decoded beside another one, as each may take 0.4 GB."""
_SCANNED = 1 << 31
"""Pixels that all scans of a JPEG may go over together."""
_PACKED = 500
"""A large picture may take so many times the bytes of its file."""
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
"""What undoes each EXIF orientation."""
_CONVERTED = (
    *("1", "L", "LA", "La", "P", "PA", "RGB", "RGBA", "RGBa", "RGBX", "CMYK", "YCbCr", "HSV"),
)
"""Pillow's modes of pictures that are converted to grey, RGB or RGBA."""
_TOO_LARGE = (
    f"it has more than {Image.MAX_IMAGE_PIXELS or 0:,} pixels, the limit of Pillow: shrink it, or cut "
    "it into tiles"
)


def reason(error: BaseException) -> str:
    """Why a picture cannot be read, in one line."""
    if isinstance(error, UnidentifiedImageError):  # whose text holds an address in memory
        return "it is no picture, or of an unknown format"
    if isinstance(error, Image.DecompressionBombError | Image.DecompressionBombWarning):
        return _TOO_LARGE
    if isinstance(error, OSError) and error.errno:
        return os.strerror(error.errno)
    return " ".join(str(error).split()) or type(error).__name__


@cache
def formats() -> tuple[str, ...]:
    """The formats of Pillow that count as pictures."""
    Image.init()
    common = ("JPEG", "PNG", "GIF", "BMP", "PPM", "TIFF", "WEBP")  # tried first
    return common + tuple(name for name in Image.OPEN if name not in common + _UNREAD)


@cache
def suffixes() -> frozenset[str]:
    """What the names of pictures end in, such as `.png`: all that Pillow can decode."""
    known = (*formats(), "MPO")  # which Pillow opens as JPEG
    return frozenset(end for end, name in Image.registered_extensions().items() if name in known)


def is_picture(name: str) -> bool:
    """Whether a file is a picture, by the end of its name."""
    return PurePosixPath(name).suffix.lower() in suffixes()


@dataclass(frozen=True)
class Header:
    """The header of a picture file."""

    width: int
    height: int
    channels: int
    bits: int
    """Bits of a channel."""
    deep: bool = False
    """Whether it is grey of more than 8 bits, or signed: `span` then says what is black and white."""
    several: bool = False
    """Whether the file holds more pictures than the first: pages, or the frames of an animation."""


def header(file: BinaryIO, span: Sequence[float] = ()) -> Header:
    """The header of the picture in `file`; `BROKEN` are what it raises.

    It is that of the picture that `decode` returns with the same `span`, and raises ValueError where
    `decode` would refuse the kind of picture."""
    with _opened(file) as picture:
        deep = _values_of(picture, span) is not None
        width, height = picture.size
        turn = _turn(picture, file)
        if picture.format == "TIFF":  # some versions of Pillow have turned the size already
            width, height = picture.tag_v2[256], picture.tag_v2[257]  # type: ignore[attr-defined]
        if turn >= 5:  # by a quarter
            width, height = height, width
        several = bool(getattr(picture, "is_animated", False))
        return Header(width, height, _channels(picture), _bits(picture), deep, several)


def value_range(file: BinaryIO) -> tuple[float, float]:
    """The least and the largest value that is stored in a grey picture; `BROKEN` as `header`."""
    with _opened(file) as picture, _one_at_a_time(picture):
        raw = np.asarray(picture)
        raw = raw.view(np.int8) if raw.dtype == np.uint8 else raw
        return float(raw.min()), float(raw.max())


def decode(file: BinaryIO, channels: int, size: int, span: Sequence[float] = ()) -> np.ndarray:
    """The picture in `file` as (C, H, W): uint8, or float32 0..255 where it has more than 8 bits grey.

    It is turned as its EXIF data say. `channels` is 1, 3 or 4; `size` is the side of the square to
    crop to, or 0. Transparent pixels become white unless there are 4 channels. `span` are the values
    of black and white of grey pictures of more than 8 bits; by default those of the file's format.
    Pillow reads colours of 16 bits as 8. Of an animation, or of pages, it is the first. `BROKEN` are
    what it raises.
    """
    with _opened(file) as opened, _one_at_a_time(opened):
        picture: Image.Image = opened
        values = _values_of(opened, span)
        turn = _turn(opened, file)
        opened.load()
        if opened.format != "TIFF" and turn in _TURNS:  # Pillow turns a TIFF as it loads it
            picture = opened.transpose(_TURNS[turn])
        alpha: Image.Image | None = None
        if values is None:
            picture = _converted(picture, channels)
        else:
            grey = _scaled(np.asarray(picture), *values)
            if "transparency" in picture.info:
                clear = np.asarray(picture) == picture.info["transparency"]
                alpha = Image.fromarray(np.where(clear, np.float32(0), np.float32(255)))
                if channels < 4:
                    grey[clear] = 255
            picture = Image.fromarray(grey)
        if size:
            picture = centre_crop(picture, size)
            alpha = alpha and centre_crop(alpha, size)
        pixels = np.asarray(picture)
    if values is not None:
        pixels = pixels.clip(0, 255)  # the bicubic filter overshoots
        if channels > 1:
            opacity = np.full_like(pixels, 255) if alpha is None else np.asarray(alpha).clip(0, 255)
            pixels = np.stack([pixels] * 3 + [opacity] * (channels - 3), axis=2)
    return pixels[None] if pixels.ndim == 2 else pixels.transpose(2, 0, 1)


def cut_note(name: str, sizes: Mapping[str, tuple[int, int]], size: int) -> tuple[str, ...]:
    """A sentence about what `centre_crop` cuts away from pictures of these names, widths and heights."""
    shares = {each: 1 - min(wide) / max(wide) for each, wide in sizes.items()}
    worst = max(shares, key=shares.__getitem__, default="")
    if size <= 0 or not worst or not shares[worst]:
        return ()
    width, height = sizes[worst]
    return (
        f"{name}: the crop to a square of {size}x{size} pixels crops away up to "
        f"{math.ceil(100 * shares[worst])} % of a picture ({worst} has {width}x{height} pixels)",
    )


def centre_crop(picture: Image.Image, size: int) -> Image.Image:
    """The square of side `size` in the middle, as ADM crops it (guided-diffusion, arXiv 2105.05233).

    Sides are halved by averaging while the shorter is at least twice `size`. A bicubic filter then
    makes the shorter one `size`, and the longer one is cropped.
    """
    while min(picture.size) >= 2 * size:
        halved = (picture.width // 2, picture.height // 2)
        picture = picture.resize(halved, resample=Image.Resampling.BOX)
    scale = size / min(picture.size)
    width, height = round(picture.width * scale), round(picture.height * scale)
    left, top = (width - size) // 2, (height - size) // 2
    if max(width, height) > _LONG * size:  # the fitted strip could fill the memory: crop first
        x, y = picture.width / width, picture.height / height
        box = (left * x, top * y, (left + size) * x, (top + size) * y)
        return picture.resize((size, size), resample=Image.Resampling.BICUBIC, box=box)
    picture = picture.resize((width, height), resample=Image.Resampling.BICUBIC)
    return picture.crop((left, top, left + size, top + size))


_large = PerProcess(Lock)


@contextmanager
def _opened(file: BinaryIO) -> Iterator[Image.Image]:
    """The picture in `file`, not decoded yet. Raises ValueError where it is too large."""
    with Image.open(file, formats=formats()) as picture:
        limit = Image.MAX_IMAGE_PIXELS
        if limit is not None and math.prod(picture.size) > limit:
            raise ValueError(_TOO_LARGE)
        _check_filling(picture, file)
        _check_scans(picture, file)
        bits = {"1": 1, "L;2": 2, "L;4": 4}.get(_rawmode(picture))
        if bits and "transparency" in picture.info:
            # Pillow spreads grey values over 0..255, but not always the transparent one.
            spread = picture.info["transparency"] * (255 // (2**bits - 1))
            picture.info["transparency"] = min(spread, 255)
        yield picture


def _check_filling(picture: Image.Image, file: BinaryIO) -> None:
    """Raises ValueError for a small file of a large picture, as is made to fill the memory."""
    each = {"1": 1, "L": 1, "P": 1}.get(picture.mode, 2 if picture.mode.startswith("I;16") else 4)
    taken = math.prod(picture.size) * each
    if taken > _MANY * 4:
        place = file.tell()
        size = file.seek(0, 2)
        file.seek(place)
        if taken > _PACKED * size:
            raise ValueError(
                f"it has {size:,} bytes and would take {taken:,} in memory: shrink it, or save it without "
                "compression"
            )


def _check_scans(picture: Image.Image, file: BinaryIO) -> None:
    """Raises ValueError for a progressive JPEG of very many scans, each of which goes over all pixels."""
    if not picture.info.get("progressive"):
        return
    place = file.tell()
    file.seek(0)
    scans = sum(piece.count(b"\xff\xda") for piece in iter(lambda: file.read(1 << 20), b""))
    file.seek(place)
    if scans * math.prod(picture.size) > _SCANNED:
        raise ValueError(f"it has {scans:,} scans, which would take long to decode: save it again")


def _one_at_a_time(picture: Image.Image) -> AbstractContextManager[Any]:
    return _large() if math.prod(picture.size) > _MANY else nullcontext()


def _turn(picture: Image.Image, file: BinaryIO) -> int:
    """The EXIF orientation, 1 to 8, before the picture is decoded."""
    found = _png_exif(picture, file) if picture.format == "PNG" else picture.getexif()
    turn = found.get(0x0112, 1)
    return turn if turn in _TURNS else 1


def _png_exif(picture: Image.Image, file: BinaryIO) -> Image.Exif:
    """The EXIF data of a PNG. They may stand behind the pixels, and Pillow would decode all of those
    to come there."""
    if "exif" not in picture.info and "Raw profile type exif" not in picture.info:
        exif, place = Image.Exif(), file.tell()
        file.seek(8)
        while len(chunk := file.read(8)) == 8:
            length, kind = int.from_bytes(chunk[:4]), chunk[4:]
            if kind == b"eXIf":
                exif.load(file.read(min(length, 1 << 20)))
            if kind in (b"eXIf", b"IEND"):
                break
            file.seek(length + 4, 1)
        file.seek(place)
        return exif
    return picture.getexif()


def _values_of(picture: Image.Image, span: Sequence[float]) -> tuple[float, float] | None:
    """The values of black and white in a grey picture of more than 8 bits; None for other pictures.

    Raises ValueError where they are not known, and for pictures that cannot be converted."""
    form, mode = picture.format, picture.mode
    tags: Mapping[int, Any] = getattr(picture, "tag_v2", {})
    signed = form == "TIFF" and 2 in tags.get(339, (1,))
    if not (signed or mode == "F" or mode.startswith("I")):
        if mode not in _CONVERTED:
            raise ValueError(f"its colours are {mode}: convert it to RGB")
        if "transparency" in picture.info and _rawmode(picture) == "RGB;16B":
            raise ValueError(
                "it has colours of 16 bits and a transparent one: convert it to 8 bits"
            )
        return None
    if span:
        low, high = span
        return low, high
    if form in ("PNG", "PPM", "JPEG2000") and mode != "F":
        return 0, 65535
    if form == "TIFF" and mode.startswith("I;16") and not signed:
        white = 2 ** max(tags.get(258, (16,))) - 1
        return (white, 0) if tags.get(262) == 0 else (0, white)
    kind = "floating-point" if mode == "F" else "signed" if signed else "of 32 bits"
    raise ValueError(
        f"its values are {kind}, which does not say what is black and white: set data.range, such as "
        f"{'0 1' if mode == 'F' else '0 4095'}"
    )


def _scaled(raw: np.ndarray, black: float, white: float) -> np.ndarray:
    """Values as float32, 0 for black to 255 for white; what lies outside is clipped."""
    if raw.dtype == np.uint8:  # signed bytes, which Pillow does not know
        raw = raw.view(np.int8)
    if raw.dtype.kind == "f" and not np.isfinite(raw).all():
        raise ValueError("its pixels hold NaN or infinity: replace them by numbers")
    exact = np.float32 if raw.dtype.itemsize <= 2 else np.float64
    grey: np.ndarray[Any, np.dtype[np.floating[Any]]] = raw.astype(exact)
    if black:
        grey -= black
    grey /= (white - black) / 255
    return grey.clip(0, 255, out=grey).astype(np.float32, copy=False)


def _rawmode(picture: Image.Image) -> str:
    """How the pixels of a PNG are stored, such as `L;4`."""
    return str(picture.tile[0][3]) if picture.format == "PNG" and picture.tile else ""  # type: ignore[attr-defined]


def _converted(picture: Image.Image, channels: int) -> Image.Image:
    if picture.mode == "La":
        picture = picture.convert("LA")
    if channels == 4:
        return picture if picture.mode == "RGBA" else picture.convert("RGBA")
    if _channels(picture) == 4:
        white = Image.new("RGBA", picture.size, "white")
        picture = Image.alpha_composite(white, picture.convert("RGBA"))
    mode = "L" if channels == 1 else "RGB"
    return picture if picture.mode == mode else picture.convert(mode)


def _channels(picture: Image.Image) -> int:
    if picture.mode in ("LA", "PA", "La", "RGBA", "RGBa") or "transparency" in picture.info:
        return 4
    return 1 if picture.mode in ("1", "L", "F") or picture.mode.startswith("I") else 3


def _bits(picture: Image.Image) -> int:
    if picture.mode == "F":
        return 32
    return 16 if picture.mode.startswith("I") else 1 if picture.mode == "1" else 8
