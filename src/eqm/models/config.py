"""Sizes of the networks: plain frozen dataclasses that are checked when made and need no torch."""

from __future__ import annotations

from dataclasses import dataclass, fields


@dataclass(frozen=True)
class TransformerConfig:
    """Sizes of a `Transformer`; the defaults are EqM-S/2 without classes on 32x32 latents.

    Raises ValueError for sizes that do not fit together.
    """

    shape: tuple[int, int, int] = (4, 32, 32)
    """Channels, height and width of one sample."""
    num_classes: int = 0
    """Number of class labels; 0 makes the network unconditional."""
    noise_conditioning: bool = False
    """Whether the network is told the noise level gamma (the paper's ablation)."""
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
    """Whether the last layer has twice the channels, the second half ignored, as released."""

    def __post_init__(self) -> None:
        _check_common(self, rank=3, positive=("patch", "width", "depth", "heads", "mlp_ratio"))
        _check_grid(self.shape, self.patch, f"the patch size {self.patch}")
        _check_divisible("width", self.width, 4, "the number 4 (sine and cosine of two axes)")
        _check_divisible("width", self.width, self.heads, f"the number of heads {self.heads}")


@dataclass(frozen=True)
class UNetConfig:
    """Sizes of a `UNet`; the defaults suit 8x8 images on one CPU core.

    Raises ValueError for sizes that do not fit together.
    """

    shape: tuple[int, int, int] = (1, 8, 8)
    """Channels, height and width of one sample."""
    num_classes: int = 0
    """Number of class labels; 0 makes the network unconditional."""
    noise_conditioning: bool = False
    """Whether the network is told the noise level gamma (the paper's ablation)."""
    patch: int = 1
    """Side of the square of pixels that the first level sees as one; 2 suits images of some 28
    pixels, which then cost a quarter."""
    width: int = 16
    """Channels of the first level."""
    multipliers: tuple[int, ...] = (1, 2, 4)
    """Channels of each level, in units of `width`; every level halves height and width."""
    blocks: int = 1
    """Residual blocks of a level on the way down and again on the way up."""
    heads: int = 0
    """Heads of the self-attention at the lowest level; 0 leaves it out."""
    positions: bool = False
    """Whether each level learns a map of its places, (C, H, W), which is added to its features."""

    def __post_init__(self) -> None:
        _check_common(self, rank=3, positive=("patch", "width", "multipliers", "blocks"))
        if self.heads < 0:
            raise ValueError(f"heads must be 0 (no attention) or more; got {self.heads}")
        levels = len(self.multipliers)
        _check_grid(
            self.shape,
            self.patch * 2 ** (levels - 1),
            f"patch x 2^(levels - 1) with {levels} levels",
        )
        if self.heads:
            lowest = self.width * self.multipliers[-1]
            _check_divisible(
                "the lowest level's width", lowest, self.heads, f"the number of heads {self.heads}"
            )


@dataclass(frozen=True)
class MLPConfig:
    """Sizes of an `MLP`; the defaults suit points in the plane.

    Raises ValueError for sizes that are not positive.
    """

    shape: tuple[int, ...] = (2,)
    """Shape of one sample, which is flattened."""
    num_classes: int = 0
    """Number of class labels; 0 makes the network unconditional."""
    noise_conditioning: bool = False
    """Whether the network is told the noise level gamma (the paper's ablation)."""
    width: int = 256
    """Hidden features."""
    depth: int = 3
    """Number of residual blocks."""

    def __post_init__(self) -> None:
        _check_common(self, rank=None, positive=("width", "depth"))


NetworkConfig = TransformerConfig | UNetConfig | MLPConfig


def _check_kinds(config: NetworkConfig) -> None:
    def whole(value: object) -> bool:
        return isinstance(value, int) and not isinstance(value, bool)

    for field in fields(config):
        value = getattr(config, field.name)
        match str(field.type):
            case "int":
                fits, expected = whole(value), "a whole number"
            case "float":
                fits, expected = whole(value) or isinstance(value, float), "a number"
            case "bool":
                fits, expected = isinstance(value, bool), "true or false"
            case _:
                fits = isinstance(value, tuple) and all(map(whole, value))
                expected = "a list of whole numbers"
        if not fits:
            raise ValueError(f"{field.name} must be {expected}; got {value!r}")


def _check_common(config: NetworkConfig, *, rank: int | None, positive: tuple[str, ...]) -> None:
    _check_kinds(config)
    shape = config.shape
    if not shape or (rank is not None and len(shape) != rank):
        expected = "(channels, height, width)" if rank == 3 else "a tuple with at least one size"
        raise ValueError(f"shape must be {expected}; got {shape}")
    for name in ("shape", *positive):
        value = getattr(config, name)
        if not value or min(value if isinstance(value, tuple) else (value,)) <= 0:
            raise ValueError(f"{name} must be positive; got {value}")
    if config.num_classes < 0:
        raise ValueError(f"num_classes must be 0 (no labels) or more; got {config.num_classes}")


def _check_grid(shape: tuple[int, ...], divisor: int, reason: str) -> None:
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
