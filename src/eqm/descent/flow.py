"""Sampling of fields that are told the noise level: the one descent that needs a clock."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

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
    """The end, at gamma = 1, of x (B, ...) that follow a field which is told gamma.

    x_{k+1} = x_k - h / decay(gamma_k) * field(x_k, labels, gamma_k)  with  h = (1 - start) / steps
    and gamma_k = start + k h: Euler's method for d gamma / d s = decay(gamma), the path on which
    such a field is trained, with gamma for its clock. `decay` is the c(gamma) it was trained with,
    1 everywhere (flow matching) where none is given; it is asked at gamma_k, so never at 1, where
    field and decay vanish together. `start` is the gamma the starts are at, 0 for noise. The sign is
    that of every field here, minus the velocity. `guidance`, `null_label` and `guidance_interval` (of
    gamma, which is the path here) are those of `guide`. A sample that arrives at gamma = 1 counts as
    converged, one that stops being finite as diverged, by the step that it stopped at.

    Raises ValueError for `steps` below 1, `start` outside [0, 1), a decay that is not positive
    before gamma = 1, guidance without a null label, a field that changes the shape.
    """
    if steps < 1 or not 0 <= start < 1:
        raise ValueError(
            f"steps must be at least 1 and start in [0, 1); got steps {steps}, start {start}"
        )
    if guidance != 1 and null_label is None:
        raise ValueError(f"guidance {guidance:g} needs null_label, the label that means none")
    size, gamma = (1 - start) / steps, start
    levels = start + size * torch.arange(steps, dtype=torch.float64)  # gamma_k
    strides = size / (torch.ones_like(levels) if decay is None else decay(levels))
    if not (strides.isfinite() & (strides > 0)).all():
        raise ValueError(
            "decay must be positive before gamma = 1; it is not: pass that of training"
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
            # float32 whatever x is: bfloat16 would round the bounds of an interval
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
