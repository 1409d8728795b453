"""Schedules: step sizes that depend on the number of steps."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from eqm.checks import check_count, check_decay, check_positive, check_ratio


@dataclass(frozen=True)
class CosineSteps:
    """Step sizes that fall like half a cosine and cover the path `length` in `steps` steps.

    size_k = length / steps * (1 + cos(pi (k + 1/2) / steps));  the last size repeats after `steps`

    The first step is twice the mean; the last ones are short, where the field is stiff. Stop with
    `PathLength(length)` or after `steps` steps.

    >>> CosineSteps(0.4, 4)(torch.arange(4))
    tensor([0.1924, 0.1383, 0.0617, 0.0076])
    """

    length: float
    steps: int

    def __post_init__(self) -> None:
        check_positive(length=self.length)
        check_count(steps=self.steps)

    def __call__(self, steps: Tensor) -> Tensor:
        turn = (steps.clamp(max=self.steps - 1).float() + 0.5) * (math.pi / self.steps)
        return self.length / self.steps * (1 + turn.cos())


@dataclass(frozen=True)
class EvenGamma:
    """Step sizes that advance gamma evenly from 0 to `last` in `steps` steps of gradient descent.

    size_k = d / decay(k d)  with d = last / steps;  the last size repeats after `steps`

    On the ideal path a step of size h moves gamma by h * decay(gamma). With the default decay and `last`
    1 the final step, 0.05, lands on the data. Use it with `GradientDescent`: rules with momentum or memory
    overshoot on the last steps. Stop after `steps` steps.

    Raises ValueError if the decay is not positive before `last`, and for settings out of range.

    >>> EvenGamma(lambda gamma: 2 * (1 - gamma), 4)(torch.arange(4))
    tensor([0.1250, 0.1667, 0.2500, 0.5000])
    """

    decay: Callable[[Tensor], Tensor]
    steps: int
    last: float = 1.0

    def __post_init__(self) -> None:
        check_count(steps=self.steps)
        check_ratio(last=self.last)
        check_decay(self.decay)
        if not (self.decay(self._gamma(torch.arange(self.steps))) > 0).all():
            raise ValueError("decay must be positive before `last`: choose a smaller `last`")

    def __call__(self, steps: Tensor) -> Tensor:
        return self.last / self.steps / self.decay(self._gamma(steps.clamp(max=self.steps - 1)))

    def _gamma(self, steps: Tensor) -> Tensor:
        return steps.float() * (self.last / self.steps)
