"""Samples in memory, and the pixels of one picture file."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, BinaryIO, ClassVar, Self

import numpy as np
import torch
from torch import Tensor

from eqm.data.source import digest, second_part
from eqm.randomness import SampleRandom

if TYPE_CHECKING:
    from PIL.Image import Image

LOG = logging.getLogger(__name__)
MAX_CLASSES = 1_000_000
"""A label above is an id, or a -1 that lost its sign."""


@dataclass(frozen=True, eq=False)
class Tensors:
    """N samples of any shape, with a label each or none.

    `data` is (N, ...), float32 and finite; `labels` (N,) int64 in 0..num_classes-1, or None, when
    `num_classes` is 0. Raises ValueError for anything else.
    """

    name: str
    data: Tensor
    labels: Tensor | None = None
    num_classes: int = 0
    class_names: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    """Sentences that say how the data were read."""
    in_memory: ClassVar[bool] = True

    def __post_init__(self) -> None:
        if self.data.ndim < 2 or len(self.data) == 0 or self.data.dtype != torch.float32:
            raise ValueError(
                f"{self.name}: samples must be float32 of shape (N, ...) with N > 0; "
                f"got {self.data.dtype} {tuple(self.data.shape)}"
            )
        check_finite(self.name, self.data)
        check_labels(self.name, self.labels, len(self.data), self.num_classes)

    @property
    def classes(self) -> Tensor:
        """The labels, (N,). Raises ValueError where there are none."""
        if self.labels is None:
            raise ValueError(f"{self.name} has no labels, which are needed here")
        return self.labels

    def __len__(self) -> int:
        return len(self.data)

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of one sample."""
        return tuple(self.data.shape[1:])

    @cached_property
    def fingerprint(self) -> str:
        """Hexadecimal digest of data and labels."""
        return digest(self.data, self.labels)

    def __getitem__(self, rows: Tensor) -> Self:
        """The samples at `rows`, indices or a mask."""
        labels = None if self.labels is None else self.labels[rows]
        return replace(self, data=self.data[rows], labels=labels)

    def batch(self, rows: Tensor, random: SampleRandom) -> Tensor:
        """The samples at `rows` (B,), (B, ...), float32."""
        return self.data[rows]

    def split(self, fraction: float, *, seed: int = 0) -> tuple[Self, Self]:
        """Two disjoint random parts; the second has `fraction` of each class."""
        second = second_part(self.labels, len(self), fraction, seed=seed, name=self.name)
        return self[~second], self[second]


@dataclass(frozen=True, eq=False)
class Images(Tensors):
    """N images of one shape, with a label each or none.

    `data` is (N, C, H, W), float32 from black -1 to white 1, or uint8 0..255, which `batch` brings
    to that range. Raises ValueError for anything else, as `Tensors` does.
    """

    flip: bool = False
    """Whether `batch` mirrors half of the images, at random."""

    def __post_init__(self) -> None:
        if self.data.ndim != 4 or len(self.data) == 0:
            raise ValueError(
                f"{self.name}: images must have shape (N, C, H, W) with N > 0; got {tuple(self.data.shape)}"
            )
        if self.data.dtype not in (torch.float32, torch.uint8):
            raise ValueError(f"{self.name}: images must be float32 or uint8; got {self.data.dtype}")
        if self.data.dtype == torch.float32:
            check_finite(self.name, self.data)
            low, high = self.data.min().item(), self.data.max().item()
            if max(-low, high) > 1.001:
                raise ValueError(
                    f"{self.name}: images must lie in -1..1; got {low:g}..{high:g}: rescale them, or "
                    "pass 0..255 as uint8"
                )
        check_labels(self.name, self.labels, len(self.data), self.num_classes)

    @property
    def shape(self) -> tuple[int, int, int]:
        """Channels, height and width of one image."""
        channels, height, width = self.data.shape[1:]
        return channels, height, width

    def batch(self, rows: Tensor, random: SampleRandom) -> Tensor:
        """The images at `rows` (B,), (B, C, H, W), float32."""
        images = self.data[rows]
        return in_range(mirrored(images, random) if self.flip else images)


def in_range(images: Tensor) -> Tensor:
    """Images as training sees them: bytes 0..255 become float32 -1..1."""
    return images.float().div_(127.5).sub_(1) if images.dtype == torch.uint8 else images


def mirrored(images: Tensor, random: SampleRandom) -> Tensor:
    """The images (B, C, H, W); half of them, at random, are mirrored left to right in place."""
    flips = (random.uniform("flip") < 0.5).nonzero().flatten()
    images[flips] = images[flips].flip(-1)
    return images


