"""Sizes of the networks, frozen dataclasses that check themselves, and presets; imports no torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from difflib import get_close_matches
from math import prod
from operator import gt
from typing import Annotated

from msgspec import Meta

from eqm.schema import check_fields

Size = Annotated[int, Meta(ge=1, le=2**16)]
"""A number of channels or features, or a side."""
Layers = Annotated[int, Meta(ge=1, le=2**9)]
"""A number of equal layers or blocks."""
Side = Annotated[int, Meta(ge=1, le=2**24)]
Shape = Annotated[tuple[Side, ...], Meta(min_length=1, max_length=8)]
Sides = Annotated[tuple[Side, ...], Meta(min_length=2, max_length=4)]
"""Channels and one, two or three sides."""
ByAxis = Size | Annotated[tuple[Size, ...], Meta(min_length=1, max_length=3)]
"""One size for all axes, or one for each."""
MOST_VALUES = 2**30
"""One sample has at most so many numbers, 4 GiB."""


@dataclass(frozen=True)
class TextConfig:
    """How a network takes sentences as conditions; without an encoder, conditions are classes.

    Raises ValueError for values of the wrong type or out of range.
    """

    encoder: str = ""
    """Text encoder: vocabulary (the words of the captions, trained along), wordllama, or
    transformers:FOLDER. Empty: the network takes no sentences."""
    length: Annotated[int, Meta(ge=1, le=2**10)] = 32
    """Most tokens of a sentence; longer ones are cut."""
    depth: Annotated[int, Meta(ge=0, le=2**6)] = 1
    """Layers of attention between the tokens, before they enter the network."""
    width: Annotated[int, Meta(ge=0, le=2**16)] = 0
    """Length of the fixed vectors of the encoder, 0 if it has none. Training sets it."""
    fingerprint: str = ""
    """Digest of the encoder. Training sets it."""

    def __post_init__(self) -> None:
        check_fields(self, prefix="text.")


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
    """Number of class labels; 0 makes the network unconditional. With a text encoder, its number of tokens."""
    noise_conditioning: bool = False
    """Condition the network on the noise level gamma (the paper's ablation)."""
    text: TextConfig = field(default=TextConfig(), repr=False)
    """Sentences as conditions, in place of classes."""

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

    shape: Sides = (4, 32, 32)
    """Channels, height and width of one sample; (C, L) for signals, (C, T, H, W) for videos and volumes."""
    patch: ByAxis = 2
    """Sides of the patch that becomes one token: one number, or one for each axis."""
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
    rotary: bool = False
    """Rotate the queries and keys of self-attention by the place of their token (RoPE)."""
    rms_norm: bool = False
    """Divide tokens by their root mean square (RMS norm) in place of layer norm."""
    qk_norm: bool = False
    """Divide the queries and keys of self-attention by their root mean square, then scale them (QK norm)."""
    swiglu: bool = False
    """Give the MLP of a block a gate (SwiGLU) in place of GELU; it has about as many parameters."""

    def __post_init__(self) -> None:
        super().__post_init__()
        axes = len(self.shape) - 1
        _check_axes(axes, patch=self.patch)
        _check_sides(self.shape, _sizes(self.patch, axes), f"the patch size {_said(self.patch)}")
        axis = ("one axis", "two axes", "three axes")[axes - 1]
        reason = f"the number {2 * axes} (sine and cosine of {axis})"
        _check_divisible("width", self.width, 2 * axes, reason)
        _check_divisible("width", self.width, self.heads, f"the number of heads {self.heads}")
        if self.rotary and self.width // self.heads < 2 * axes:
            raise ValueError(
                f"rotary needs {2 * axes} or more channels for each head (a pair for {axis}); got "
                f"width {self.width} with {self.heads} heads: take fewer heads or a larger width"
            )


@dataclass(frozen=True)
class UNetConfig(NetworkConfig):
    """Sizes of a `UNet`; the defaults suit 8x8 images on one CPU core.

    Raises ValueError for sizes that do not fit together.
    """

    shape: Sides = (1, 8, 8)
    """Channels, height and width of one sample; (C, L) for signals, (C, T, H, W) for videos and volumes."""
    patch: ByAxis = 1
    """Sides of the patch that becomes one place of the first level: one number, or one for each axis.
    2 makes 28x28 images four times cheaper."""
    width: Size = 16
    """Channels of the first level."""
    multipliers: Annotated[tuple[Size, ...], Meta(min_length=1, max_length=16)] = (1, 2, 4)
    """Channels of each level, in units of `width`; each next level has its sides divided by `stride`."""
    stride: ByAxis = 2
    """By how much each next level is smaller: one number, or one for each axis. (1, 2, 2) keeps the
    number of frames of a video."""
    kernel: ByAxis = 3
    """Sides of the convolutions: one number, or one for each axis. (1, 3, 3) looks at each frame of a video by
    itself."""
    blocks: Layers = 1
    """Residual blocks of a level on the way down, and again on the way up."""
    heads: Annotated[int, Meta(ge=0, le=2**16)] = 0
    """Attention heads at the lowest level; 0 means no attention."""
    positions: bool = False
    """Add a learned map with the sides of a sample to the features of each level."""

    def __post_init__(self) -> None:
        super().__post_init__()
        axes, levels = len(self.shape) - 1, len(self.multipliers)
        _check_axes(axes, patch=self.patch, stride=self.stride, kernel=self.kernel)
        strides, kernels = _sizes(self.stride, axes), _sizes(self.kernel, axes)
        if any(side % 2 == 0 for side in kernels):
            raise ValueError(f"kernel must have odd sides; got {_said(self.kernel)}: take 3 or 5")
        if any(
            map(gt, strides, kernels)
        ):  # the convolution that goes down a level would skip values
            raise ValueError(
                f"stride must be at most kernel, {_said(self.kernel)}; got {_said(self.stride)}"
            )
        divisors = tuple(
            size * stride ** (levels - 1)
            for size, stride in zip(_sizes(self.patch, axes), strides, strict=True)
        )
        reason = f"patch x {_said(self.stride)}^(levels - 1) with {levels} levels"
        _check_sides(self.shape, divisors, reason)
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
    skip: bool = False
    """Add the sample times a number, which the network finds for each sample. So noise can leave a sample
    that has more values than `width`."""


@dataclass(frozen=True)
class ConvConfig(NetworkConfig):
    """Sizes of a `Conv`; the defaults suit maps of features on one CPU core."""

    shape: Annotated[tuple[Side, ...], Meta(min_length=3, max_length=3)] = (152, 14, 14)
    """Channels, height and width of the maps."""
    width: Size = 96
    """Channels of the convolutions."""
    depth: Layers = 3
    """Number of residual convolutions."""


def _sizes(size: int | tuple[int, ...], axes: int) -> tuple[int, ...]:
    return (size,) * axes if isinstance(size, int) else size


def _said(size: int | tuple[int, ...]) -> str:
    return str(size) if isinstance(size, int) else "x".join(map(str, size))


def _check_axes(axes: int, **sizes: int | tuple[int, ...]) -> None:
    for name, size in sizes.items():
        if not isinstance(size, int) and len(size) != axes:
            raise ValueError(
                f"{name} must be one number, or one for each of {axes} axes; got {size}"
            )


def _check_sides(shape: tuple[int, ...], divisors: tuple[int, ...], reason: str) -> None:
    sides = shape[1:]
    if any(side % divisor for side, divisor in zip(sides, divisors, strict=True)):
        what = {1: "the length", 2: "height and width"}.get(len(sides), "all sides")
        multiples = divisors[0] if len(set(divisors)) == 1 else _said(divisors)
        raise ValueError(
            f"{what} must be divisible by {reason}; got {_said(sides)}: "
            f"resize or pad the samples to multiples of {multiples}"
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
