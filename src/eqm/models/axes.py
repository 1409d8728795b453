"""What differs between samples of one, two and three axes: convolutions, patches, positions."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

Convolution = nn.Conv1d | nn.Conv2d | nn.Conv3d


def convolution(
    axes: int,
    inputs: int,
    outputs: int,
    kernel: int | tuple[int, ...],
    stride: int | tuple[int, ...] = 1,
    padding: int | tuple[int, ...] = 0,
) -> Convolution:
    """A convolution over the last 1, 2 or 3 axes."""
    kind: type = (nn.Conv1d, nn.Conv2d, nn.Conv3d)[axes - 1]
    layer: Convolution = kind(inputs, outputs, kernel, stride, padding=padding)
    return layer


def by_axis(size: int | tuple[int, ...], axes: int) -> tuple[int, ...]:
    """A size for each axis, from one for all or one for each."""
    return (size,) * axes if isinstance(size, int) else size


def to_channels(x: Tensor, patch: tuple[int, ...]) -> Tensor:
    """x (B, C, *sides) with the values of each patch as channels, (B, C * prod(patch), *sides / patch).

    For pictures and a square patch this is `torch.nn.functional.pixel_unshuffle`."""
    axes = len(patch)
    if axes == 2 and patch[0] == patch[1]:
        return F.pixel_unshuffle(x, patch[0])
    for axis, size in reversed(list(enumerate(patch, start=2))):
        x = x.unflatten(axis, (-1, size))
    within, between = range(3, 2 * axes + 2, 2), range(2, 2 * axes + 2, 2)
    return x.permute(0, 1, *within, *between).flatten(1, 1 + axes)


def from_channels(x: Tensor, patch: tuple[int, ...]) -> Tensor:
    """The inverse of `to_channels`."""
    axes = len(patch)
    if axes == 2 and patch[0] == patch[1]:
        return F.pixel_shuffle(x, patch[0])
    x = x.unflatten(1, (-1, *patch))  # (B, C, *patch, *sides)
    pairs = [axis for k in range(axes) for axis in (2 + axes + k, 2 + k)]
    x = x.permute(0, 1, *pairs)
    for axis in reversed(range(2, axes + 2)):
        x = x.flatten(2 * axis - 2, 2 * axis - 1)
    return x


def repeated(x: Tensor, times: tuple[int, ...]) -> Tensor:
    """x (B, C, *sides) with each value copied so many times along each axis.

    `F.interpolate` does the same, but compiled for a CPU by torch 2.13 it has no gradient in
    bfloat16.
    """
    sizes = [-1, -1]
    for k, count in enumerate(times):
        x = x.unsqueeze(2 * k + 3)
        sizes += [-1, count]
    x = x.expand(sizes)
    for k in reversed(range(len(times))):
        x = x.flatten(2 * k + 2, 2 * k + 3)
    return x


def position_table(sides: tuple[int, ...], width: int) -> Tensor:
    """Sines and cosines of the place of each token, (1, prod(sides), width); of the last axis first.

    Each axis has `width / len(sides)` of the channels, half of them sines."""
    axes = len(sides)
    part = width // (2 * axes)
    frequencies = 10_000.0 ** (-torch.arange(part, dtype=torch.float64) / part)
    tables = []
    for axis in reversed(range(axes)):
        angles = torch.arange(sides[axis], dtype=torch.float64)[:, None] * frequencies
        waves = torch.cat([angles.sin(), angles.cos()], dim=1)  # (side, width / axes)
        view = waves.view(*(sides[axis] if k == axis else 1 for k in range(axes)), -1)
        tables.append(view.expand(*sides, -1))
    table = torch.cat(tables, dim=-1).reshape(1, -1, width)
    return table.to(torch.get_default_dtype())


def rotary_table(sides: tuple[int, ...], channels: int) -> Tensor:
    """Cosines and sines for `rotated`, (2, prod(sides), channels // 2), of the first axis first.

    The angle of a pair of channels is the token's place on one axis times a frequency, from 1 down to
    1/100 (arXiv 2403.13298, axial). Each axis has equally many pairs; those left over have angle 0.
    """
    pairs = channels // 2 // len(sides)
    frequencies = 100.0 ** (-torch.arange(pairs, dtype=torch.float64) / pairs)
    places = torch.cartesian_prod(*(torch.arange(n, dtype=torch.float64) for n in sides))
    angles = (places.view(-1, len(sides), 1) * frequencies).flatten(1)
    angles = F.pad(angles, (0, channels // 2 - angles.shape[1]))
    return torch.stack([angles.cos(), angles.sin()]).to(torch.get_default_dtype())


def rotated(x: Tensor, table: Tensor) -> Tensor:
    """x (..., N, D) with each pair of channels rotated by the angle of its token in the plane.

    Channel k pairs with channel k + D // 2. The product of two rotated vectors depends on their places
    through the difference alone (RoPE, arXiv 2104.09864).
    """
    cosine, sine = table
    half = cosine.shape[-1]
    first, second, rest = x.split([half, half, x.shape[-1] - 2 * half], dim=-1)
    turned = (first * cosine - second * sine, second * cosine + first * sine, rest)
    return torch.cat(turned, dim=-1)
