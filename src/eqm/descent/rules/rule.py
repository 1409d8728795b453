"""The protocol of rules, the result of a step, and step size schedules."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

from torch import Tensor

from eqm import shapes
from eqm.checks import check_step_size

State = tuple[Any, ...]
"""The memory of a rule between steps: tensors, or tuples of them, whose first axis is the batch. So rows
can be dropped and added."""

GradientOf = Callable[[Tensor], Tensor]


class StepResult(NamedTuple):
    """The result of one step for A samples."""

    x: Tensor
    """The samples after the step, (A, ...)."""
    gradient: Tensor
    """The gradient of the step, (A, ...); the first one if the rule evaluates several."""
    path: float | Tensor
    """The step size that counts for the path: one number for all, or (A,)."""
    state: State


class Rule(Protocol):
    """How to make one step. A rule gets the gradient function, so it can evaluate other points than x.

    It must treat each sample on its own, and samples may have made different numbers of steps.
    """

    def init(self, x: Tensor) -> State:
        """The state before the first step from x (A, ...)."""
        ...

    def step(self, gradient_of: GradientOf, x: Tensor, state: State, steps: Tensor) -> StepResult:
        """One step from x (A, ...), for samples that have made `steps` (A,) steps before."""
        ...


class Schedule(Protocol):
    """A step size that depends on the number of steps; rules accept it as `step_size`."""

    def __call__(self, steps: Tensor) -> Tensor:
        """The next step sizes (A,) of samples that have made `steps` (A,) steps."""
        ...


@dataclass(frozen=True)
class StepSizeRule:
    """What rules with a step size share."""

    step_size: float | Schedule

    def __post_init__(self) -> None:
        check_step_size(self.step_size)

    def init(self, x: Tensor) -> State:
        """No memory, unless a rule says otherwise."""
        return ()

    def sizes(self, steps: Tensor, x: Tensor) -> tuple[float | Tensor, float | Tensor]:
        """The next step size, a number for all or (A,); and the same, to broadcast with x (A, ...)."""
        size = self.step_size(steps) if callable(self.step_size) else self.step_size
        return size, per_sample(size, x)


def per_sample(values: float | Tensor, x: Tensor) -> float | Tensor:
    """Values (A,) with the dtype of x (A, ...), reshaped to (A, 1, ...); a number stays a number."""
    return shapes.per_sample(values.to(x), x) if isinstance(values, Tensor) else values
