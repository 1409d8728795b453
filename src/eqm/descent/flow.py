"""Sampling of noise-conditioned fields, whose steps depend on gamma."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from eqm.checks import check_count, check_fraction
from eqm.descent.driver import Outcome, Solution, checked
from eqm.field import Field, at_path
from eqm.guidance import guide
from eqm.shapes import all_finite, norms, per_sample


def integrate(
    field: Callable[[Tensor, Tensor | None, Tensor], Tensor],
    x: Tensor,
    labels: Tensor | None = None,
    *,
    steps: int,
    start: float = 0.0,
    decay: Callable[[Tensor], Tensor] | None = None,
    guidance: float = 1.0,
    null_label: int | None = None,
    guidance_interval: tuple[float, float] | None = None,
) -> Solution:
    """The samples at gamma = 1 after `steps` Euler steps of a noise-conditioned field from x (B, ...).

    x_{k+1} = x_k - h / decay(gamma_k) * field(x_k, labels, gamma_k)
    with  h = (1 - start) / steps  and  gamma_k = start + k h

    `decay` is the c(gamma) of training, by default 1 (flow matching); it must be positive before
    gamma = 1. `start` is the gamma of x, 0 for noise. The sign is that of all fields here, minus the
    velocity. `guidance`, `null_label` and `guidance_interval` are those of `guide`, with gamma as the
    path. Samples end as converged, or as diverged once they are not finite.

    Raises ValueError for `steps` below 1, `start` outside [0, 1), a decay that is not positive, guidance
    without a null label, and a field that returns another shape.
    """
    check_count(steps=steps)
    check_fraction(start=start)
    if guidance != 1 and null_label is None:
        raise ValueError(f"guidance {guidance:g} needs null_label, the label that means no label")
    size, gamma = (1 - start) / steps, start
    levels = start + size * torch.arange(steps, dtype=torch.float64)  # gamma_k
    strides = size / (torch.ones_like(levels) if decay is None else decay(levels))
    if not (strides.isfinite() & (strides > 0)).all():
        raise ValueError(
            "decay must be positive before gamma = 1; got zero, less or NaN: pass the decay of training"
        )

    def now(x: Tensor, labels: Tensor | None) -> Tensor:
        return field(x, labels, torch.full((len(x),), gamma, device=x.device, dtype=x.dtype))

    guided: Field = now
    if null_label is not None:
        guided = guide(now, guidance, null_label, interval=guidance_interval)
    whole = torch.ones(len(x), dtype=torch.bool, device=x.device)
    made, gradient_norm = whole.long() * 0, x.new_full((len(x),), torch.nan)
    with torch.no_grad():
        for gamma, stride in zip(levels.tolist(), strides.tolist(), strict=True):
            # float32, because bfloat16 would round the bounds of an interval
            path = torch.full((len(x),), gamma, device=x.device)
            gradient = checked(at_path(guided, path)(x, labels), x)
            made, gradient_norm = made + whole, norms(gradient).where(whole, gradient_norm)
            end = x - stride * gradient
            whole = whole & all_finite(end)
            x = end.where(per_sample(whole, x), x)
    return Solution(
        x,
        made,
        made.clone(),
        gradient_norm,
        tuple(Outcome.CONVERGED if good else Outcome.DIVERGED for good in whole.tolist()),
    )
