"""Encoded pictures as a source, decoded by several threads."""

from __future__ import annotations

import logging
import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence, Sized
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field, fields, replace
from functools import cached_property, partial
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from eqm.data.config import DataConfig
from eqm.data.decoding import BROKEN, Header, cut_note, decode, header, reason, value_range
from eqm.data.picture_files import PictureFiles
from eqm.data.source import digest
from eqm.data.tensors import in_range, mirrored
from eqm.files import printable
from eqm.randomness import SampleRandom
from eqm.reading import PerProcess

LOG = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False)
class Pictures:
    """N encoded pictures of `files`, decoded to one shape.

    A picture that cannot be read is replaced by the next one of its class, always the same, so that
    a run can be repeated. A warning names it, and `broken` keeps it.
    """

    files: PictureFiles
    shape: tuple[int, int, int]
    size: int
    """Side of the square to crop to, or 0."""
    rows: Tensor
    """The numbers of the files, (N,)."""
    labels: Tensor | None
    num_classes: int
    class_names: tuple[str, ...]
    flip: bool = False
    on_broken: Literal["skip", "fail"] = "skip"
    workers: int = 1
    """Threads that decode."""
    span: tuple[float, ...] = ()
    """The values of black and white in pictures of more than 8 bits; empty for the file's range."""
    cache_mb: int = 0
    """MiB of decoded pictures to keep, if all of them fit."""
    broken: dict[str, str] = field(default_factory=dict)
    """The files that could not be read so far, and why."""

    @property
    def name(self) -> str:
        """The name of the files."""
        return self.files.name

    @property
    def notes(self) -> tuple[str, ...]:
        """Sentences that say how the files were read."""
        return self.files.notes

    @cached_property
    def fingerprint(self) -> str:
        """Hexadecimal digest of the files' fingerprint, the rows, labels and shape."""
        span = (self.span,) if self.span else ()
        return digest(self.files.fingerprint, self.rows, self.labels, self.shape, self.size, *span)

    def __len__(self) -> int:
        return len(self.rows)

    def __getstate__(self) -> dict[str, Any]:
        """Its fields, without threads and decoded pictures, as another process has its own."""
        return {each.name: getattr(self, each.name) for each in fields(self)}

    def subset(
        self, rows: Tensor, labels: Tensor | None, num_classes: int, class_names: tuple[str, ...]
    ) -> Pictures:
        """The pictures at `rows`, relabelled; only these replace a broken one."""
        names = class_names if labels is not None else ()
        return replace(
            self, rows=self.rows[rows], labels=labels, num_classes=num_classes, class_names=names
        )

    def batch(self, rows: Tensor, random: SampleRandom) -> Tensor:
        """The pictures at `rows` (B,), (B, C, H, W), float32 -1..1."""
        if self._kept is not None and bool(self._ready[rows].all()):
            images = in_range(self._kept[rows])
        else:
            images = torch.empty(len(rows), *self.shape)
            target = images.numpy()

            def fill(place: int, row: int) -> None:
                np.divide(self._pixels(row), 127.5, out=target[place], dtype=np.float32)

            list(self._pool().map(fill, range(len(rows)), rows.tolist()))
            images.sub_(1)
        return mirrored(images, random) if self.flip else images

    def _pixels(self, row: int) -> np.ndarray:
        for candidate in self._candidates(row):
            if self._kept is not None and self._ready[candidate]:
                return self._kept[candidate].numpy()
            index = int(self.rows[candidate])
            name = self.files.names[index]
            if name in self.broken:
                continue
            try:
                with self.files.open(index) as file:
                    pixels = decode(file, self.shape[0], self.size, self.span)
                if pixels.shape != self.shape:
                    raise ValueError(f"it has shape {pixels.shape}, the others {self.shape}")
            except BROKEN as error:
                self._note(name, error)
                continue
            if self._kept is not None and pixels.dtype == np.uint8:
                self._kept[candidate] = torch.from_numpy(pixels.copy())
                self._ready[candidate] = True
            return pixels
        raise ValueError(
            f"{self.name}: neither {self.files.names[int(self.rows[row])]} nor another picture of its "
            "class can be read: run `eqm data check`"
        )

    def _candidates(self, row: int) -> Iterator[int]:
        """The row, then the later rows of its class, then the earlier ones."""
        yield row
        if self.labels is None:
            alike = torch.arange(len(self))
        else:
            alike = (self.labels == self.labels[row]).nonzero().flatten()
        at = int(torch.searchsorted(alike, row))
        yield from torch.cat([alike[at + 1 :], alike[:at]]).tolist()

    def _note(self, name: str, error: BaseException) -> None:
        why = reason(error)
        if self.on_broken == "fail":
            raise ValueError(
                f"{self.name}: cannot read {name} ({why}): replace or remove it, or set data.broken "
                "skip"
            ) from error
        if name not in self.broken:
            self.broken[name] = why
            LOG.warning(
                "%s: cannot read %s (%s); another picture replaces it; %d broken so far",
                *(self.name, name, why, len(self.broken)),
            )

    @cached_property
    def _pool(self) -> PerProcess[ThreadPoolExecutor]:
        make = partial(ThreadPoolExecutor, self.workers, thread_name_prefix="decode")
        return PerProcess(make)

    @cached_property
    def _kept(self) -> Tensor | None:
        """Memory for all pictures as bytes, or None where they do not fit."""
        shape = (len(self), *self.shape)
        fits = math.prod(shape) <= self.cache_mb << 20
        return torch.empty(shape, dtype=torch.uint8) if fits else None

    @cached_property
    def _ready(self) -> Tensor:
        return torch.zeros(len(self), dtype=torch.bool)


