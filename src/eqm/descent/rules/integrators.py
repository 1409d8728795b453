"""Integrators of the flow dx/ds = -field(x), where s is the path: every ODE sampler is a rule."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from eqm.checks import check_choice
from eqm.descent.rules.first_order import GradientDescent
from eqm.descent.rules.rule import GradientOf, State, StepResult, StepSizeRule, per_sample
from eqm.registry import register

Euler = register("rule", "euler")(GradientDescent)
"""x_{k+1} = x_k - step_size * field(x_k): another name of `GradientDescent`."""


@register("rule", "heun")
class Heun(StepSizeRule):
    """Heun's method, the explicit trapezoidal rule: second order, two evaluations a step.

    x_{k+1} = x_k - step_size * (g + field(x_k - step_size * g)) / 2  with  g = field(x_k)

    As in Algorithm 1 of arXiv 2206.00364. Stable for the same step sizes as Euler. A step across the
    corner of a truncated decay loses the second order.
    """

    def step(self, gradient_of: GradientOf, x: Tensor, state: State, steps: Tensor) -> StepResult:
        size, h = self.sizes(steps, x)
        gradient = gradient_of(x)
        slope = (gradient + gradient_of(x - h * gradient)) / 2
        return StepResult(x - h * slope, gradient, size, state)


@register("rule", "runge-kutta-4")
class RungeKutta4(StepSizeRule):
    """The classical Runge-Kutta method (Kutta 1901): fourth order, four evaluations a step.

    x_{k+1} = x_k - step_size * (g_1 + 2 g_2 + 2 g_3 + g_4) / 6,  g_1 = field(x_k),
    g_2 and g_3 after half a step, g_4 after a whole step, each along the gradient before it

    Use it for reference solutions. Stable for step sizes below 2.78 / stiffness, 0.139 with the default
    decay.
    """

    def step(self, gradient_of: GradientOf, x: Tensor, state: State, steps: Tensor) -> StepResult:
        size, h = self.sizes(steps, x)
        first = gradient_of(x)
        second = gradient_of(x - h / 2 * first)
        third = gradient_of(x - h / 2 * second)
        fourth = gradient_of(x - h * third)
        slope = (first + 2 * second + 2 * third + fourth) / 6
        return StepResult(x - h * slope, first, size, state)


@register("rule", "adams-bashforth")
@dataclass(frozen=True)
class AdamsBashforth(StepSizeRule):
    """The Adams-Bashforth method of `order` 2 or 3: one evaluation a step.

    x_{k+1} = x_k - h_k * (g_k + h_k/2 * d_k + (h_k^2/3 + h_k h_{k-1}/2) * e_k)
    d_k = (g_k - g_{k-1}) / h_{k-1},  e_k = (d_k - d_{k-1}) / (h_{k-1} + h_{k-2})

    with e_k = 0 for order 2: the form for variable steps (section III.5 of Hairer, Nørsett & Wanner
    1993). With a constant step size it is the usual (3 g_k - g_{k-1}) / 2 and
    (23 g_k - 16 g_{k-1} + 5 g_{k-2}) / 12. A sample starts with a step of Euler's method, then one of
    order 2, so the error of order 3 also falls with the square of the step size, but is smaller. Stable
    step sizes are half of Euler's for order 2 and a quarter for order 3: 0.05 and 0.027 with the default
    decay.
    """

    order: Literal[2, 3] = 2

    def __post_init__(self) -> None:
        super().__post_init__()
        check_choice((2, 3), order=self.order)

    def init(self, x: Tensor) -> State:
        return torch.zeros_like(x), torch.zeros_like(x), x.new_ones(len(x), 2)

    def step(self, gradient_of: GradientOf, x: Tensor, state: State, steps: Tensor) -> StepResult:
        previous, previous_slope, sizes = state
        size, h = self.sizes(steps, x)
        before, earlier = (per_sample(part, x) for part in sizes.unbind(1))
        gradient = gradient_of(x)
        slope = (gradient - previous) / before * per_sample(steps > 0, x)
        direction = gradient + h / 2 * slope
        if self.order == 3:
            bend = (slope - previous_slope) / (before + earlier) * per_sample(steps > 1, x)
            direction = direction + (h * h / 3 + h * before / 2) * bend
        sizes = torch.stack([torch.zeros_like(sizes[:, 0]) + size, sizes[:, 0]], dim=1)
        return StepResult(x - h * direction, gradient, size, (gradient, slope, sizes))
