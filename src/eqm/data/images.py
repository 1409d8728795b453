"""Labelled images in memory."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from eqm.data.subset import chosen, digest
from eqm.randomness import SampleRandom

MOST = 1_000_000
"""Classes that labels may number: what is above is an id, or a -1 that lost its sign."""


@dataclass(frozen=True, eq=False)
class Images:
    """N images of one shape, with a label each or none.

    `data` is (N, C, H, W), float32 from black -1 to white 1, or uint8 0..255, which `batch` brings
    to that range; `labels` (N,) int64 in 0..num_classes-1, or None, when `num_classes` is 0. Raises
    ValueError when that does not hold, or a value is not finite.
    """

    name: str
    data: Tensor
    labels: Tensor | None = None
    num_classes: int = 0
    flip: bool = False
    """Whether `batch` mirrors half of the images, at random."""
    class_names: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.data.ndim != 4 or len(self.data) == 0:
            raise ValueError(
                f"{self.name}: images must have shape (N, C, H, W) with N > 0; got {tuple(self.data.shape)}"
            )
        if self.data.dtype not in (torch.float32, torch.uint8):
            raise ValueError(f"{self.name}: images must be float32 or uint8; got {self.data.dtype}")
        if self.data.dtype == torch.float32:
            _check_range(self.name, self.data)
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
    def shape(self) -> tuple[int, int, int]:
        """Channels, height and width of one image."""
        channels, height, width = self.data.shape[1:]
        return channels, height, width

    @property
    def in_memory(self) -> bool:
        """True: a batch is at hand."""
        return True

    @cached_property
    def fingerprint(self) -> str:
        """Hexadecimal digest of images and labels: the same data give the same fingerprint."""
        return digest(self.data, self.labels)

    def __getitem__(self, rows: Tensor) -> Images:
        """The images at `rows`, indices or a mask."""
        labels = None if self.labels is None else self.labels[rows]
        return replace(self, data=self.data[rows], labels=labels)

    def batch(self, rows: Tensor, draws: SampleRandom) -> Tensor:
        """The images at `rows` (B,), (B, C, H, W), float32."""
        images = self.data[rows]
        return in_range(mirrored(images, draws) if self.flip else images)

    def split(self, share: float, *, seed: int = 0) -> tuple[Images, Images]:
        """Two disjoint parts at random, the second with `share` of each class.

        Without labels, all images are one class."""
        second = chosen(self.labels, len(self), share, seed=seed, name=self.name)
        return self[~second], self[second]


def in_range(images: Tensor) -> Tensor:
    """Images as training sees them: bytes 0..255 become float32 -1..1."""
    return images.float().div_(127.5).sub_(1) if images.dtype == torch.uint8 else images


def mirrored(images: Tensor, draws: SampleRandom) -> Tensor:
    """The images (B, C, H, W), half of them mirrored left to right, in place, as `draws` decide."""
    flips = (draws.uniform("flip") < 0.5).nonzero().flatten()
    images[flips] = images[flips].flip(-1)
    return images


def count_classes(where: str, labels: Sequence[int] | np.ndarray) -> int:
    """How many classes there are where `labels`, of which there are some, are their numbers.

    Raises ValueError for negative ones, and for more than MOST, which would fill the memory."""
    low, high = int(np.min(labels)), int(np.max(labels))
    if low < 0 or high >= MOST:
        raise ValueError(
            f"{where}: labels must lie in 0..{MOST - 1:,}; got {low}..{high}: number the classes anew"
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


def _check_range(name: str, data: Tensor) -> None:
    parts = data.split(1024)  # of what may be larger than the memory
    finite = torch.cat([part.isfinite().flatten(1).all(1) for part in parts])
    if not finite.all():
        bad = (~finite).nonzero().flatten().tolist()
        raise ValueError(
            f"{name}: {len(bad)} of {len(finite)} images hold NaN or infinity, "
            f"the first is number {bad[0]}: remove them"
        )
    low, high = data.min().item(), data.max().item()
    if max(-low, high) > 1.001:
        raise ValueError(
            f"{name}: images must lie in -1..1; got {low:g}..{high:g}: rescale them, 0..255 as uint8"
        )
