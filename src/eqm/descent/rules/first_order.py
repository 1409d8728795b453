"""The rules of the paper: gradient descent, and Nesterov with its look-ahead."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from eqm.descent.checks import check_fraction, check_step_size
from eqm.descent.rules.rule import GradientOf, Schedule, State, StepResult, per_sample, size_of
from eqm.registry import register


@register("rule", "gradient-descent")
@dataclass(frozen=True)
class GradientDescent:
    """x_{k+1} = x_k - step_size * field(x_k).

    With the default decay it is stable for step sizes below 0.1, and a path (step size times steps) of
    0.4 to 0.5 leads from noise to data. The paper makes 250 steps of 0.003. It is also Euler's method
    for the flow of the field.
    """

    step_size: float | Schedule

    def __post_init__(self) -> None:
        check_step_size(self.step_size)

    def init(self, x: Tensor) -> State:
        return ()

    def step(self, gradient_of: GradientOf, x: Tensor, state: State, steps: Tensor) -> StepResult:
        size = size_of(self.step_size, steps)
        gradient = gradient_of(x)
        return StepResult(x - per_sample(size, x) * gradient, gradient, size, state)


@register("rule", "nesterov-lookahead")
@dataclass(frozen=True)
class NesterovLookahead:
    """Steps along the gradient at a look-ahead point (NAG, Algorithm 2 of arXiv 2510.02300).

    x_{k+1} = x_k - step_size * field(x_k + momentum * (x_k - x_{k-1}))

    The step starts from x_k, not from the look-ahead point, and no velocity builds up. So it differs
    from the textbook method, which is `Nesterov`. It reports the gradient at the look-ahead point.
    """

    step_size: float | Schedule
    momentum: float = 0.3

    def __post_init__(self) -> None:
        check_step_size(self.step_size)
        check_fraction(momentum=self.momentum)

    def init(self, x: Tensor) -> State:
        return (torch.zeros_like(x),)

    def step(self, gradient_of: GradientOf, x: Tensor, state: State, steps: Tensor) -> StepResult:
        (moved,) = state
        size = size_of(self.step_size, steps)
        gradient = gradient_of(x + self.momentum * moved)
        move = -per_sample(size, x) * gradient
        return StepResult(x + move, gradient, size, (move,))
