"""What a data set holds, after every picture was read."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from math import ceil

import torch

from eqm.data import sounds
from eqm.data.config import DataConfig
from eqm.data.latents import check_latents, is_latents
from eqm.data.open_source import files_at, opened, opens_arrays
from eqm.data.picture_files import PictureFiles
from eqm.data.pictures import look, remarks
from eqm.data.sounds import is_sound
from eqm.data.source import class_names, notes_of


@dataclass(frozen=True)
class Report:
    """The contents of a data set."""

    name: str
    images: int
    """Number of images that can be read."""
    sizes: Counter[tuple[int, ...]]
    """Images of each width and height, or points of each length."""
    channels: Counter[int]
    """Images of each number of channels."""
    bits: Counter[int]
    """Images of each number of bits a channel."""
    classes: dict[str, int]
    """Readable images of each class; empty without classes."""
    fingerprint: str
    broken: dict[str, str] = field(default_factory=dict)
    """The files that cannot be read, and why."""
    others: tuple[str, ...] = ()
    """Files that are no pictures."""
    notes: tuple[str, ...] = ()
    """Sentences that say how the data were read."""

    @property
    def faults(self) -> list[str]:
        """Sentences that say why no training is possible on these data."""
        if not self.images:
            return ["no picture can be read"]
        empty = [name for name, count in self.classes.items() if not count]
        return [f"these classes have no readable pictures: {', '.join(empty)}"] if empty else []

    @property
    def advice(self) -> list[str]:
        """Sentences that say which settings these data need."""
        said = []
        if len(self.sizes) > 1 and all(len(sides) == 1 for sides in self.sizes):
            said.append("lengths differ: set data.length, the samples of each sound")
        elif len(self.sizes) > 1:
            said.append("sizes differ: set data.size, the side of the square to crop to")
        shares = [1 - min(sides) / max(sides) for sides in self.sizes if len(sides) == 2]
        if any(shares):
            said.append(
                f"the crop to a square, if data.size is set, crops away up to {ceil(100 * max(shares))} % of "
                "a picture"
            )
        if len(self.channels) > 1:
            said.append("channels differ: set data.channels, 1 for grey or 3 for colour")
        if self.broken:
            said.append(
                "training skips broken files and counts them; set data.broken fail to end it instead"
            )
        return said


def check(data: DataConfig | str) -> Report:
    """The contents of the data set at a path, or that a config describes; every picture is decoded.

    Raises ValueError when it cannot be opened.
    """
    config = DataConfig(data) if isinstance(data, str) else data
    if opens_arrays(config):
        return _of_source(config)
    files = files_at(config)
    if is_sound(files.names[0]):
        return _of_sounds(files)
    found, broken = look(files, config, decoded=True)
    counts: list[int] = []
    if files.labels is not None:
        good = files.labels[list(found)]
        counts = torch.bincount(good, minlength=len(files.class_names)).tolist()
    return Report(
        files.name,
        len(found),
        Counter((header.width, header.height) for header in found.values()),
        Counter(header.channels for header in found.values()),
        Counter(header.bits for header in found.values()),
        dict(zip(files.class_names, counts, strict=True)),
        files.fingerprint,
        {files.names[row]: why for row, why in broken.items()},
        files.others,
        (*files.notes, *remarks(files, found, config.range)),
    )


def _of_sounds(files: PictureFiles) -> Report:
    found, broken = sounds.look(files)
    counts: list[int] = []
    if files.labels is not None:
        counts = torch.bincount(
            files.labels[list(found)], minlength=len(files.class_names)
        ).tolist()
    rates = Counter(rate for rate, _, _ in found.values())
    heard = ", ".join(f"{rate} Hz ({count:,})" for rate, count in rates.most_common(8))
    return Report(
        files.name,
        len(found),
        Counter((length,) for _, _, length in found.values()),
        Counter(channels for _, channels, _ in found.values()),
        Counter(),
        dict(zip(files.class_names, counts, strict=True)),
        files.fingerprint,
        {files.names[row]: why for row, why in broken.items()},
        files.others,
        (*files.notes, f"{files.name}: sounds of {heard or 'no rate'}"),
    )


def _of_source(config: DataConfig) -> Report:
    if is_latents(config.path):
        check_latents(config.path)
    source = opened(config)
    data = getattr(source, "data", None)
    count = len(source)
    channels, *sides = source.shape
    counts = [] if source.labels is None else torch.bincount(source.labels).tolist()
    bits = data.dtype.itemsize * 8 if isinstance(data, torch.Tensor) else 8
    return Report(
        source.name,
        count,
        Counter({tuple(reversed(sides)): count}),
        Counter({channels: count}),
        Counter({bits: count}),
        dict(zip(class_names(source), counts, strict=True)),
        source.fingerprint,
        notes=notes_of(source),
    )
