"""What every rule is: the protocol, what a step comes to, and the step sizes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple, Protocol

from torch import Tensor

from eqm import shapes

State = tuple[Any, ...]
"""What is remembered between steps: tensors (or tuples of them) that lead with the batch axis, so that rows can be
dropped and filled in. A row's state is its rows of these, whatever the others are doing."""

GradientOf = Callable[[Tensor], Tensor]


class StepResult(NamedTuple):
    """What one step of a rule comes to, for A samples."""

    x: Tensor
    """Where the samples are now, (A, ...)."""
    gradient: Tensor
    """The gradient the step was taken along, (A, ...), as the field gave it; the first, where a
    rule asks for several."""
    path: float | Tensor
    """The path covered, in units of step size: one number for all, or (A,)."""
    state: State


class Rule(Protocol):
    """How to move. A rule is given the gradient *function*: it may look where it is not.

    A rule never mixes samples, and never presumes that they have made equally many steps.
    """

    def init(self, x: Tensor) -> State:
        """The state before the first step from x (A, ...)."""
        ...

    def step(self, gradient_of: GradientOf, x: Tensor, state: State, steps: Tensor) -> StepResult:
        """One step from x (A, ...) of samples that have made `steps` (A,) before."""
        ...


class Schedule(Protocol):
    """Step sizes that change on the way: what may stand where a rule takes a `step_size`."""

    def __call__(self, steps: Tensor) -> Tensor:
        """The sizes (A,) of the next step of samples that have made `steps` (A,) so far."""
        ...


def size_of(step_size: float | Schedule, steps: Tensor) -> float | Tensor:
    """The size of the next step, a number for all or (A,)."""
    return step_size(steps) if callable(step_size) else step_size


def per_sample(values: float | Tensor, x: Tensor) -> float | Tensor:
    """Values (A,) in the type of x (A, ...) and shaped (A, 1, ...), to multiply it with; a number
    stays one."""
    return shapes.per_sample(values.to(x), x) if isinstance(values, Tensor) else values
