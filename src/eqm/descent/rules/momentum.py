"""Rules with a velocity."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from eqm.descent.checks import check_fraction, check_step_size
from eqm.descent.rules.rule import GradientOf, Schedule, State, StepResult, per_sample, size_of
from eqm.registry import register


@dataclass(frozen=True)
class _Momentum:
    step_size: float | Schedule
    momentum: float = 0.3

    def __post_init__(self) -> None:
        check_step_size(self.step_size)
        check_fraction(momentum=self.momentum)

    def init(self, x: Tensor) -> State:
        return (torch.zeros_like(x),)


@register("rule", "nesterov")
class Nesterov(_Momentum):
    """The textbook Nesterov method (Nesterov 1983; in the form of Eq. 3 and 4 of Sutskever et al. 2013).

    v_{k+1} = momentum * v_k - step_size * field(x_k + momentum * v_k),  x_{k+1} = x_k + v_{k+1}

    Where the gradient is constant it moves 1 / (1 - momentum) times as fast as gradient descent. The
    path counts step sizes, so the path to the data is 1 - momentum times as long. It reports the gradient
    at the look-ahead point.
    """

    def step(self, gradient_of: GradientOf, x: Tensor, state: State, steps: Tensor) -> StepResult:
        (velocity,) = state
        size = size_of(self.step_size, steps)
        gradient = gradient_of(x + self.momentum * velocity)
        velocity = self.momentum * velocity - per_sample(size, x) * gradient
        return StepResult(x + velocity, gradient, size, (velocity,))


@register("rule", "heavy-ball")
class HeavyBall(_Momentum):
    """Gradient descent with a velocity (Polyak 1964).

    v_{k+1} = momentum * v_k - step_size * field(x_k),  x_{k+1} = x_k + v_{k+1}

    The path is as short as with `Nesterov`, but it overshoots sooner. The same as
    `torch.optim.SGD(momentum=...)`.
    """

    def step(self, gradient_of: GradientOf, x: Tensor, state: State, steps: Tensor) -> StepResult:
        (velocity,) = state
        size = size_of(self.step_size, steps)
        gradient = gradient_of(x)
        velocity = self.momentum * velocity - per_sample(size, x) * gradient
        return StepResult(x + velocity, gradient, size, (velocity,))