def warn_of_range(name: str, images: Tensor) -> None:
    """Warns of floating-point images in 0..1, as black is -1."""
    if not (images.is_floating_point() and images.ndim == 4 and len(images)):
        return
    if (low := images.min()) >= 0 and (high := images.max()) <= 1:
        LOG.warning(
            "%s: images lie in %g..%g, but black is -1: if 0 is black in yours, pass 2 x images - 1",
            *(name, low, high),
        )


def int_labels(name: str, labels: np.ndarray | None) -> tuple[Tensor | None, int]:
    """Labels as int64 and the number of classes; without labels None and 0.

    Raises ValueError unless they are whole numbers (N,), and as `count_classes`."""
    if labels is None:
        return None, 0
    if labels.ndim != 1 or labels.dtype.kind not in "iub" or len(labels) == 0:
        raise ValueError(
            f"{name}: labels must be whole numbers of shape (N,); got {labels.dtype} {labels.shape}"
        )
    return torch.from_numpy(labels.astype(np.int64)), count_classes(name, labels)


def count_classes(where: str, labels: Sequence[int] | np.ndarray) -> int:
    """The number of classes, given at least one label.

    Raises ValueError for negative labels, and for labels that would need too much memory."""
    low, high = int(np.min(labels)), int(np.max(labels))
    if low < 0 or high >= MAX_CLASSES:
        raise ValueError(
            f"{where}: labels must lie in 0..{MAX_CLASSES - 1:,}; got {low}..{high}: number the "
            "classes from 0"
        )
    return high + 1


def check_labels(name: str, labels: Tensor | None, length: int, num_classes: int) -> None:
    """Raises ValueError unless the labels are int64 (length,) in 0..num_classes-1."""
    if labels is None:
        if num_classes:
            raise ValueError(f"{name}: {num_classes} classes need labels; got none")
        return
    if labels.dtype != torch.int64 or labels.shape != (length,):
        raise ValueError(
            f"{name}: labels must be int64 of shape ({length},); "
            f"got {labels.dtype} {tuple(labels.shape)}"
        )
    low, high = int(labels.min()), int(labels.max())
    if low < 0 or high >= num_classes:
        raise ValueError(f"{name}: labels must lie in 0..{num_classes - 1}; got {low}..{high}")


def check_finite(name: str, data: Tensor) -> None:
    """Raises ValueError where a sample holds NaN or infinity."""
    parts = data.split(1024)  # the data may be larger than the memory
    finite = torch.cat([part.isfinite().flatten(1).all(1) for part in parts])
    if not finite.all():
        bad = (~finite).nonzero().flatten().tolist()
        raise ValueError(
            f"{name}: {len(bad)} of {len(finite)} samples hold NaN or infinity, "
            f"the first is number {bad[0]}: remove them"
        )


def reason(error: BaseException) -> str:
    """Why a picture cannot be read, in one line."""
    from PIL import UnidentifiedImageError

    if isinstance(error, UnidentifiedImageError):  # whose text holds an address in memory
        return "it is no picture, or of an unknown format"
    return " ".join(str(error).split()) or type(error).__name__


@dataclass(frozen=True)
class Header:
    """The header of a picture file."""

    width: int
    height: int
    channels: int
    bits: int
    """Bits of a channel."""


def header(file: BinaryIO) -> Header:
    """The header of the picture in `file`; `pictures.BROKEN` are what it raises."""
    from PIL import Image

    with Image.open(file) as picture:
        width, height = picture.size
        # Pillow would decode a whole PNG to look for EXIF at its end.
        noted = picture.format != "PNG" or "exif" in picture.info
        if noted and picture.getexif().get(0x0112, 1) >= 5:  # rotated by a quarter turn
            width, height = height, width
        return Header(width, height, _channels(picture), _bits(picture))


def decode(file: BinaryIO, channels: int, size: int) -> np.ndarray:
    """The picture in `file` as (C, H, W): uint8, or float32 0..255 where it has 16 bits grey.

    It is rotated as its EXIF data say. `channels` is 1, 3 or 4; `size` is the side of the square to
    crop to, or 0. Transparent pixels become white unless there are 4 channels. Pillow reads colours
    of 16 bits as 8. `pictures.BROKEN` are what it raises.
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
    """The square of side `size` in the middle, as ADM crops it (guided-diffusion, arXiv 2105.05233).

    Sides are halved by averaging while the shorter is at least twice `size`. A bicubic filter then
    makes the shorter one `size`, and the longer one is cropped.
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
