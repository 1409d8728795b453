"""Rules: how one step moves the samples. Each is a frozen dataclass of its settings; what it
remembers is its state."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple, Protocol

from torch import Tensor

State = tuple[Tensor, ...]
"""What a rule remembers between steps: tensors that lead with the batch axis, so that rows can be
dropped."""


class Move(NamedTuple):
    """What one step of a rule comes to, for A samples."""

    x: Tensor
    """Where the samples are now, (A, ...)."""
    gradient: Tensor
    """The gradient the step was taken along, (A, ...)."""
    path: float | Tensor
    """The path covered, in units of step size: one number for all, or (A,)."""
    state: State


class Rule(Protocol):
    """How to move. A rule is given the gradient *function*: it may look where it is not."""

    def init(self, x: Tensor) -> State:
        """The state before the first step from x (A, ...)."""
        ...

    def step(self, gradient_of: Callable[[Tensor], Tensor], x: Tensor, state: State) -> Move:
        """One step from x (A, ...)."""
        ...


@dataclass(frozen=True)
class GradientDescent:
    """x_{k+1} = x_k - step_size * field(x_k).

    On the paper's default landscape it is stable for step sizes below 0.1, and a path (step size
    times steps) of about 0.4 to 0.5 leads from noise to data; the paper takes 250 steps of 0.003.
    Also Euler's method for the flow of the field.
    """

    step_size: float

    def __post_init__(self) -> None:
        _check_step_size(self.step_size)

    def init(self, x: Tensor) -> State:
        return ()

    def step(self, gradient_of: Callable[[Tensor], Tensor], x: Tensor, state: State) -> Move:
        gradient = gradient_of(x)
        return Move(x - self.step_size * gradient, gradient, self.step_size, ())


@dataclass(frozen=True)
class NesterovLookahead:
    """Descends along the gradient found one momentum step ahead (Algorithm 2 of arXiv 2510.02300).

    x_{k+1} = x_k - step_size * field(x_k + momentum * (x_k - x_{k-1}))

    It steps from x_k, not from the look-ahead point, and no velocity builds up: it is not textbook
    Nesterov. The gradient it reports is the one ahead.
    """

    step_size: float
    momentum: float = 0.3

    def __post_init__(self) -> None:
        _check_step_size(self.step_size)
        if not 0 <= self.momentum < 1:
            raise ValueError(f"momentum must lie in [0, 1); got {self.momentum}")

    def init(self, x: Tensor) -> State:
        return (x,)

    def step(self, gradient_of: Callable[[Tensor], Tensor], x: Tensor, state: State) -> Move:
        (previous,) = state
        gradient = gradient_of(x + self.momentum * (x - previous))
        return Move(x - self.step_size * gradient, gradient, self.step_size, (x,))


def _check_step_size(step_size: float) -> None:
    if not 0 < step_size < float("inf"):
        raise ValueError(f"step_size must be a positive number, such as 0.01; got {step_size}")
