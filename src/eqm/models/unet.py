"""A small U-Net for small images, and for signals and volumes."""

from __future__ import annotations

import math
from collections.abc import Iterator
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from eqm.models.axes import (
    Convolution,
    by_axis,
    convolution,
    from_channels,
    repeated,
    to_channels,
)
from eqm.models.conditioning import Conditioning
from eqm.models.config import UNetConfig
from eqm.models.network import Network
from eqm.models.words import Sentences, TokenAttention
from eqm.registry import register


@register("network", "unet")
class UNet(Network):
    """A field on signals, images or volumes: residual convolutions at several resolutions.

    A strided convolution goes down a level. A 1x1 convolution and a nearest-neighbour copy go up a
    level, where the features of the way down are added. With `config.positions` each level adds a
    learned map on the way down. Labels (and gamma) scale and shift the features of every block. With
    sentences, the mean of their tokens does so, and every level but the first attends to the tokens, on
    the way down and up. The output layer starts at zero. Every operation can be differentiated twice,
    attention under the math kernel of `torch.nn.attention.sdpa_kernel`.
    """

    config: UNetConfig

    def __init__(self, config: UNetConfig) -> None:
        super().__init__(config)
        widths = [config.width * multiplier for multiplier in config.multipliers]
        channels, axes, lowest = config.shape[0], len(config.shape) - 1, widths[-1]
        self._patch = by_axis(config.patch, axes)
        self._stride = by_axis(config.stride, axes)
        kernel = by_axis(config.kernel, axes)
        padding = tuple(side // 2 for side in kernel)
        inputs = channels * math.prod(self._patch)

        self.condition = Conditioning(config, lowest)
        self.stem = convolution(axes, inputs, config.width, kernel, padding=padding)
        self.positions = nn.ParameterList(_maps(config, widths) if config.positions else [])
        self.encoder = nn.ModuleList(Level(config, width) for width in widths)
        self.down = nn.ModuleList(
            convolution(axes, a, b, kernel, self._stride, padding) for a, b in pairwise(widths)
        )
        self.attention = SelfAttention(axes, lowest, config.heads) if config.heads else None
        self.up = nn.ModuleList(convolution(axes, b, a, 1) for a, b in pairwise(widths))
        self.decoder = nn.ModuleList(Level(config, width) for width in widths)
        self.norm = _norm(config.width)
        self.head = _zero(convolution(axes, config.width, inputs, kernel, padding=padding))
        self.words, self.words_up = (_attentions(config, widths) for _ in range(2))

    def forward(
        self, x: Tensor, labels: Tensor | None = None, gamma: Tensor | None = None
    ) -> Tensor:
        self.check(x, labels, gamma)
        words = self.condition.sentences(labels)
        condition = self.condition(labels, gamma, words)
        h = self.stem(to_channels(x, self._patch))
        skips, positions = [], self.positions or [None] * len(self.encoder)
        for k, (level, position) in enumerate(zip(self.encoder, positions, strict=True)):
            h = self.through(level, h if position is None else h + position, condition)
            h = self._read(self.words, k, h, words)
            if k < len(self.down):
                skips.append(h)
                h = self.down[k](h)
        if self.attention is not None:
            h = self.attention(h)
        for k, level in reversed(list(enumerate(self.decoder))):
            if k < len(self.up):
                h = skips.pop() + repeated(self.up[k](h), self._stride)
            h = self.through(level, h, condition)
            h = self._read(self.words_up, k, h, words)
        return from_channels(self.head(F.silu(self.norm(h))), self._patch)

    def _read(
        self, attentions: nn.ModuleDict, level: int, h: Tensor, words: Sentences | None
    ) -> Tensor:
        """The features after the attention of a level to the words, if it has one."""
        if words is None or str(level) not in attentions:
            return h
        return self.through(attentions[str(level)], h, words.vectors, words.present)

    def repeated_blocks(self) -> list[nn.Module]:
        return [block for level in (*self.encoder, *self.decoder) for block in level]

    def outer_layers(self) -> list[nn.Module]:
        return [self.stem, self.head, self.condition]


class Level(nn.ModuleList):
    """x after the residual blocks of one resolution, (B, C, *sides)."""

    def __init__(self, config: UNetConfig, channels: int) -> None:
        lowest = config.width * config.multipliers[-1]
        kernel = by_axis(config.kernel, len(config.shape) - 1)
        super().__init__(ResidualBlock(kernel, channels, lowest) for _ in range(config.blocks))

    def forward(self, x: Tensor, condition: Tensor) -> Tensor:
        for block in self:
            x = block(x, condition)
        return x


class ResidualBlock(nn.Module):
    """x (B, C, *sides) plus two convolutions of it; `condition` scales and shifts between the two."""

    def __init__(self, kernel: tuple[int, ...], channels: int, condition_width: int) -> None:
        super().__init__()
        axes, padding = len(kernel), tuple(side // 2 for side in kernel)
        self.norm1 = _norm(channels)
        self.conv1 = convolution(axes, channels, channels, kernel, padding=padding)
        self.norm2 = _norm(channels, affine=False)
        self.modulation = nn.Linear(condition_width, 2 * channels)
        self.conv2 = _zero(convolution(axes, channels, channels, kernel, padding=padding))

    def forward(self, x: Tensor, condition: Tensor) -> Tensor:
        shift, scale = per_channel(self.modulation(condition), x).chunk(2, dim=1)
        h = self.norm2(self.conv1(F.silu(self.norm1(x))))
        h = self.conv2(F.silu(torch.addcmul(shift, h, 1 + scale)))
        return x + h


class SelfAttention(nn.Module):
    """x (B, C, *sides) plus self-attention between its places."""

    def __init__(self, axes: int, channels: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm = _norm(channels)
        self.qkv = convolution(axes, channels, 3 * channels, 1)
        self.proj = _zero(convolution(axes, channels, channels, 1))

    def forward(self, x: Tensor) -> Tensor:
        qkv = self.qkv(self.norm(x)).flatten(2).unflatten(1, (3, self.heads, -1))
        q, k, v = qkv.transpose(-1, -2).unbind(1)  # each (B, heads, places, C / heads)
        h = F.scaled_dot_product_attention(q, k, v).transpose(-1, -2)
        return x + self.proj(h.reshape(x.shape))


class CrossAttention(nn.Module):
    """x (B, C, *sides) plus its attention to the vectors of words (B, L, W) that are present."""

    def __init__(self, channels: int, words: int) -> None:
        super().__init__()
        self.attention = TokenAttention(channels, words)

    def forward(self, x: Tensor, vectors: Tensor, present: Tensor) -> Tensor:
        h = self.attention(x.flatten(2).mT, vectors, present)
        return x + h.mT.reshape(x.shape)


def _attentions(config: UNetConfig, widths: list[int]) -> nn.ModuleDict:
    """The attention to words of each level but the first, where it costs most, by number."""
    if not config.text.encoder:
        return nn.ModuleDict()
    first = min(1, len(widths) - 1)
    levels = range(first, len(widths))
    return nn.ModuleDict({str(k): CrossAttention(widths[k], widths[-1]) for k in levels})


def _maps(config: UNetConfig, widths: list[int]) -> Iterator[nn.Parameter]:
    """The learned map of each level, (C, *sides), which starts at zero."""
    axes = len(config.shape) - 1
    sides = [
        n // size for n, size in zip(config.shape[1:], by_axis(config.patch, axes), strict=True)
    ]
    for channels in widths:
        yield nn.Parameter(torch.zeros(channels, *sides))
        sides = [n // size for n, size in zip(sides, by_axis(config.stride, axes), strict=True)]


def per_channel(values: Tensor, x: Tensor) -> Tensor:
    """Values (B, C) to broadcast with x (B, C, *sides)."""
    return values.view(*values.shape, *[1] * (x.ndim - 2))


def _norm(channels: int, *, affine: bool = True) -> nn.GroupNorm:
    # Up to 8 groups of at least 4 channels: a group of one 1x1 channel would be normalised to 0.
    groups = math.gcd(8, channels, max(channels // 4, 1))
    return nn.GroupNorm(groups, channels, affine=affine)


def _zero(layer: Convolution) -> Convolution:
    for parameter in layer.parameters():
        nn.init.zeros_(parameter)
    return layer
