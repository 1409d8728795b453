"""Rules that adapt their steps to past gradients."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from eqm import shapes
from eqm.checks import check_count, check_fraction, check_positive
from eqm.descent.rules.rule import GradientOf, State, StepResult, StepSizeRule, per_sample
from eqm.registry import register
from eqm.shapes import norms


@register("rule", "adam")
@dataclass(frozen=True)
class Adam(StepSizeRule):
    """Adam (Algorithm 1 of arXiv 1412.6980): steps of about `step_size` in every element.

    m_k = beta1 * m_{k-1} + (1 - beta1) * g_k,  v_k = beta2 * v_{k-1} + (1 - beta2) * g_k^2
    x_{k+1} = x_k - step_size * (m_k / (1 - beta1^k)) / (sqrt(v_k / (1 - beta2^k)) + epsilon)

    k is the sample's own number of steps. The path counts step sizes, so from noise to data it is
    several times that of gradient descent. The means are kept in float32 or better, because half
    precision loses squares and `epsilon`.
    """

    beta1: float = 0.9
    beta2: float = 0.999
    epsilon: float = 1e-8

    def __post_init__(self) -> None:
        super().__post_init__()
        check_fraction(beta1=self.beta1, beta2=self.beta2)
        check_positive(epsilon=self.epsilon)

    def init(self, x: Tensor) -> State:
        return torch.zeros_like(_exact(x)), torch.zeros_like(_exact(x))

    def step(self, gradient_of: GradientOf, x: Tensor, state: State, steps: Tensor) -> StepResult:
        mean, square = state
        size, h = self.sizes(steps, x)
        gradient, count = gradient_of(x), steps + 1
        exact = _exact(gradient)
        mean = torch.lerp(exact, mean, self.beta1)
        square = torch.lerp(exact.square(), square, self.beta2)
        scale = _unbiased(square, self.beta2, count).sqrt() + self.epsilon
        direction = _unbiased(mean, self.beta1, count) / scale
        return StepResult(x - h * direction.to(x), gradient, size, (mean, square))


@register("rule", "rmsprop")
@dataclass(frozen=True)
class RMSProp(StepSizeRule):
    """RMSProp (Tieleman & Hinton 2012) with bias correction: `Adam` without the mean of gradients.

    v_k = beta2 * v_{k-1} + (1 - beta2) * g_k^2
    x_{k+1} = x_k - step_size * g_k / (sqrt(v_k / (1 - beta2^k)) + epsilon)

    Path and precision are as in `Adam`. torch's RMSprop has no bias correction.
    """

    beta2: float = 0.99
    epsilon: float = 1e-8

    def __post_init__(self) -> None:
        super().__post_init__()
        check_fraction(beta2=self.beta2)
        check_positive(epsilon=self.epsilon)

    def init(self, x: Tensor) -> State:
        return (torch.zeros_like(_exact(x)),)

    def step(self, gradient_of: GradientOf, x: Tensor, state: State, steps: Tensor) -> StepResult:
        (square,) = state
        size, h = self.sizes(steps, x)
        gradient, count = gradient_of(x), steps + 1
        exact = _exact(gradient)
        square = torch.lerp(exact.square(), square, self.beta2)
        scale = _unbiased(square, self.beta2, count).sqrt() + self.epsilon
        return StepResult(x - h * (exact / scale).to(x), gradient, size, (square,))


@register("rule", "barzilai-borwein")
@dataclass(frozen=True)
class BarzilaiBorwein:
    """Gradient descent with step size 1 / curvature, for each sample (Barzilai & Borwein 1988, the longer
    of their two sizes).

    size_k = <s, s> / <s, y>  with s = x_k - x_{k-1}, y = field(x_k) - field(x_{k-1})

    limited to `min_step` and `max_step`; the first step is `first_step`. Where the curvature <s, y> is
    not positive, as far from the data, the step is `max_step`. Near the data, with the default decay, the
    curvature is 20 and the step 0.05.
    """

    first_step: float = 0.01
    min_step: float = 0.001
    max_step: float = 0.05

    def __post_init__(self) -> None:
        check_positive(first_step=self.first_step, min_step=self.min_step, max_step=self.max_step)
        if not self.min_step <= self.first_step <= self.max_step:
            raise ValueError(
                "step sizes must be in the order min_step <= first_step <= max_step; "
                f"got {self.min_step}, {self.first_step}, {self.max_step}"
            )

    def init(self, x: Tensor) -> State:
        return x, torch.zeros_like(x)

    def step(self, gradient_of: GradientOf, x: Tensor, state: State, steps: Tensor) -> StepResult:
        previous, previous_gradient = state
        gradient = gradient_of(x)
        moved = _exact(x - previous).flatten(1)
        curvature = (moved * (gradient - previous_gradient).flatten(1)).sum(1)
        size = moved.square().sum(1) / curvature
        size = size.where(curvature > 0, self.max_step).clamp(self.min_step, self.max_step)
        size = size.where(steps > 0, self.first_step)
        return StepResult(x - per_sample(size, x) * gradient, gradient, size, (x, gradient))


@register("rule", "anderson")
@dataclass(frozen=True)
class Anderson(StepSizeRule):
    """Anderson acceleration (Anderson 1965; Walker & Ni 2011), for each sample: gradient descent from the
    combination of the last points with the smallest gradient.

    w = argmin ||field(x_k) - F w||^2 + ridge * ||F||^2 ||w||^2
    x_{k+1} = x_k - X w - step_size * (field(x_k) - F w)

    The columns of X and F are the last `depth` differences of points and of gradients. Near the data it
    converges like a Krylov method. Elsewhere it is restricted: a sample forgets its history where the
    curvature along the last step is not positive, makes a step of gradient descent where the combined
    step leads uphill, and makes no step longer than `max_ratio` times that of gradient descent. The path
    counts the step size with which gradient descent would have moved as far.
    """

    depth: int = 3
    ridge: float = 1e-4
    max_ratio: float = 3.0

    def __post_init__(self) -> None:
        super().__post_init__()
        check_positive(ridge=self.ridge, max_ratio=self.max_ratio)
        check_count("earlier step", depth=self.depth)
        if self.depth > 1000:
            raise ValueError(f"depth must be at most 1000 earlier steps; got {self.depth}")

    def init(self, x: Tensor) -> State:
        history = x.new_zeros(len(x), self.depth, math.prod(x.shape[1:]))
        return x, torch.zeros_like(x), history, history

    def step(self, gradient_of: GradientOf, x: Tensor, state: State, steps: Tensor) -> StepResult:
        previous, previous_gradient, moves, changes = state
        _, h = self.sizes(steps, x)
        gradient = gradient_of(x)
        moved, change = (x - previous).flatten(1), (gradient - previous_gradient).flatten(1)
        curved = (steps > 0) & ((_exact(moved) * change).sum(1) > 0)
        moves = _remember(moves, moved, curved)  # (A, depth, D)
        changes = _remember(changes, change, curved)
        weight = self._weights(changes, gradient.flatten(1))  # (A, 1, depth)
        plain = h * gradient
        step = plain + (weight @ moves).view_as(x)
        step = step - h * (weight @ changes).view_as(x)
        downhill = (step * gradient).flatten(1).sum(1) > 0
        step = step.where(shapes.per_sample(downhill, x), plain)
        # shorten the step, keep its direction
        slope = norms(gradient)
        stretch = norms(step) / norms(plain)
        step = step * per_sample((self.max_ratio / stretch).nan_to_num(1.0).clamp(max=1), x)
        path = (norms(step) / slope).where(slope > 0, 0.0)
        return StepResult(x - step, gradient, path, (x, gradient, moves, changes))

    def _weights(self, changes: Tensor, gradient: Tensor) -> Tensor:
        # steps not made yet are columns of zeros and get the weight 0
        changes = _exact(changes)
        gram = changes @ changes.mT  # (A, depth, depth)
        total = gram.diagonal(dim1=1, dim2=2).sum(1) * self.ridge + torch.finfo(gram.dtype).tiny
        ridge = torch.diag_embed(total[:, None].expand(-1, self.depth))
        target = changes @ _exact(gradient)[:, :, None]
        # solve_ex does not raise for a singular matrix of one sample
        weight = torch.linalg.solve_ex(gram + ridge, target)[0]
        return weight.mT.to(gradient.dtype)


def _unbiased(mean: Tensor, beta: float, steps: Tensor) -> Tensor:
    """A running mean after `steps` (A,) values, divided by 1 - beta^steps."""
    return mean / per_sample(-torch.expm1(steps.to(mean.dtype) * math.log(beta or 1e-300)), mean)


def _exact(x: Tensor) -> Tensor:
    """x in float32 or better, for squares and sums of products."""
    return x.to(torch.promote_types(x.dtype, torch.float32))


def _remember(history: Tensor, newest: Tensor, kept: Tensor) -> Tensor:
    """The history (A, depth, D) with the newest entry first; zeros where `kept` (A,) is False."""
    history = torch.cat([newest[:, None], history[:, :-1]], dim=1)
    return history * per_sample(kept, history)
