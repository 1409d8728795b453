"""Photographs of parts, each at its own size, and as a model takes them."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Literal, overload

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from eqm.data.decoding import BROKEN, reason
from eqm.files import printable
from eqm.memory import check_memory

LOG = logging.getLogger(__name__)
LISTED = 20
"""Unreadable photographs that are named in warnings."""
BATCH = 32
"""Photographs that are given to a model at once."""


@dataclass(frozen=True)
class Frame:
    """What a model takes: channels, 1 or 3, height and width."""

    channels: int
    height: int
    width: int

    def of(self, photograph: np.ndarray) -> np.ndarray:
        """The whole photograph (C, H, W), 0..255, stretched to the frame, as bytes (channels, height, width)."""
        planes = [
            _resized(plane, self.width, self.height)
            for plane in converted(photograph, self.channels)
        ]
        return np.stack(planes)


@dataclass(frozen=True, eq=False)
class Photographs:
    """N photographs by name, decoded when they are asked for."""

    names: Sequence[str]
    decoders: Sequence[Callable[[], np.ndarray]]
    """Each returns its photograph (C, H, W), 0..255, upright; it raises BROKEN where it cannot be read."""
    headers: Mapping[int, tuple[int, int, int]]
    """Channels, 1 or 3, height and width, by number; of those that can be read, as far as their headers say."""
    threads: int = 1
    unreadable: dict[int, str] = field(default_factory=dict)
    """Why those that were tried cannot be read, by number."""
    broken: Literal["skip", "fail"] = "skip"
    """What happens where one cannot be read: it is left out with a warning, or ValueError is raised."""

    _warned: list[int] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.names)

    @property
    def shapes(self) -> list[tuple[int, int, int]]:
        """Channels, height and width of those that can be read."""
        return list(self.headers.values())

    def read(
        self, numbers: Sequence[int], frame: Frame
    ) -> Iterator[tuple[int, np.ndarray, np.ndarray]]:
        """The photographs of these numbers: the number, the photograph at its own size, and in the frame.

        Those that cannot be read are left out, and kept in `unreadable`. Raises ValueError if they are all, or as
        `broken` says."""
        readable = [number for number in numbers if number not in self.unreadable]
        self._warn([number for number in numbers if number in self.unreadable])

        def one(number: int) -> tuple[int, np.ndarray, np.ndarray] | None:
            try:
                photograph = self.decoders[number]()
                return number, photograph, frame.of(photograph)
            except BROKEN as error:
                self.unreadable[number] = reason(error)
                return None

        with ThreadPoolExecutor(self.threads) as pool:
            for start in range(0, len(readable), BATCH):  # so that few wait in memory
                some = readable[start : start + BATCH]
                found = list(pool.map(one, some))
                self._warn([number for number in some if number in self.unreadable])
                yield from filter(None, found)
        if all(number in self.unreadable for number in numbers):
            count = f"none of the {len(numbers):,} photographs can be read"
            raise ValueError(f"{count}, such as {self._why(numbers[0])}: replace or remove them")

    def _warn(self, numbers: Sequence[int]) -> None:
        for number in numbers:
            if self.broken == "fail":
                raise ValueError(
                    f"cannot read the picture {self._why(number)}: replace or remove it"
                )
            self._warned.append(number)
            if len(self._warned) <= LISTED:
                LOG.warning("cannot read the picture %s: it is left out", self._why(number))

    def _why(self, number: int) -> str:
        return f"{printable(self.names[number])} ({self.unreadable[number]})"


@dataclass(frozen=True, eq=False)
class Batches(Sequence[Tensor]):
    """Photographs in one frame, as batches (B, C, H, W) in -1..1."""

    pixels: Tensor
    """(N, C, H, W) uint8."""

    def __len__(self) -> int:
        return -(-len(self.pixels) // BATCH)

    @overload
    def __getitem__(self, index: int) -> Tensor: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[Tensor]: ...
    def __getitem__(self, index: int | slice) -> Tensor | Sequence[Tensor]:
        if isinstance(index, slice):
            return [self[k] for k in range(*index.indices(len(self)))]
        if not -len(self) <= index < len(self):
            raise IndexError(index)
        start = index % len(self) * BATCH
        return as_input(self.pixels[start : start + BATCH])


@dataclass(frozen=True, eq=False)
class Parts:
    """Photographs that could be read, each different from the others, in one frame."""

    batches: Batches
    numbers: list[int]
    """Their numbers among all photographs."""
    copies: dict[int, int]
    """Photographs that are copies of an earlier one, and the number of that one."""


def parts_of(photographs: Photographs, frame: Frame) -> Parts:
    """All photographs in one frame, each once. Raises ValueError if they do not fit into memory as numbers."""
    shape = (frame.channels, frame.height, frame.width)
    size = len(photographs) * int(np.prod(shape))
    check_memory(f"{len(photographs):,} photographs", 6 * size, "give fewer, or a smaller --size")
    kept, numbers = [], []
    seen: dict[bytes, int] = {}
    copies: dict[int, int] = {}
    for number, photograph, pixels in photographs.read(range(len(photographs)), frame):
        digest = hashlib.blake2b(np.ascontiguousarray(photograph).tobytes(), digest_size=16)
        digest.update(str(photograph.shape).encode())
        first = seen.setdefault(digest.digest(), number)
        if first != number:
            copies[number] = first
            continue
        kept.append(torch.from_numpy(pixels))
        numbers.append(number)
    whole = torch.stack(kept) if kept else torch.empty(0, *shape, dtype=torch.uint8)
    return Parts(Batches(whole), numbers, copies)


def as_input(pixels: Tensor) -> Tensor:
    """Bytes 0..255 as numbers in -1..1."""
    return pixels.float() / 127.5 - 1


def converted(photograph: np.ndarray, channels: int) -> np.ndarray:
    """A photograph (C, H, W) of 1 or 3 channels with `channels`, 1 or 3."""
    if len(photograph) == channels:
        return photograph
    if channels == 3:
        return np.repeat(photograph, 3, 0)
    weights = np.array([0.299, 0.587, 0.114], np.float32)  # of ITU-R BT.601, as Pillow's
    return np.tensordot(weights, photograph.astype(np.float32), 1)[None]


def _resized(plane: np.ndarray, width: int, height: int) -> np.ndarray:
    """A plane (H, W) at that size, by averaging where it shrinks, as bytes."""
    if plane.shape != (height, width):
        picture = Image.fromarray(np.ascontiguousarray(plane))
        plane = np.asarray(picture.resize((width, height), Image.Resampling.BILINEAR))
    return plane.astype(np.float32).round().clip(0, 255).astype(np.uint8)
