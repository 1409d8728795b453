"""Stops: when a sample has arrived. Each looks at a `Step` and answers sample by sample; `a | b`
ends at the first."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass

from torch import Tensor


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
    evaluations: Tensor
    """Evaluations of the field made so far."""
    converged: Tensor
    """True where the stop said that the sample has arrived; it leaves after this step."""
    diverged: Tensor
    """True where a value is no longer finite; the sample leaves after this step."""


class Stop(ABC):
    """When to end, sample by sample."""

    @abstractmethod
    def __call__(self, step: Step) -> Tensor:
        """True (A,) for the samples that have arrived."""

    def __or__(self, other: Stop) -> Stop:
        return _Either(self, other)


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

    def __call__(self, step: Step) -> Tensor:
        return step.gradient_norm < self.threshold


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

    def __call__(self, step: Step) -> Tensor:
        return step.path >= self.length * (1 - 1e-4)


@dataclass(frozen=True)
class _Either(Stop):
    first: Stop
    second: Stop

    def __call__(self, step: Step) -> Tensor:
        return self.first(step) | self.second(step)
