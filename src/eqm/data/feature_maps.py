"""Feature maps of pictures as training data: computed once, kept in memory in 16 bits."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from eqm.data.source import Source, class_names, digest
from eqm.encoders import FeatureMaps, about_encoder, open_maps
from eqm.randomness import SampleRandom

BATCH = 64
"""Pictures that are read at once."""


@dataclass(frozen=True, eq=False)
class Maps:
    """The whitened maps of N pictures, with the labels of the pictures."""

    source: Source
    encoder: FeatureMaps
    raw: Tensor
    """The maps before whitening, (N, K, h, w) in float16."""
    in_memory: ClassVar[bool] = True

    @property
    def name(self) -> str:
        return self.source.name

    @property
    def shape(self) -> tuple[int, ...]:
        return tuple(self.raw.shape[1:])

    @property
    def labels(self) -> Tensor | None:
        return self.source.labels

    @property
    def num_classes(self) -> int:
        return self.source.num_classes

    @property
    def class_names(self) -> tuple[str, ...]:
        return class_names(self.source)

    @property
    def fingerprint(self) -> str:
        return digest(self.source.fingerprint, self.encoder.fingerprint)

    @property
    def metadata(self) -> dict[str, Any]:
        return {**getattr(self.source, "metadata", {}), "encoder": about_encoder(self.encoder)}

    @property
    def notes(self) -> tuple[str, ...]:
        height, width = self.source.shape[1:]
        side = self.encoder.side
        said = (
            f"learning the maps of {self.encoder.name}: pictures of {width}x{height} are resized to "
            f"{side}x{side}, not mirrored"
        )
        return (*getattr(self.source, "notes", ()), said)

    def __len__(self) -> int:
        return len(self.raw)

    def batch(self, rows: Tensor, random: SampleRandom) -> Tensor:
        """The maps at `rows` (B,), (B, K, h, w)."""
        return self.encoder.white(self.raw[rows].float())


def feature_maps(source: Source, features: str) -> Maps:
    """The maps of `features` of all pictures of `source`, whitened by channel.

    Raises ValueError for what are no pictures, and features that are not installed."""
    if len(source.shape) != 3 or source.shape[0] not in (1, 3):
        raise ValueError(
            f"data.features takes grey or RGB pictures; {source.name} has samples of {source.shape}"
        )
    encoder = open_maps(features)
    found = []
    for rows in torch.arange(len(source)).split(BATCH):
        found.append(encoder.raw(source.batch(rows, SampleRandom(0, rows))).half())
    raw = torch.cat(found)
    return Maps(source, encoder.whitened(part.float() for part in raw.split(BATCH)), raw)
