"""Sizes of the networks, frozen dataclasses that check themselves, and presets; imports no torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from difflib import get_close_matches
from typing import Any, get_args, get_type_hints

_KINDS = {bool: "true or false", int: "a whole number", float: "a number", str: "text"}


@dataclass(frozen=True)
class NetworkConfig:
    """What every network's config has; the config of your own network derives from this class.

    Raises ValueError for a value of the wrong type, an empty shape, a size below 1 and a negative
    number of classes.

    >>> @dataclass(frozen=True)
    ... class MineConfig(NetworkConfig):
    ...     width: int = 64
    >>> MineConfig(shape=(1, 8, 8))
    MineConfig(shape=(1, 8, 8), num_classes=0, noise_conditioning=False, width=64)
    """

    shape: tuple[int, ...] = (1, 8, 8)
    """Shape of one sample."""
    num_classes: int = 0
    """Number of class labels; 0 makes the network unconditional."""
    noise_conditioning: bool = False
    """Condition the network on the noise level gamma (the paper's ablation)."""

    def __post_init__(self) -> None:
        hints = get_type_hints(type(self))
        for field in fields(self):
            _check_kind(field.name, getattr(self, field.name), hints[field.name])
        if not self.shape:
            raise ValueError("shape must be a tuple with at least one size; got ()")
        _check_positive(self, "shape")
        if self.num_classes < 0:
            raise ValueError(f"num_classes must be 0 (no labels) or more; got {self.num_classes}")


@dataclass(frozen=True)
class TransformerConfig(NetworkConfig):
    """Sizes of a `Transformer`; the defaults are EqM-S/2 without classes on 32x32 latents.

    Raises ValueError for sizes that do not fit together.
    """

    shape: tuple[int, int, int] = (4, 32, 32)
    """Channels, height and width of one sample."""
    patch: int = 2
    """Side of the square patch that becomes one token."""
    width: int = 384
    """Channels of a token."""
    depth: int = 12
    """Number of transformer blocks."""
    heads: int = 6
    """Attention heads of a block."""
    mlp_ratio: float = 4.0
    """Hidden width of a block's MLP, in units of `width`."""
    unused_outputs: bool = False
    """Give the last layer twice the channels and ignore the second half, as the released models."""

    def __post_init__(self) -> None:
        super().__post_init__()
        _check_positive(self, "patch", "width", "depth", "heads", "mlp_ratio")
        _check_picture(self.shape, self.patch, f"the patch size {self.patch}")
        _check_divisible("width", self.width, 4, "the number 4 (sine and cosine of two axes)")
        _check_divisible("width", self.width, self.heads, f"the number of heads {self.heads}")


@dataclass(frozen=True)
class UNetConfig(NetworkConfig):
    """Sizes of a `UNet`; the defaults suit 8x8 images on one CPU core.

    Raises ValueError for sizes that do not fit together.
    """

    shape: tuple[int, int, int] = (1, 8, 8)
    """Channels, height and width of one sample."""
    patch: int = 1
    """Side of the square of pixels that becomes one place of the first level. 2 makes 28x28 images
    four times cheaper."""
    width: int = 16
    """Channels of the first level."""
    multipliers: tuple[int, ...] = (1, 2, 4)
    """Channels of each level, in units of `width`; each next level halves height and width."""
    blocks: int = 1
    """Residual blocks of a level on the way down, and again on the way up."""
    heads: int = 0
    """Attention heads at the lowest level; 0 means no attention."""
    positions: bool = False
    """Add a learned map (C, H, W) to the features of each level."""

    def __post_init__(self) -> None:
        super().__post_init__()
        _check_positive(self, "patch", "width", "multipliers", "blocks")
        if self.heads < 0:
            raise ValueError(f"heads must be 0 (no attention) or more; got {self.heads}")
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

    shape: tuple[int, ...] = (2,)
    """Shape of one sample, which is flattened."""
    width: int = 256
    """Hidden features."""
    depth: int = 3
    """Number of residual blocks."""

    def __post_init__(self) -> None:
        super().__post_init__()
        _check_positive(self, "width", "depth")


def _check_kind(name: str, value: Any, kind: Any) -> None:
    expected = _KINDS.get(kind)
    fits = _is(value, kind) if expected else True
    if (entry := (*get_args(kind), None)[0]) in (int, float):  # a tuple of numbers
        expected = "a list of whole numbers" if entry is int else "a list of numbers"
        fits = isinstance(value, tuple) and all(_is(number, entry) for number in value)
    if not fits:
        raise ValueError(f"{name} must be {expected}; got {value!r}")


def _is(value: object, kind: Any) -> bool:
    if isinstance(value, bool):
        return kind is bool
    return isinstance(value, int | float if kind is float else kind)


def _check_positive(config: NetworkConfig, *names: str) -> None:
    for name in names:
        value = getattr(config, name)
        if not value or min(value if isinstance(value, tuple) else (value,)) <= 0:
            raise ValueError(f"{name} must be positive; got {value}")


def _check_picture(shape: tuple[int, ...], divisor: int, reason: str) -> None:
    if len(shape) != 3:
        raise ValueError(f"shape must be (channels, height, width); got {shape}")
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
