"""Named sizes of networks; imports no torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from difflib import get_close_matches

from eqm.models.config import MLPConfig, NetworkConfig, TransformerConfig, UNetConfig

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
