"""Sampling of the baseline that is told the noise level: the one descent that needs a clock."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from eqm.descent.driver import Descent, Outcome
from eqm.field import guide


def integrate(
    field: Callable[[Tensor, Tensor | None, Tensor], Tensor],
    x: Tensor,
    labels: Tensor | None = None,
    *,
    steps: int,
    start: float = 0.0,
    guidance: float = 1.0,
    null_label: int = -1,
) -> Descent:
    """The end, at gamma = 1, of x (B, ...) that follow a noise-conditioned flow-matching field.

    Euler's method, x_{k+1} = x_k - h * field(x_k, labels, gamma_k) with h = (1 - start) / steps and
    gamma_k = start + k h; `start` is the gamma the starts are at, 0 for noise. The sign is that of
    every field here, minus the velocity. `guidance` and `null_label` are those of `guide`.

    Raises ValueError for `steps` below 1 or `start` outside [0, 1).
    """
    if steps < 1 or not 0 <= start < 1:
        raise ValueError(
            f"steps must be at least 1 and start in [0, 1); got steps {steps}, start {start}"
        )
    size, gamma = (1 - start) / steps, start

    def now(x: Tensor, labels: Tensor | None) -> Tensor:
        return field(x, labels, torch.full((len(x),), gamma, device=x.device, dtype=x.dtype))

    guided = guide(now, guidance, null_label)
    gradient = torch.zeros_like(x)
    with torch.no_grad():
        for k in range(steps):
            gamma = start + k * size
            gradient = guided(x, labels)
            x = x - size * gradient
    finite = x.isfinite().flatten(1).all(1).tolist()
    made = torch.full((len(x),), steps, device=x.device)
    return Descent(
        x,
        made,
        made.clone(),
        torch.linalg.vector_norm(gradient.flatten(1), dim=1),
        tuple(Outcome.CONVERGED if whole else Outcome.DIVERGED for whole in finite),
    )
