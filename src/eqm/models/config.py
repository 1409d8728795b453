"""Sizes of the networks, frozen dataclasses that check themselves, and presets; imports no torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from difflib import get_close_matches
from math import prod
from typing import Annotated

from msgspec import Meta

from eqm.schema import check_fields

Size = Annotated[int, Meta(ge=1, le=2**16)]
"""A number of channels or features, or a side."""
Layers = Annotated[int, Meta(ge=1, le=2**9)]
"""A number of equal layers or blocks."""
Side = Annotated[int, Meta(ge=1, le=2**24)]
Shape = Annotated[tuple[Side, ...], Meta(min_length=1, max_length=8)]
MOST_VALUES = 2**30
"""One sample has at most so many numbers, 4 GiB."""


@dataclass(frozen=True)
class NetworkConfig:
    """What every network's config has; the config of your own network derives from this class.

    The annotations are checked, with their ranges: `Annotated[int, msgspec.Meta(ge=1)]`. Raises
    ValueError for a value of the wrong type or out of range, and a sample of more than MOST_VALUES
    numbers.

    >>> @dataclass(frozen=True)
    ... class MineConfig(NetworkConfig):
    ...     width: int = 64
    >>> MineConfig(shape=(1, 8, 8))
    MineConfig(shape=(1, 8, 8), num_classes=0, noise_conditioning=False, width=64)
    """

    shape: Shape = (1, 8, 8)
    """Shape of one sample."""
    num_classes: Annotated[int, Meta(ge=0, le=2**24)] = 0
    """Number of class labels; 0 makes the network unconditional."""
    noise_conditioning: bool = False
    """Condition the network on the noise level gamma (the paper's ablation)."""

    def __post_init__(self) -> None:
        check_fields(self)
        if prod(self.shape) > MOST_VALUES:
            raise ValueError(
                f"shape must have at most {MOST_VALUES:,} numbers in all; got {self.shape}: "
                "take smaller samples"
            )


@dataclass(frozen=True)
class TransformerConfig(NetworkConfig):
    """Sizes of a `Transformer`; the defaults are EqM-S/2 without classes on 32x32 latents.

    Raises ValueError for sizes that do not fit together.
    """

    shape: tuple[Side, Side, Side] = (4, 32, 32)
    """Channels, height and width of one sample."""
    patch: Size = 2
    """Side of the square patch that becomes one token."""
    width: Size = 384
    """Channels of a token."""
    depth: Layers = 12
    """Number of transformer blocks."""
    heads: Size = 6
    """Attention heads of a block."""
    mlp_ratio: Annotated[float, Meta(gt=0, le=2**10)] = 4.0
    """Hidden width of a block's MLP, in units of `width`."""
    unused_outputs: bool = False
    """Give the last layer twice the channels and ignore the second half, as the released models."""

    def __post_init__(self) -> None:
        super().__post_init__()
        _check_picture(self.shape, self.patch, f"the patch size {self.patch}")
        _check_divisible("width", self.width, 4, "the number 4 (sine and cosine of two axes)")
        _check_divisible("width", self.width, self.heads, f"the number of heads {self.heads}")


@dataclass(frozen=True)
class UNetConfig(NetworkConfig):
    """Sizes of a `UNet`; the defaults suit 8x8 images on one CPU core.

    Raises ValueError for sizes that do not fit together.
    """

    shape: tuple[Side, Side, Side] = (1, 8, 8)
    """Channels, height and width of one sample."""
    patch: Size = 1
    """Side of the square of pixels that becomes one place of the first level. 2 makes 28x28 images
    four times cheaper."""
    width: Size = 16
    """Channels of the first level."""
    multipliers: Annotated[tuple[Size, ...], Meta(min_length=1, max_length=16)] = (1, 2, 4)
    """Channels of each level, in units of `width`; each next level halves height and width."""
    blocks: Layers = 1
    """Residual blocks of a level on the way down, and again on the way up."""
    heads: Annotated[int, Meta(ge=0, le=2**16)] = 0
    """Attention heads at the lowest level; 0 means no attention."""
    positions: bool = False
    """Add a learned map (C, H, W) to the features of each level."""

    def __post_init__(self) -> None:
        super().__post_init__()
        levels = len(self.multipliers)
        divisor = self.patch * 2 ** (levels - 1)
        _check_picture(self.shape, divisor, f"patch x 2^(levels - 1) with {levels} levels")
        if self.heads:
            lowest = self.width * self.multipliers[-1]
            _check_divisible(
                "the lowest level's width", lowest, self.heads, f"the number of heads {self.heads}"
            )


@dataclass(frozen=True)
class MLPConfig(NetworkConfig):
    """Sizes of an `MLP`; the defaults suit points in the plane.

    Raises ValueError for sizes that are not positive.
    """

    shape: Shape = (2,)
    """Shape of one sample, which is flattened."""
    width: Size = 256
    """Hidden features."""
    depth: Layers = 3
    """Number of residual blocks."""


def _check_picture(shape: tuple[int, ...], divisor: int, reason: str) -> None:
    height, width = shape[1:]
    if height % divisor or width % divisor:
        raise ValueError(
            f"height and width must be divisible by {reason}; got {height}x{width}: "
            f"resize or pad the images to multiples of {divisor}"
        )


def _check_divisible(name: str, value: int, divisor: int, reason: str) -> None:
    if value % divisor:
        nearest = max(round(value / divisor), 1) * divisor
        raise ValueError(f"{name} must be divisible by {reason}; got {value}: take {nearest}")


_TRANSFORMERS = {  # width, depth, heads
    "S": (384, 12, 6),
    "B": (768, 12, 12),
    "L": (1024, 24, 16),
    "XL": (1152, 28, 16),
}

PRESETS: Mapping[str, NetworkConfig] = {
    f"EqM-{size}/{patch}": TransformerConfig(
        patch=patch, width=width, depth=depth, heads=heads, unused_outputs=True
    )
    for size, (width, depth, heads) in _TRANSFORMERS.items()
    for patch in (2, 4, 8)
} | {
    "unet-xs": UNetConfig(width=16, multipliers=(1, 2, 4)),
    "unet-s": UNetConfig(width=32, multipliers=(1, 2, 4), heads=4),
    "unet-m": UNetConfig(width=64, multipliers=(1, 2, 4), heads=4),
    "mlp": MLPConfig(),
}
"""The presets by name; those called EqM have the paper's layers and parameter counts."""


def preset(
    name: str, *, shape: tuple[int, ...], num_classes: int = 0, noise_conditioning: bool = False
) -> NetworkConfig:
    """The config of the preset `name` for samples of `shape`, with or without classes.

    `EqM-S/2` to `EqM-XL/8` are the transformers of arXiv 2510.02300: sizes S, B, L and XL with
    patches of 2, 4 and 8. `unet-xs`, `unet-s` and `unet-m` are small U-Nets with 0.25, 1.1 and 4.2
    million parameters, for heights and widths divisible by 4. `mlp` is for vectors.
    Raises ValueError for an unknown name and for a shape that does not fit the network.

    >>> preset("EqM-B/4", shape=(4, 32, 32), num_classes=1000).width
    768
    """
    if name not in PRESETS:
        by_lower_case = {known.lower(): known for known in PRESETS}
        close = get_close_matches(name.lower(), by_lower_case, n=1, cutoff=0.0)
        raise ValueError(
            f"the preset must be one of {', '.join(PRESETS)}; got {name!r}: "
            f"did you mean {by_lower_case[close[0]]!r}?"
        )
    return replace(
        PRESETS[name], shape=shape, num_classes=num_classes, noise_conditioning=noise_conditioning
    )
