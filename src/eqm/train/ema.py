"""The moving average of the weights, which is what gets sampled."""

from __future__ import annotations

import torch
from torch import Tensor, nn

RAMP = 0.1
"""The half-life never exceeds this share of the images seen, so that a short run forgets its random
beginning."""


@torch.no_grad()
def update_average(
    average: nn.Module, model: nn.Module, *, images: int, batch: int, halflife: int
) -> None:
    """Moves the weights of `average` towards those of `model`.

    `images` were seen in all, `batch` of them just now:
    average <- beta average + (1 - beta) model, with beta = 2^(-batch / halflife): a weight counts
    half after `halflife` images, whatever the batch size (the average of arXiv 2312.02696, in the
    form of its reference presets).
    """
    beta = 0.5 ** (batch / min(halflife, max(RAMP * images, 1)))
    averages: list[Tensor] = [p for p in average.parameters() if p.requires_grad]
    weights: list[Tensor] = [p for p in model.parameters() if p.requires_grad]
    torch._foreach_lerp_(averages, weights, 1 - beta)
