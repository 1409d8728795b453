"""Sampling of the baseline that is told the noise level: the one descent that needs a clock."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor


def integrate(
    field: Callable[[Tensor, Tensor | None, Tensor], Tensor],
    x: Tensor,
    labels: Tensor | None = None,
    *,
    steps: int,
    start: float = 0.0,
) -> Tensor:
    """The end, at gamma = 1, of x (B, ...) that follow a noise-conditioned flow-matching field in
    Euler steps.

    x_{k+1} = x_k - h * field(x_k, labels, gamma_k) with h = (1 - start) / steps and gamma_k = start
    + k h; `start` is the gamma the starts are at, 0 for noise. The sign is that of every field
    here, minus the velocity.

    Raises ValueError for `steps` below 1 or `start` outside [0, 1).
    """
    if steps < 1 or not 0 <= start < 1:
        raise ValueError(
            f"steps must be at least 1 and start in [0, 1); got steps {steps}, start {start}"
        )
    size = (1 - start) / steps
    with torch.no_grad():
        for k in range(steps):
            gamma = torch.full((len(x),), start + k * size, device=x.device, dtype=x.dtype)
            x = x - size * field(x, labels, gamma)
    return x
