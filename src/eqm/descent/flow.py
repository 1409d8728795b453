"""Integrators that are no rules: of noise-conditioned fields, and with steps that a batch shares."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from eqm.checks import (
    check_call,
    check_count,
    check_decay,
    check_fraction,
    check_positive,
    check_range,
)
from eqm.descent.driver import ActiveSamples, Outcome, Solution
from eqm.descent.rules.first_order import GradientDescent
from eqm.field import Field, at_path, gradient_at
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
    guidance_norm: float = 0.0,
) -> Solution:
    """The samples at gamma = 1 after `steps` Euler steps of a noise-conditioned field from x (B, ...).

    x_{k+1} = x_k - h / decay(gamma_k) * field(x_k, labels, gamma_k)
    with  h = (1 - start) / steps  and  gamma_k = start + k h

    `decay` is the c(gamma) of training, by default 1 (flow matching); it must be positive before
    gamma = 1. `start` is the gamma of x, 0 for noise. The sign is that of all fields here, minus the
    velocity. `guidance`, `null_label`, `guidance_interval` and `guidance_norm` are those of `guide`,
    with gamma as the path. Samples end as converged, or as diverged once they are not finite.

    Raises ValueError for `steps` below 1, `start` outside [0, 1), a decay that is not positive, guidance
    without a null label, and a field that returns another shape.
    """
    check_count(steps=steps)
    check_fraction(start=start)
    check_call(field, x, labels)
    check_range(-math.inf, math.inf, guidance=guidance)
    if decay is not None:
        check_decay(decay)
    x = x.detach()
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
        guided = guide(now, guidance, null_label, interval=guidance_interval, norm=guidance_norm)
    whole = torch.ones(len(x), dtype=torch.bool, device=x.device)
    made, gradient_norm = whole.long() * 0, x.new_full((len(x),), torch.nan)
    with torch.no_grad():
        for gamma, stride in zip(levels.tolist(), strides.tolist(), strict=True):
            # float32, because bfloat16 would round the bounds of an interval
            path = torch.full((len(x),), gamma, device=x.device)
            gradient = gradient_at(at_path(guided, path), x, labels)
            made, gradient_norm = made + whole, norms(gradient).where(whole, gradient_norm)
            end = x - stride * gradient
            whole = whole & all_finite(end)
            x = end.where(per_sample(whole, x), x)
    return Solution(x, made, made.clone(), gradient_norm, _outcomes(whole))


@torch.no_grad()
def dopri5(
    field: Field,
    x: Tensor,
    labels: Tensor | None = None,
    *,
    length: float,
    relative: float = 1e-3,
    absolute: float = 1e-4,
) -> Solution:
    """The flow dx/ds = -field(x) from each of x (B, ...) over a path of `length`: a reference solution.

    Dormand and Prince (1980), fifth order, with adaptive steps: the mean local error over the batch
    stays below `absolute` + `relative` * |x|. Samples share their steps, so they depend on each other a
    little; with `RungeKutta4` they do not. Starts that are not finite end as diverged, the others as
    converged.

    Needs torchdiffeq (`pip install 'eqm[ode]'`). Raises ValueError for wrong starts or labels, settings
    that are not positive, and a flow that needs too small steps.
    """
    check_positive(length=length, relative=relative, absolute=absolute)
    check_call(field, x, labels)
    try:
        from torchdiffeq import odeint
    except ImportError as error:
        raise ValueError(
            "dopri5 needs torchdiffeq, which is not installed: pip install 'eqm[ode]'"
        ) from error
    rule = GradientDescent(1.0)  # not used, but needed to check the starts
    batch = ActiveSamples.start(x, labels, rule=rule, stop=None)
    good = all_finite(x)
    batch, calls = batch[good], 0

    def slope(s: Tensor, point: Tensor) -> Tensor:
        nonlocal calls
        calls += 1
        here = at_path(field, s.expand(len(point)))
        return -gradient_at(here, point, batch.labels)

    end, gradient = x.detach().clone(), torch.full_like(x, torch.nan)
    if len(batch.index):
        span = torch.tensor([0.0, length], dtype=batch.path.dtype, device=x.device)
        try:
            end[good] = odeint(slope, batch.x, span, rtol=relative, atol=absolute)[-1]
        except AssertionError as error:  # torchdiffeq: the step became too small
            raise ValueError(
                "dopri5 needs too small steps; the field may jump or be infinite: "
                "check it, or raise `relative` and `absolute`"
            ) from error
        gradient[good] = -slope(span[1], end[good])
    nfe = calls * good.long()
    return Solution(end, nfe // 6, nfe, norms(gradient), _outcomes(good))  # six evaluations a step


def _outcomes(finite: Tensor) -> tuple[Outcome, ...]:
    return tuple(Outcome.CONVERGED if ok else Outcome.DIVERGED for ok in finite.tolist())
