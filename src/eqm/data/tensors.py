"""Samples in memory: tensors of any shape, and images."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, ClassVar, Self

import torch
from torch import Tensor

from eqm.data.classes import check_labels
from eqm.data.source import digest, second_part
from eqm.data.values import check_finite
from eqm.randomness import SampleRandom


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
    metadata: Mapping[str, Any] = field(default_factory=dict)
    """What is stored with the weights of a model of these data, such as the values of black and white."""
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
