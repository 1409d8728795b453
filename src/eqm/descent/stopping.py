"""Stops: when a sample has arrived. Each looks at a `Step` and answers sample by sample; `a | b`
ends at the first."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch
from torch import Tensor

from eqm.descent.checks import check_count, check_ratio
from eqm.descent.rules import State
from eqm.registry import register


@dataclass(frozen=True)
class Step:
    """One step of the A samples that were still on their way; every tensor leads with the axis
    A."""

    index: Tensor
    """Which samples these are: their rows in the starts."""
    x: Tensor
    """Where they are after the step; a sample that diverged stays at its last finite place."""
    gradient: Tensor
    """The gradient they moved along."""
    gradient_norm: Tensor
    """Its Euclidean norm over the whole sample."""
    path: Tensor
    """The path covered so far: the sum of the step sizes."""
    steps: Tensor
    """Updates made so far."""
    nfe: Tensor
    """Evaluations of the field made so far."""
    converged: Tensor
    """True where the stop said that the sample has arrived; it leaves after this step."""
    diverged: Tensor
    """True where a value is no longer finite; the sample leaves after this step."""


class Stop(ABC):
    """When to end, sample by sample."""

    def init(self, x: Tensor) -> State:
        """What to remember of samples that start at x (A, ...), tensors that lead with A; by
        default nothing."""
        return ()

    @abstractmethod
    def __call__(self, step: Step, state: State) -> tuple[Tensor, State]:
        """True (A,) for the samples that have arrived, and what to remember of all of them."""

    def __or__(self, other: Stop) -> Stop:
        return _Either(self, other)


@register("stop", "gradient-norm")
@dataclass(frozen=True)
class GradientNorm(Stop):
    """Ends a sample once the norm of its gradient falls below `threshold`: adaptive compute
    (section 4, arXiv 2510.02300).

    The norm is Euclidean over the whole sample, not divided by its size; the gradient is the one
    the rule moved along. The paper's threshold for 4x32x32 latents is about 10.
    """

    threshold: float

    def __post_init__(self) -> None:
        if not self.threshold > 0:
            raise ValueError(f"threshold must be a positive gradient norm; got {self.threshold}")

    def __call__(self, step: Step, state: State) -> tuple[Tensor, State]:
        return step.gradient_norm < self.threshold, state


@register("stop", "relative-gradient-norm")
@dataclass(frozen=True)
class RelativeGradientNorm(Stop):
    """Ends a sample once the norm of its gradient falls below `ratio` times that of its first.

    From noise the quotient is c(gamma) / c(0), whatever the size of the samples: with the default
    decay, `ratio` r ends at 1 - gamma = 0.2 r. A start that is already close has a small first
    gradient: end such samples by `GradientNorm`.
    """

    ratio: float

    def __post_init__(self) -> None:
        check_ratio(ratio=self.ratio)

    def init(self, x: Tensor) -> State:
        return (x.new_zeros(len(x)),)

    def __call__(self, step: Step, state: State) -> tuple[Tensor, State]:
        first = state[0].where(step.steps > 1, step.gradient_norm)
        return step.gradient_norm < self.ratio * first, (first,)


@register("stop", "stagnation")
@dataclass(frozen=True)
class Stagnation(Stop):
    """Ends a sample whose gradient norm has not fallen below `ratio` times its best for `patience`
    steps in a row.

    For searches without a known threshold. On the default landscape the norm is level until gamma
    0.8, the first half of the path: there `patience` times the step size must be more than 0.2.
    """

    patience: int
    ratio: float = 0.99

    def __post_init__(self) -> None:
        check_count("step", patience=self.patience)
        check_ratio(ratio=self.ratio)

    def init(self, x: Tensor) -> State:
        return x.new_full((len(x),), torch.inf), torch.zeros(len(x), device=x.device)

    def __call__(self, step: Step, state: State) -> tuple[Tensor, State]:
        best, waited = state
        better = step.gradient_norm < self.ratio * best
        best = step.gradient_norm.where(better, best)
        waited = (waited + 1).masked_fill(better, 0)
        return waited >= self.patience, (best, waited)


@register("stop", "path-length")
@dataclass(frozen=True)
class PathLength(Stop):
    """Ends a sample once its path, the sum of its step sizes, reaches `length` (to one part in ten
    thousand).

    With the default decay about 0.4 reaches the data whatever the step size; a field with a
    constant decay of scale 1, as flow matching learns, takes exactly 1.
    """

    length: float

    def __post_init__(self) -> None:
        if not self.length > 0:
            raise ValueError(f"length must be a positive path, such as 0.5; got {self.length}")

    def __call__(self, step: Step, state: State) -> tuple[Tensor, State]:
        return step.path >= self.length * (1 - 1e-4), state


@register("stop", "max-nfe")
@dataclass(frozen=True)
class MaxNFE(Stop):
    """Ends a sample before a further step would take it past `budget` evaluations of the field.

    For comparisons of rules at equal cost, some of which evaluate several times a step. Every
    sample makes its first step, whatever that costs.
    """

    budget: int

    def __post_init__(self) -> None:
        check_count("evaluation", budget=self.budget)

    def __call__(self, step: Step, state: State) -> tuple[Tensor, State]:
        return step.nfe * (step.steps + 1) > self.budget * step.steps, state


@dataclass(frozen=True)
class _Either(Stop):
    first: Stop
    second: Stop

    def init(self, x: Tensor) -> State:
        return self.first.init(x), self.second.init(x)

    def __call__(self, step: Step, state: State) -> tuple[Tensor, State]:
        first, first_state = self.first(step, state[0])
        second, second_state = self.second(step, state[1])
        return first | second, (first_state, second_state)
