"""The flow of a field by an integrator that chooses its own steps, from torchdiffeq."""

from __future__ import annotations

import torch
from torch import Tensor

from eqm.descent.checks import check_positive
from eqm.descent.driver import ActiveSamples, Outcome, Solution
from eqm.descent.rules import GradientDescent
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
    """Where the flow dx/ds = -field(x) leads each of x (B, ...) on a path of `length`.

    The method of Dormand and Prince (1980), fifth order, with steps chosen so that the local error
    stays below `absolute` + `relative` * |x|, in the mean over the whole batch: unlike with the
    rules, samples share their steps and their evaluations, so the last digits of one depend on the
    others. For reference solutions; `RungeKutta4` has the samples independent. Starts that are not
    finite end as diverged, the others as converged.

    Needs torchdiffeq (`pip install 'eqm[ode]'`). Raises ValueError for starts or labels that do not
    fit, settings that are not positive, and a flow that no step is small enough for.
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
        except AssertionError as error:  # how torchdiffeq says that the step became too small
            raise ValueError(
                "the flow could not be followed: the field is not finite or has jumps; "
                "raise `relative` and `absolute`, or check it"
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
