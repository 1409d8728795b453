"""Points in the plane, for networks that can be looked at whole."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Generator, Tensor

from eqm.data.images import check_labels
from eqm.data.subset import digest
from eqm.randomness import SampleRandom


@dataclass(frozen=True, eq=False)
class Points:
    """N points (N, D), float32, with a label each or none.

    Raises ValueError when that does not hold, or a coordinate is not finite.
    """

    name: str
    data: Tensor
    labels: Tensor | None = None
    num_classes: int = 0

    def __post_init__(self) -> None:
        if self.data.ndim != 2 or len(self.data) == 0 or self.data.dtype != torch.float32:
            raise ValueError(
                f"{self.name}: points must be float32 of shape (N, D) with N > 0; "
                f"got {self.data.dtype} {tuple(self.data.shape)}"
            )
        if not self.data.isfinite().all():
            raise ValueError(f"{self.name}: some points are NaN or infinite: remove them")
        check_labels(self.name, self.labels, len(self.data), self.num_classes)

    def __len__(self) -> int:
        return len(self.data)

    @property
    def shape(self) -> tuple[int, ...]:
        """(D,)"""
        return tuple(self.data.shape[1:])

    @property
    def in_memory(self) -> bool:
        """True: a batch is at hand."""
        return True

    @cached_property
    def fingerprint(self) -> str:
        """Hexadecimal digest of points and labels."""
        return digest(self.data, self.labels)

    def batch(self, rows: Tensor, draws: SampleRandom) -> Tensor:
        """The points at `rows` (B,), (B, D)."""
        return self.data[rows]


def points(kind: str, count: int = 10_000) -> Points:
    """The point cloud of that name, always the same `count` points, about one unit wide.

    `moons`, `circles` and `spirals` have two classes, `ring` is eight Gaussians, one a class, and
    `checkerboard` has none. Raises ValueError for another name.

    >>> points("moons").shape, points("ring").num_classes
    ((2,), 8)
    """
    if kind not in CLOUDS:
        raise ValueError(f"points must be one of {', '.join(CLOUDS)}; got {kind!r}")
    classes, cloud = CLOUDS[kind]
    generator = Generator().manual_seed(0)
    labels = torch.arange(count) % max(classes, 1)
    data = cloud(labels, generator)
    return Points(f"points:{kind}", data, labels if classes else None, classes)


def _turned(radius: Tensor, angle: Tensor) -> Tensor:
    return torch.stack([radius * angle.cos(), radius * angle.sin()], dim=1)


def _jitter(labels: Tensor, generator: Generator, width: float) -> Tensor:
    return width * torch.randn(len(labels), 2, generator=generator)


def _moons(labels: Tensor, generator: Generator) -> Tensor:
    half = _turned(torch.ones(len(labels)), math.pi * torch.rand(len(labels), generator=generator))
    second = torch.tensor([1.0, 0.5]) - half  # the same arc, turned by half a turn
    arcs = torch.where(labels[:, None] == 0, half, second) - torch.tensor([0.5, 0.25])
    return arcs + _jitter(labels, generator, 0.05)


def _circles(labels: Tensor, generator: Generator) -> Tensor:
    angle = 2 * math.pi * torch.rand(len(labels), generator=generator)
    return _turned(1.2 - 0.6 * labels, angle) + _jitter(labels, generator, 0.05)


def _spirals(labels: Tensor, generator: Generator) -> Tensor:
    way = torch.rand(len(labels), generator=generator).sqrt()
    angle = 3 * math.pi * way + math.pi * labels
    return _turned(1.5 * way, angle) + _jitter(labels, generator, 0.03)


def _ring(labels: Tensor, generator: Generator) -> Tensor:
    angle = labels * (2 * math.pi / 8)
    return _turned(torch.full_like(angle, 1.5), angle) + _jitter(labels, generator, 0.1)


def _checkerboard(labels: Tensor, generator: Generator) -> Tensor:
    across = torch.rand(len(labels), generator=generator) * 4
    row = torch.randint(2, (len(labels),), generator=generator) * 2 + across.floor() % 2
    up = row + torch.rand(len(labels), generator=generator)
    return torch.stack([across, up], dim=1) - 2


CLOUDS: dict[str, tuple[int, Callable[[Tensor, Generator], Tensor]]] = {
    "moons": (2, _moons),
    "circles": (2, _circles),
    "spirals": (2, _spirals),
    "ring": (8, _ring),
    "checkerboard": (0, _checkerboard),
}
"""Number of classes and maker of each cloud, by name."""
