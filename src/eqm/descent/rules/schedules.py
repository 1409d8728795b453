"""Schedules: step sizes that change on the way, each a function of the steps a sample has made."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from eqm.descent.checks import check_count


@dataclass(frozen=True)
class CosineSteps:
    """Sizes that fall along half a cosine and cover the path `length` in `steps` steps.

    size_k = length / steps * (1 + cos(pi (k + 1/2) / steps));  after `steps` the last one stays

    Long steps first, short ones at the end, where the landscape is stiff: the first is twice the
    mean. End it with `PathLength(length)` or after `steps` steps.

    >>> CosineSteps(0.4, 4)(torch.arange(4))
    tensor([0.1924, 0.1383, 0.0617, 0.0076])
    """

    length: float
    steps: int

    def __post_init__(self) -> None:
        if not 0 < self.length < math.inf:
            raise ValueError(f"length must be a positive path, such as 0.4; got {self.length}")
        check_count(steps=self.steps)

    def __call__(self, steps: Tensor) -> Tensor:
        turn = (steps.clamp(max=self.steps - 1).float() + 0.5) * (math.pi / self.steps)
        return self.length / self.steps * (1 + turn.cos())


@dataclass(frozen=True)
class EvenGamma:
    """Sizes with which gradient descent on the ideal path advances gamma evenly, from 0 to `last`
    in `steps` steps.

    size_k = d / decay(k d)  with d = last / steps;  after `steps` the last one stays

    On that path d gamma / d s = c(gamma), so a step of size h moves gamma by h * c(gamma). Short
    steps on the slope, longer ones where it levels out: for the default decay and `last` 1 the
    final one is 0.05, the step that lands on the data. Made for gradient descent: rules that look
    ahead or back overshoot on the long last steps. End it after `steps` steps.

    Raises ValueError where the decay is not positive before `last`.

    >>> EvenGamma(lambda gamma: 2 * (1 - gamma), 4)(torch.arange(4))
    tensor([0.1250, 0.1667, 0.2500, 0.5000])
    """

    decay: Callable[[Tensor], Tensor]
    steps: int
    last: float = 1.0

    def __post_init__(self) -> None:
        check_count(steps=self.steps)
        if not 0 < self.last <= 1:
            raise ValueError(f"last, the gamma to end at, must lie in (0, 1]; got {self.last}")
        if not (self.decay(self._gamma(torch.arange(self.steps))) > 0).all():
            raise ValueError("decay must be positive before `last`: end at a smaller gamma")

    def __call__(self, steps: Tensor) -> Tensor:
        return self.last / self.steps / self.decay(self._gamma(steps.clamp(max=self.steps - 1)))

    def _gamma(self, steps: Tensor) -> Tensor:
        return steps.float() * (self.last / self.steps)
