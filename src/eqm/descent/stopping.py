"""Stops decide, sample by sample, when a descent ends. `a | b` ends when either does."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch
from torch import Tensor

from eqm.checks import check_count, check_part, check_positive, check_ratio
from eqm.descent.rules.rule import State
from eqm.registry import register


@dataclass(frozen=True)
class Step:
    """One step of the A samples that still descend; the first axis of every tensor is A."""

    index: Tensor
    """The rows of these samples in the starts."""
    x: Tensor
    """The samples after the step; a diverged one keeps its last finite value."""
    gradient: Tensor
    """The gradient of the step."""
    gradient_norm: Tensor
    """Its Euclidean norm over the whole sample."""
    path: Tensor
    """The path so far: the sum of the step sizes."""
    steps: Tensor
    """Steps so far."""
    nfe: Tensor
    """Function evaluations so far."""
    converged: Tensor
    """True where the sample met the stop; it leaves after this step."""
    diverged: Tensor
    """True where the sample became NaN or infinite; it leaves after this step."""


class Stop(ABC):
    """When to end each sample."""

    def init(self, x: Tensor) -> State:
        """The state of samples that start at x (A, ...): tensors with first axis A; by default none."""
        return ()

    @abstractmethod
    def __call__(self, step: Step, state: State) -> tuple[Tensor, State]:
        """True (A,) for the samples that end, and the new state of all."""

    def __or__(self, other: Stop) -> Stop:
        check_part("stop", other, "init", "__call__")
        return Either(self, other)


@register("stop", "gradient-norm")
@dataclass(frozen=True)
class GradientNorm(Stop):
    """Ends a sample when its gradient norm is below `threshold`: adaptive compute (section 4 of arXiv
    2510.02300).

    The norm is Euclidean over the whole sample and not divided by its size. The paper's threshold for
    4x32x32 latents is about 10.
    """

    threshold: float

    def __post_init__(self) -> None:
        check_positive(threshold=self.threshold)

    def __call__(self, step: Step, state: State) -> tuple[Tensor, State]:
        return step.gradient_norm < self.threshold, state


@register("stop", "relative-gradient-norm")
@dataclass(frozen=True)
class RelativeGradientNorm(Stop):
    """Ends a sample when its gradient norm is below `ratio` times its first gradient norm.

    From noise this quotient is c(gamma) / c(0), for samples of any size: with the default decay,
    `ratio` r ends at 1 - gamma = 0.2 r. If the start is already near the data, use `GradientNorm`.
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
    """Ends a sample when its gradient norm has not improved by the factor `ratio` for `patience` steps.

    Use it when no threshold is known. With the default decay the norm is constant up to gamma 0.8, so
    `patience` times the step size must be more than 0.2.
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
    """Ends a sample when its path, the sum of its step sizes, reaches `length` (within 1e-4 of it).

    With the default decay a path of about 0.4 reaches the data, with any step size. Flow matching needs
    exactly 1.
    """

    length: float

    def __post_init__(self) -> None:
        check_positive(length=self.length)

    def __call__(self, step: Step, state: State) -> tuple[Tensor, State]:
        return step.path >= self.length * (1 - 1e-4), state


@register("stop", "max-nfe")
@dataclass(frozen=True)
class MaxNFE(Stop):
    """Ends a sample when its next step would exceed `budget` function evaluations (NFE).

    Use it to compare rules at equal cost. Every sample makes at least one step.
    """

    budget: int

    def __post_init__(self) -> None:
        check_count("evaluation", budget=self.budget)

    def __call__(self, step: Step, state: State) -> tuple[Tensor, State]:
        return step.nfe * (step.steps + 1) > self.budget * step.steps, state


@dataclass(frozen=True)
class Either(Stop):
    """Ends a sample when one of two stops does: `first | second`."""

    first: Stop
    second: Stop

    def init(self, x: Tensor) -> State:
        return self.first.init(x), self.second.init(x)

    def __call__(self, step: Step, state: State) -> tuple[Tensor, State]:
        first, first_state = self.first(step, state[0])
        second, second_state = self.second(step, state[1])
        return first | second, (first_state, second_state)
