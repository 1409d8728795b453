"""Trajectories: the samples at chosen moments of a descent, and the energy there."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice
from numbers import Real
from typing import Literal

import torch
from torch import Tensor

from eqm.checks import check_call, check_choice, check_count, check_row, kind_of
from eqm.descent.driver import iterate
from eqm.descent.rules.rule import Rule
from eqm.descent.stopping import Stop
from eqm.field import Field, at_path, gradient_at
from eqm.shapes import norms


@dataclass(frozen=True)
class Trajectory:
    """B samples at T moments of their descent."""

    x: Tensor
    """The samples, (T, B, ...)."""
    steps: Tensor
    """Their steps so far, (T, B)."""
    path: Tensor
    """Their path so far, the sum of step sizes, (T, B)."""
    diverged: Tensor
    """True (B,) for samples that became NaN or infinite; they keep their last finite value."""

    def __len__(self) -> int:
        return len(self.x)


@dataclass(frozen=True)
class TrajectoryMeasures:
    """Gradient norm, work and energy at the T moments of a trajectory of B samples."""

    gradient_norm: Tensor
    """The gradient norm at the samples, (T, B)."""
    work: Tensor
    """The line integral of field . dx from the first moment, (T, B), by the trapezoidal rule. If the
    field is the gradient of an energy, it is the change of that energy."""
    energy: Tensor | None
    """The energy, (T, B), if the field has one."""


def record_trajectory(
    field: Field,
    x: Tensor,
    labels: Tensor | None = None,
    *,
    rule: Rule,
    at: Sequence[float],
    by: Literal["steps", "path"] = "steps",
    stop: Stop | None = None,
    max_steps: int = 1000,
) -> Trajectory:
    """The samples at the first step that reaches each of `at`: numbers of steps or lengths of path.

    0 is the start. A sample that ended keeps its last value at all later moments. The descent ends when
    all samples have reached the last moment, or after `max_steps`.

    Raises ValueError as `descend` does, and unless `at` rises from 0 or more.

    >>> from eqm.descent import GradientDescent
    >>> halve = GradientDescent(0.5)
    >>> record_trajectory(lambda x, y: x, torch.ones(1, 1), rule=halve, at=[0, 1, 3]).x.flatten()
    tensor([1.0000, 0.5000, 0.1250])
    """
    check_choice(("steps", "path"), by=by)
    check_count(max_steps=max_steps)
    check_call(field, x, labels)
    check_row(at=at)
    moments = list(at)
    numbers = all(isinstance(moment, Real) for moment in moments)
    if not moments or not numbers or moments[0] < 0 or moments != sorted(set(moments)):
        raise ValueError(
            f"at must be rising numbers, from 0 or more, such as range(0, 20); got {kind_of(at)}"
        )
    marks = torch.tensor(moments, dtype=torch.float64)
    if by == "path":
        marks = marks * (1 - 1e-4)  # as PathLength
    every = iterate(field, x, labels, rule=rule, stop=stop)
    order = torch.arange(len(marks), device=x.device)[:, None]
    frames = x.detach().repeat(len(marks), *[1] * x.ndim)  # (T, B, ...)
    steps = torch.zeros(len(marks), len(x), dtype=torch.int64, device=x.device)
    exact = torch.promote_types(x.dtype, torch.float32)
    path = torch.zeros(len(marks), len(x), dtype=exact, device=x.device)
    reached = torch.zeros(len(x), dtype=torch.int64, device=x.device) + int((marks <= 0).sum())
    diverged = torch.zeros_like(reached, dtype=torch.bool)
    for step in islice(every, max_steps):
        rows = step.index
        diverged[rows] = step.diverged
        # Write all moments that are not reached yet: the step that reaches one writes it last, and
        # moments that are never reached keep the end of the sample.
        open_ = order >= reached[rows]  # (T, A)
        wide = open_.view(*open_.shape, *[1] * (x.ndim - 1))
        frames[:, rows] = step.x.where(wide, frames[:, rows])
        steps[:, rows] = step.steps.where(open_, steps[:, rows])
        path[:, rows] = step.path.to(path).where(open_, path[:, rows])
        clock = (step.steps if by == "steps" else step.path).cpu().double()
        reached[rows] = torch.searchsorted(marks, clock, right=True).to(x.device)
        if (reached[rows] == len(marks)).all():
            break
    return Trajectory(frames, steps, path, diverged)


def check_trajectory(trajectory: object) -> None:
    """Raises ValueError for what is no trajectory of `record_trajectory`."""
    if not isinstance(trajectory, Trajectory) or not len(trajectory):
        raise ValueError(f"trajectory must come from record_trajectory; got {kind_of(trajectory)}")


@torch.no_grad()
def measure_trajectory(
    field: Field, trajectory: Trajectory, labels: Tensor | None = None
) -> TrajectoryMeasures:
    """Gradient norm, work and energy (if the field has one) at every moment of a trajectory.

    Costs one evaluation of the field for each moment. The error of the work falls with the square of the
    distance between moments.

    Raises ValueError for what is no field or trajectory, and labels that are not (B,).
    """
    check_trajectory(trajectory)
    check_call(field, trajectory.x[0], labels)
    both = getattr(field, "energy_and_gradient", None)
    slopes, energies, work = [], [], [trajectory.path.new_zeros(trajectory.x.shape[1])]
    before = previous = None
    for x, path in zip(trajectory.x, trajectory.path, strict=True):
        if both is None:
            gradient = gradient_at(at_path(field, path), x, labels)
        else:
            energy, gradient = both(x.clone(), labels)
            energies.append(energy)
        if before is not None and previous is not None:
            done = ((gradient + previous) / 2 * (x - before)).flatten(1).sum(1)
            work.append(work[-1] + done.to(work[-1]))
        slopes.append(norms(gradient))
        before, previous = x, gradient
    return TrajectoryMeasures(
        torch.stack(slopes), torch.stack(work), torch.stack(energies) if energies else None
    )
