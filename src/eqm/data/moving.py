"""`moving-digits`: videos of digits that move at constant speed and bounce, made while they are read."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import ClassVar

import torch
from torch import Tensor
from torch.nn.functional import affine_grid, grid_sample, interpolate, pad

from eqm.data.config import DataConfig
from eqm.data.source import MissingDataError, Source, digest
from eqm.data.tensors import Images
from eqm.randomness import SampleRandom
from eqm.registry import lookup, register

FRAMES, SIDE = 16, 32
DIGIT = 20
"""The side of a digit of 28 pixels, its empty border included."""
REACH = 7.0
"""A digit's centre moves within so many pixels of the centre of the frame, along both axes."""
SPEEDS = (1.0, 2.5)
"""Pixels per frame, least and most."""


@dataclass(frozen=True, eq=False)
class MovingDigits:
    """N videos (1, 16, 32, 32), each of one of N digits, from black -1 to white 1.

    Each time a video is read, its digit starts at a random place, in a random direction and at a random speed.
    It moves straight on, and bounces off the edges. `digits` are images (N, 1, 28, 28) in -1..1.
    """

    digits: Images
    name: str = "moving-digits"
    shape: ClassVar[tuple[int, ...]] = (1, FRAMES, SIDE, SIDE)
    in_memory: ClassVar[bool] = True

    @property
    def labels(self) -> Tensor | None:
        """The digits, (N,)."""
        return self.digits.labels

    @property
    def num_classes(self) -> int:
        """10."""
        return self.digits.num_classes

    @cached_property
    def fingerprint(self) -> str:
        """Hexadecimal digest of the digits and of how they move."""
        return digest(self.digits.fingerprint, self.shape, DIGIT, REACH, SPEEDS)

    @cached_property
    def _small(self) -> Tensor:
        images = self.digits.batch(
            torch.arange(len(self)), SampleRandom(0, torch.arange(len(self)))
        )
        small = interpolate(images, (DIGIT, DIGIT), mode="bilinear", antialias=True)
        edge = (SIDE - DIGIT) // 2
        return pad(small + 1, [edge] * 4)  # (N, 1, 32, 32), black is 0

    def __len__(self) -> int:
        return len(self.digits)

    def batch(self, rows: Tensor, random: SampleRandom) -> Tensor:
        """The videos at `rows` (B,), (B, 1, 16, 32, 32), float32."""
        places = paths(random).flatten(0, 1)  # (B * 16, 2)
        frames = self._small[rows].repeat_interleave(FRAMES, 0)
        turn = torch.eye(2).expand(len(places), 2, 2)
        # affine_grid counts from -1 to 1 over the frame, and says where a pixel comes from.
        grid = affine_grid(
            torch.cat([turn, -places[:, :, None] * (2 / SIDE)], 2),
            list(frames.shape),
            align_corners=False,
        )
        moved = grid_sample(frames, grid, align_corners=False) - 1
        return moved.unflatten(0, (len(rows), FRAMES)).transpose(1, 2)


def paths(random: SampleRandom) -> Tensor:
    """Where the digits are, in pixels right of and below the centre of the frame, (B, 16, 2)."""
    start = (2 * random.uniform("start", (2,)) - 1) * REACH
    angle = 2 * torch.pi * random.uniform("direction")
    low, high = SPEEDS
    speed = low + (high - low) * random.uniform("speed")
    step = speed[:, None] * torch.stack([angle.cos(), angle.sin()], 1)  # (B, 2)
    straight = start[:, None] + torch.arange(FRAMES)[:, None] * step[:, None]
    return REACH - ((straight + REACH) % (4 * REACH) - 2 * REACH).abs()


@register("source", "moving-digits")
def moving_digits(config: DataConfig) -> Source:
    """The videos of the 5,000 digits of mnist-5k, with ten classes."""
    for name in ("size", "channels", "length", "layout", "range", "standardise", "flip"):
        if getattr(config, name):
            raise ValueError(f"moving-digits is made as it is: leave data.{name} out")
    try:
        digits = lookup("source", "mnist-5k")(config)
    except MissingDataError as error:
        raise MissingDataError(str(error).replace("mnist-5k", "moving-digits")) from error
    return MovingDigits(digits)
