"""The flow of a field by an adaptive integrator, from torchdiffeq."""

from __future__ import annotations

import torch
from torch import Tensor

from eqm.checks import check_positive
from eqm.descent.driver import ActiveSamples, Outcome, Solution
from eqm.descent.rules.first_order import GradientDescent
from eqm.field import Field, at_path
from eqm.shapes import all_finite, norms


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
    try:
        from torchdiffeq import odeint
    except ImportError as error:
        raise ValueError(
            "dopri5 needs torchdiffeq, which is not installed: pip install 'eqm[ode]'"
        ) from error
    batch = ActiveSamples.start(
        x, labels, rule=GradientDescent(1.0), stop=None
    )  # checks the starts
    good = all_finite(x)
    batch, calls = batch[good], 0

    def slope(s: Tensor, point: Tensor) -> Tensor:
        nonlocal calls
        calls += 1
        here = at_path(field, s.expand(len(point)))
        return -here(point, batch.labels).to(point)

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
    count = torch.zeros(len(x), dtype=torch.int64, device=x.device)
    steps = count + (calls // 6) * good  # six evaluations a step
    return Solution(
        end,
        steps,
        count + calls * good,
        norms(gradient),
        tuple(Outcome.CONVERGED if ok else Outcome.DIVERGED for ok in good.tolist()),
    )
