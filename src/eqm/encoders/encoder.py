"""The interface of an encoder, its metadata, and the encoder for models of pixels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NotRequired, Protocol, TypedDict

import torch
from torch import Tensor

from eqm.schema import Finite


class Encoder(Protocol):
    """Turns images (B, C, H, W) in -1..1 into latents and back.

    Latents are `(z - shift) * scale`, where z is the output of the network; they have about unit
    variance.
    """

    @property
    def name(self) -> str:
        """The name that `open_encoder` takes."""

    @property
    def fingerprint(self) -> str:
        """A hexadecimal digest of settings and weights; it does not depend on the folder."""

    @property
    def scale(self) -> float:
        """The factor in the formula of latents."""

    @property
    def shift(self) -> float:
        """The shift in the formula of latents."""

    @property
    def posterior(self) -> bool:
        """Whether latents have a standard deviation; without, it is 0."""

    def shape_of(self, image: Sequence[int]) -> tuple[int, ...]:
        """The shape of the latent of an image of shape (C, H, W).

        Raises ValueError for a number of channels and for sides that it cannot encode.
        """

    def image_shape_of(self, latent: Sequence[int]) -> tuple[int, ...]:
        """The shape of the image that a latent of this shape decodes to.

        Raises ValueError if it cannot decode such latents.
        """

    def encode(self, pixels: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and standard deviation of the latents of `pixels` (B, C, H, W), a normal posterior."""

    def decode(self, latents: Tensor) -> Tensor:
        """The images of `latents`."""


@dataclass(frozen=True)
class Pixels:
    """The encoder of models that learn pixels: it changes nothing.

    >>> mean, std = Pixels().encode(torch.ones(1, 3, 2, 2))
    >>> mean.mean().item(), std.mean().item()
    (1.0, 0.0)
    """

    name: str = "pixels"
    fingerprint: str = "pixels"
    scale: float = 1.0
    shift: float = 0.0
    posterior: bool = False

    def shape_of(self, image: Sequence[int]) -> tuple[int, ...]:
        return tuple(image)

    def image_shape_of(self, latent: Sequence[int]) -> tuple[int, ...]:
        return tuple(latent)

    def encode(self, pixels: Tensor) -> tuple[Tensor, Tensor]:
        return pixels, torch.zeros_like(pixels)

    def decode(self, latents: Tensor) -> Tensor:
        return latents


class AboutEncoder(TypedDict):
    """What is stored about an encoder; latents on disk are scaled and shifted."""

    name: str
    fingerprint: str
    scale: Finite
    shift: Finite
    mean: NotRequired[list[Finite]]
    """The mean of each channel of feature maps; autoencoders have none."""
    std: NotRequired[list[Finite]]


def about_encoder(encoder: Encoder) -> AboutEncoder:
    """The metadata of `encoder`: name, fingerprint, scale and shift, and the whitening of feature maps.

    >>> about_encoder(Pixels())["scale"]
    1.0
    """
    about: AboutEncoder = {
        "name": encoder.name,
        "fingerprint": encoder.fingerprint,
        "scale": encoder.scale,
        "shift": encoder.shift,
    }
    mean, std = (getattr(encoder, name, None) for name in ("mean", "std"))
    if mean is not None and std is not None:
        about |= {"mean": mean.tolist(), "std": std.tolist()}
    return about
