"""What a data set holds, found by looking at all of it."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field, replace

import torch

from eqm.data.config import DataConfig
from eqm.data.decoding import Header, decode, header, reason
from eqm.data.latents import check_latents, is_latents
from eqm.data.open_source import files_at, open_source, opens_arrays
from eqm.data.pictures import DAMAGED, looks, threads
from eqm.data.subset import class_names


@dataclass(frozen=True)
class Report:
    """What is in a data set."""

    name: str
    images: int
    """How many can be read."""
    sizes: Counter[tuple[int, ...]]
    """How many there are of each width and height, or of each length of points."""
    channels: Counter[int]
    bits: Counter[int]
    """Of a channel."""
    classes: dict[str, int]
    """Pictures that can be read in each class; empty without classes."""
    fingerprint: str
    broken: dict[str, str] = field(default_factory=dict)
    """Why each file that cannot be read cannot."""
    others: tuple[str, ...] = ()
    """Files that are no pictures."""

    @property
    def faults(self) -> list[str]:
        """Why nothing can be trained on it, whatever the settings; a sentence each."""
        if not self.images:
            return ["not one picture can be read"]
        empty = [name for name, count in self.classes.items() if not count]
        return [f"these classes have no readable pictures: {', '.join(empty)}"] if empty else []

    @property
    def advice(self) -> list[str]:
        """The settings that it needs; a sentence each."""
        said = []
        if len(self.sizes) > 1:
            said.append("sizes differ: set data.size, the side of the square to crop to")
        if len(self.channels) > 1:
            said.append("channels differ: set data.channels, 1 for grey or 3 for colour")
        if self.broken:
            said.append(
                "broken files are skipped and counted in training; data.broken fail ends it instead"
            )
        return said


def check(path: str, *, workers: int = 0) -> Report:
    """What is at `path`, which may be anything that `DataConfig.path` may: every picture is decoded.

    Raises ValueError when it cannot be opened at all.
    """
    config = replace(DataConfig(), path=path, workers=workers)
    if opens_arrays(config):
        return _of_source(config)
    files = files_at(path)

    def look(index: int) -> Header | str:
        try:
            with files.open(index) as file:
                found = header(file)
            with files.open(index) as file:
                decode(file, 3, 0)
        except DAMAGED as error:
            return reason(error)
        return found

    sizes: Counter[tuple[int, ...]] = Counter()
    channels: Counter[int] = Counter()
    bits: Counter[int] = Counter()
    classes = dict.fromkeys(files.class_names, 0)
    numbers = [] if files.labels is None else files.labels.tolist()
    broken = {}
    for index, found in enumerate(looks(look, len(files.names), threads(config))):
        if isinstance(found, str):
            broken[files.names[index]] = found
            continue
        sizes[found.width, found.height] += 1
        channels[found.channels] += 1
        bits[found.bits] += 1
        if numbers:
            classes[files.class_names[numbers[index]]] += 1
    return Report(
        files.name,
        sizes.total(),
        *(sizes, channels, bits, classes, files.fingerprint, broken, files.others),
    )


def _of_source(config: DataConfig) -> Report:
    if is_latents(config.path):
        check_latents(config.path)
    source = open_source(config)
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
    )
