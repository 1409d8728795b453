"""What stands between pixels and a field."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor


class Encoder(Protocol):
    """From images (B, C, H, W) in -1..1 to latents as a field learns them, and back.

    Latents are `(z - shift) * scale`, z being what the network itself makes: about one in size.
    """

    @property
    def name(self) -> str:
        """What `open_encoder` finds it by."""

    @property
    def fingerprint(self) -> str:
        """Hexadecimal digest: the same network gives the same, wherever it is kept."""

    @property
    def scale(self) -> float:
        """What latents are multiplied by."""

    @property
    def shift(self) -> float:
        """What is subtracted from them before."""

    def shape_of(self, image: Sequence[int]) -> tuple[int, ...]:
        """The shape of the latent of an image of shape (C, H, W).

        Raises ValueError for images that it cannot encode.
        """

    def image_shape_of(self, latent: Sequence[int]) -> tuple[int, ...]:
        """The shape of the image that a latent of this shape is decoded to.

        Raises ValueError for latents that it cannot decode.
        """

    def encode(self, pixels: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and standard deviation of the latents of `pixels`, their normal posterior."""

    def decode(self, latents: Tensor) -> Tensor:
        """The images of `latents`."""


@dataclass(frozen=True)
class Pixels:
    """The encoder of a field that learns the pixels themselves: it changes nothing.

    >>> mean, std = Pixels().encode(torch.ones(1, 3, 2, 2))
    >>> mean.mean().item(), std.mean().item()
    (1.0, 0.0)
    """

    name: str = "pixels"
    fingerprint: str = "pixels"
    scale: float = 1.0
    shift: float = 0.0

    def shape_of(self, image: Sequence[int]) -> tuple[int, ...]:
        """The same shape."""
        return tuple(image)

    def image_shape_of(self, latent: Sequence[int]) -> tuple[int, ...]:
        """The same shape."""
        return tuple(latent)

    def encode(self, pixels: Tensor) -> tuple[Tensor, Tensor]:
        """The pixels, and no deviation from them."""
        return pixels, torch.zeros_like(pixels)

    def decode(self, latents: Tensor) -> Tensor:
        """The pixels."""
        return latents