def look(
    files: PictureFiles,
    config: DataConfig,
    rows: Sequence[int] | None = None,
    *,
    decoded: bool = False,
) -> tuple[dict[int, Header], dict[int, str]]:
    """The headers of pictures, by number, and why others cannot be read or, if asked, decoded.

    `rows` are the numbers of the pictures to look at, by default all."""

    def head(row: int) -> Header | str:
        try:
            with files.open(row) as file:
                found = header(file, config.range)
            if decoded:
                with files.open(row) as file:
                    decode(file, found.channels, 8, config.range)
        except BROKEN as error:
            return reason(error)
        return found

    good: dict[int, Header] = {}
    broken: dict[int, str] = {}
    rows = range(len(files.names)) if rows is None else rows
    block = 4096  # millions of waiting tasks would fill the memory
    with ThreadPoolExecutor(config.threads) as pool:
        for first in range(0, len(rows), block):
            some = rows[first : first + block]
            for row, found in zip(some, pool.map(head, some), strict=True):
                if isinstance(found, str):
                    broken[row] = found
                else:
                    good[row] = found
    return good, broken


def unreadable(name: str, broken: Mapping[str, str], count: int) -> ValueError:
    """The error for the `broken` ones of `count` pictures, with the reason for each."""
    first, why = next(iter(broken.items()))
    return ValueError(
        f"{name}: {len(broken)} of {count} pictures cannot be read, the first is {printable(first)} ({why}): replace "
        "or remove them"
    )


