"""A small U-Net for small images."""

from __future__ import annotations

import math
from collections.abc import Iterator
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from eqm.models.conditioning import Conditioning
from eqm.models.config import UNetConfig
from eqm.models.network import Network
from eqm.registry import register


@register("network", "unet")
class UNet(Network):
    """A field on images: residual convolutions at several resolutions.

    A strided convolution goes down a level. A 1x1 convolution and a nearest-neighbour copy go up a
    level, where the features of the way down are added. With `config.positions` each level adds a
    learned map on the way down. Labels (and gamma) scale and shift the features of every block. The
    output layer starts at zero. Every operation can be differentiated twice, attention under the
    math kernel of `torch.nn.attention.sdpa_kernel`.
    """

    config: UNetConfig

    def __init__(self, config: UNetConfig) -> None:
        super().__init__(config)
        widths = [config.width * multiplier for multiplier in config.multipliers]
        channels, lowest = config.shape[0], widths[-1]

        self.condition = Conditioning(config, lowest)
        self.stem = nn.Conv2d(channels * config.patch**2, config.width, 3, padding=1)
        self.positions = nn.ParameterList(_maps(config, widths) if config.positions else [])
        self.encoder = nn.ModuleList(Level(config, width) for width in widths)
        self.down = nn.ModuleList(nn.Conv2d(a, b, 3, 2, padding=1) for a, b in pairwise(widths))
        self.attention = SelfAttention(lowest, config.heads) if config.heads else None
        self.up = nn.ModuleList(nn.Conv2d(b, a, 1) for a, b in pairwise(widths))
        self.decoder = nn.ModuleList(Level(config, width) for width in widths)
        self.norm = _norm(config.width)
        self.head = _zero(nn.Conv2d(config.width, channels * config.patch**2, 3, padding=1))

    def forward(
        self, x: Tensor, labels: Tensor | None = None, gamma: Tensor | None = None
    ) -> Tensor:
        self.check(x, labels, gamma)
        condition = self.condition(labels, gamma)
        h = self.stem(F.pixel_unshuffle(x, self.config.patch))
        skips, positions = [], self.positions or [None] * len(self.encoder)
        for level, position, down in zip(self.encoder, positions, [*self.down, None], strict=True):
            h = self.through(level, h if position is None else h + position, condition)
            if down is not None:
                skips.append(h)
                h = down(h)
        if self.attention is not None:
            h = self.attention(h)
        for level, up in zip(reversed(self.decoder), [None, *reversed(self.up)], strict=True):
            if up is not None:
                h = skips.pop() + _doubled(up(h))
            h = self.through(level, h, condition)
        return F.pixel_shuffle(self.head(F.silu(self.norm(h))), self.config.patch)

    def repeated_blocks(self) -> list[nn.Module]:
        return [block for level in (*self.encoder, *self.decoder) for block in level]

    def outer_layers(self) -> list[nn.Module]:
        return [self.stem, self.head, self.condition]


class Level(nn.ModuleList):
    """x after the residual blocks of one resolution, (B, C, H, W)."""

    def __init__(self, config: UNetConfig, channels: int) -> None:
        lowest = config.width * config.multipliers[-1]
        super().__init__(ResidualBlock(channels, lowest) for _ in range(config.blocks))

    def forward(self, x: Tensor, condition: Tensor) -> Tensor:
        for block in self:
            x = block(x, condition)
        return x


class ResidualBlock(nn.Module):
    """x (B, C, H, W) plus two convolutions of it; `condition` scales and shifts between the two."""

    def __init__(self, channels: int, condition_width: int) -> None:
        super().__init__()
        self.norm1 = _norm(channels)
        self.conv1 = nn.Conv2d(channels, channels, 3, padding=1)
        self.norm2 = _norm(channels, affine=False)
        self.modulation = nn.Linear(condition_width, 2 * channels)
        self.conv2 = _zero(nn.Conv2d(channels, channels, 3, padding=1))

    def forward(self, x: Tensor, condition: Tensor) -> Tensor:
        shift, scale = self.modulation(condition)[:, :, None, None].chunk(2, dim=1)
        h = self.norm2(self.conv1(F.silu(self.norm1(x))))
        h = self.conv2(F.silu(torch.addcmul(shift, h, 1 + scale)))
        return x + h


class SelfAttention(nn.Module):
    """x (B, C, H, W) plus self-attention between its pixels."""

    def __init__(self, channels: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm = _norm(channels)
        self.qkv = nn.Conv2d(channels, 3 * channels, 1)
        self.proj = _zero(nn.Conv2d(channels, channels, 1))

    def forward(self, x: Tensor) -> Tensor:
        qkv = self.qkv(self.norm(x)).flatten(2).unflatten(1, (3, self.heads, -1))
        q, k, v = qkv.transpose(-1, -2).unbind(1)  # each (B, heads, H W, C / heads)
        h = F.scaled_dot_product_attention(q, k, v).transpose(-1, -2)
        return x + self.proj(h.reshape(x.shape))


def _doubled(x: Tensor) -> Tensor:
    """x with each pixel copied to a 2x2 square, (B, C, 2 H, 2 W).

    `F.interpolate` does the same, but compiled for a CPU by torch 2.13 it has no gradient in
    bfloat16.
    """
    return x[:, :, :, None, :, None].expand(-1, -1, -1, 2, -1, 2).flatten(4, 5).flatten(2, 3)


def _maps(config: UNetConfig, widths: list[int]) -> Iterator[nn.Parameter]:
    """The learned map of each level, (C, H, W), which starts at zero."""
    height, width = (side // config.patch for side in config.shape[1:])
    for level, channels in enumerate(widths):
        yield nn.Parameter(torch.zeros(channels, height >> level, width >> level))


def _norm(channels: int, *, affine: bool = True) -> nn.GroupNorm:
    # Up to 8 groups of at least 4 channels: a group of one 1x1 channel would be normalised to 0.
    groups = math.gcd(8, channels, max(channels // 4, 1))
    return nn.GroupNorm(groups, channels, affine=affine)


def _zero(layer: nn.Conv2d) -> nn.Conv2d:
    for parameter in layer.parameters():
        nn.init.zeros_(parameter)
    return layer
