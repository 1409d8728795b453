"""A residual MLP for vectors and other small samples."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from eqm.models.conditioning import Conditioning
from eqm.models.config import MLPConfig
from eqm.models.network import Network
from eqm.registry import register


@register("network", "mlp")
class MLP(Network):
    """A field on flattened samples. It is smooth, and zero before training."""

    config: MLPConfig

    def __init__(self, config: MLPConfig) -> None:
        super().__init__(config)
        size = math.prod(config.shape)
        self.condition = Conditioning(config, config.width)
        self.stem = nn.Linear(size, config.width)
        self.blocks = nn.ModuleList(ResidualBlock(config.width) for _ in range(config.depth))
        self.head = nn.Linear(config.width, size)
        nn.init.zeros_(self.head.weight)
        nn.init.zeros_(self.head.bias)
        self.skip = nn.Linear(config.width, 1) if config.skip else None
        if self.skip is not None:
            nn.init.zeros_(self.skip.weight)
            nn.init.zeros_(self.skip.bias)

    def forward(
        self, x: Tensor, labels: Tensor | None = None, gamma: Tensor | None = None
    ) -> Tensor:
        self.check(x, labels, gamma)
        condition = self.condition(labels, gamma, self.condition.sentences(labels))
        h = self.stem(x.flatten(1))  # (B, width)
        for block in self.blocks:
            h = self.through(block, h, condition)
        out = self.head(h)
        if self.skip is not None:
            out = torch.addcmul(out, self.skip(h), x.flatten(1))
        return out.reshape(x.shape)

    def repeated_blocks(self) -> list[nn.Module]:
        return list(self.blocks)

    def outer_layers(self) -> list[nn.Module]:
        layers = [self.stem, self.head, self.condition]
        return layers if self.skip is None else [*layers, self.skip]


class ResidualBlock(nn.Module):
    """x (B, width) plus a two-layer MLP of it; `condition` scales and shifts the MLP's input."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width, elementwise_affine=False)
        self.modulation = nn.Linear(width, 2 * width)
        self.fc1 = nn.Linear(width, width)
        self.fc2 = nn.Linear(width, width)

    def forward(self, x: Tensor, condition: Tensor) -> Tensor:
        shift, scale = self.modulation(condition).chunk(2, dim=1)
        h = torch.addcmul(shift, self.norm(x), 1 + scale)
        h = self.fc2(F.silu(self.fc1(h)))
        return x + h
