"""A small convolutional network that keeps the grid, for maps of features."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from eqm.models.conditioning import Conditioning
from eqm.models.config import ConvConfig
from eqm.models.network import Network
from eqm.registry import register


@register("network", "conv")
class Conv(Network):
    """A field on maps (B, C, H, W): residual 3x3 convolutions on one grid, and a linear map of x beside them.

    A learned bias for each place tells the network where it is. It is zero before training.
    """

    config: ConvConfig

    def __init__(self, config: ConvConfig) -> None:
        super().__init__(config)
        channels, *grid = config.shape
        self.condition = Conditioning(config, config.width)
        self.stem = nn.Conv2d(channels, config.width, 1)
        self.places = nn.Parameter(torch.zeros(config.width, *grid))
        self.blocks = nn.ModuleList(_Block(config.width) for _ in range(config.depth))
        self.linear = nn.Conv2d(channels, channels, 1)
        self.head = nn.Conv2d(config.width, channels, 1, bias=False)
        for layer in (self.head, self.linear):
            for weight in layer.parameters():
                nn.init.zeros_(weight)

    def forward(
        self, x: Tensor, labels: Tensor | None = None, gamma: Tensor | None = None
    ) -> Tensor:
        self.check(x, labels, gamma)
        condition = self.condition(labels, gamma)
        h = self.stem(x) + self.places
        for block in self.blocks:
            h = self.through(block, h, condition)
        return self.linear(x) + self.head(h)

    def repeated_blocks(self) -> list[nn.Module]:
        return list(self.blocks)

    def outer_layers(self) -> list[nn.Module]:
        return [self.stem, self.head, self.linear, self.condition]


class _Block(nn.Module):
    """h (B, width, H, W) plus a convolution of it; `condition` scales and shifts the convolution's input."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = nn.GroupNorm(1, width, affine=False)
        self.modulation = nn.Linear(width, 2 * width)
        self.convolution = nn.Conv2d(width, width, 3, padding=1)

    def forward(self, h: Tensor, condition: Tensor) -> Tensor:
        shift, scale = self.modulation(condition)[..., None, None].chunk(2, dim=1)
        return h + F.silu(self.convolution(torch.addcmul(shift, self.norm(h), 1 + scale)))