def remarks(
    files: PictureFiles, found: Mapping[int, Header], span: Sequence[float] = (), size: int = 0
) -> Iterator[str]:
    """Sentences that say how pictures with these headers, by their numbers, are read.

    `size` is the side of the square to crop to, or 0.
    Where grey pictures have more than 8 bits, the values of at most `LOOKED_AT` are read."""
    several = [row for row, head in found.items() if head.several]
    if several:
        yield (
            f"{_count(several, found)} {'hold' if len(several) > 1 else 'holds'} several pages or frames, "
            f"such as {files.names[several[0]]}: the first is used"
        )
    sizes = {files.names[row]: (head.width, head.height) for row, head in found.items()}
    some = (
        "" if len(found) == len(files.names) else f"; {_count(found, files.names)} were looked at"
    )
    yield from (f"{sentence}{some}" for sentence in cut_note(files.name, sizes, size))
    deep = [row for row, head in found.items() if head.deep]
    extremes = []
    for row in spread(deep):
        with suppress(*BROKEN), files.open(row) as file:
            extremes.append(value_range(file))
    if not extremes:
        return
    low, high = min(low for low, _ in extremes), max(high for _, high in extremes)
    seen = (
        f"the values of {_count(extremes, deep)} of more than 8 bits reach from {low:g} to {high:g}"
    )
    if span:
        if low < min(span) or high > max(span):
            yield f"{seen}: those outside data.range {span[0]:g} {span[1]:g} are clipped"
    elif 255 < high < 2**15:
        white = 2 ** int(high).bit_length() - 1
        yield f"{seen} of 65535: if {white} is white in them, set data.range 0 {white}"


LOOKED_AT = 64
"""Pictures whose headers and values are read for notes."""


def spread(rows: Sequence[int]) -> list[int]:
    """At most `LOOKED_AT` of the rows, evenly spread."""
    count = min(len(rows), LOOKED_AT)
    return [rows[k * len(rows) // count] for k in range(count)]


def _count(some: Sized, of: Sized) -> str:
    return f"{len(some):,} of {len(of):,} pictures"


def pictures(files: PictureFiles, config: DataConfig) -> Pictures:
    """The files as a source, of the size and channels that `config` sets or that all files have.

    If both are set, a few headers are read now; else every header is. Raises
    ValueError when no file can be read, or sizes or channels differ.
    """
    channels, size = config.channels, max(config.size, 0)
    height = width = size
    everything = range(len(files.names))
    some = bool(channels and size)
    known, unread = look(files, config, spread(everything) if some else everything)
    broken = {files.names[row]: why for row, why in unread.items()}
    found = [(files.names[row], head) for row, head in known.items()]
    if broken and (not found or (config.broken == "fail" and not some)):
        raise unreadable(files.name, broken, len(known) + len(unread))
    if some:
        broken = {}  # they are found when they are needed
    elif broken:
        LOG.warning(
            "%s: cannot read %d of %d pictures: %s",
            *(files.name, len(broken), len(files.names), ", ".join(map(printable, broken))),
        )
    channels = channels or _agreed_channels(files.name, found)
    if not size:
        height, width = _agreed_size(files.name, found)
    said = remarks(files, known, config.range, size)
    return Pictures(
        replace(files, notes=(*files.notes, *said)),
        (channels, height, width),
        size,
        torch.arange(len(files.names)),
        files.labels,
        len(files.class_names),
        files.class_names,
        flip=config.flip,
        on_broken=config.broken,
        workers=config.threads,
        span=config.range,
        cache_mb=config.cache_mb,
        broken=broken,
    )


def _agreed_channels(name: str, found: list[tuple[str, Header]]) -> int:
    examples = {head.channels: file for file, head in reversed(found)}
    if len(examples) > 1:
        mixed = ", ".join(f"{count} ({file})" for count, file in sorted(examples.items()))
        raise ValueError(
            f"{name}: pictures differ in their number of channels: {mixed}: "
            "set data.channels, 1 for grey or 3 for colour"
        )
    return next(iter(examples))


def _agreed_size(name: str, found: list[tuple[str, Header]]) -> tuple[int, int]:
    counts = Counter((head.width, head.height) for _, head in found)
    if len(counts) > 1:
        examples = {(head.width, head.height): file for file, head in reversed(found)}
        (small, first), *_, (large, last) = sorted(
            examples.items(), key=lambda item: (min(item[0]), item)
        )
        raise ValueError(
            f"{name}: pictures have {len(counts)} sizes, from {small[0]}x{small[1]} ({first}) to "
            f"{large[0]}x{large[1]} ({last}): set data.size, the side of the square to crop them to"
        )
    ((width, height),) = counts
    return height, width
