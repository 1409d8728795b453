"""First-order rules: gradient descent, with or without momentum."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from eqm.checks import check_fraction
from eqm.descent.rules.rule import GradientOf, State, StepResult, StepSizeRule
from eqm.registry import register


@register("rule", "gradient-descent")
class GradientDescent(StepSizeRule):
    """x_{k+1} = x_k - step_size * field(x_k).

    With the default decay it is stable for step sizes below 0.1, and a path (step size times steps) of
    0.4 to 0.5 leads from noise to data. The paper makes 250 steps of 0.003. It is also Euler's method
    for the flow of the field.
    """

    def step(self, gradient_of: GradientOf, x: Tensor, state: State, steps: Tensor) -> StepResult:
        size, h = self.sizes(steps, x)
        gradient = gradient_of(x)
        return StepResult(x - h * gradient, gradient, size, state)


@dataclass(frozen=True)
class _Momentum(StepSizeRule):
    momentum: float = 0.3

    def __post_init__(self) -> None:
        super().__post_init__()
        check_fraction(momentum=self.momentum)

    def init(self, x: Tensor) -> State:
        return (torch.zeros_like(x),)


@register("rule", "nesterov-lookahead")
class NesterovLookahead(_Momentum):
    """Steps along the gradient at a look-ahead point (NAG, Algorithm 2 of arXiv 2510.02300).

    x_{k+1} = x_k - step_size * field(x_k + momentum * (x_k - x_{k-1}))

    The step starts from x_k, not from the look-ahead point, and no velocity builds up. So it differs
    from the textbook method, which is `Nesterov`. It reports the gradient at the look-ahead point.
    """

    def step(self, gradient_of: GradientOf, x: Tensor, state: State, steps: Tensor) -> StepResult:
        (moved,) = state
        size, h = self.sizes(steps, x)
        gradient = gradient_of(x + self.momentum * moved)
        move = -h * gradient
        return StepResult(x + move, gradient, size, (move,))


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
        size, h = self.sizes(steps, x)
        gradient = gradient_of(x + self.momentum * velocity)
        velocity = self.momentum * velocity - h * gradient
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
        size, h = self.sizes(steps, x)
        gradient = gradient_of(x)
        velocity = self.momentum * velocity - h * gradient
        return StepResult(x + velocity, gradient, size, (velocity,))
