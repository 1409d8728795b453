"""Descent with noise of its own for each sample."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from eqm.descent.checks import check_step_size
from eqm.descent.rules.rule import GradientOf, Schedule, State, StepResult, per_sample, size_of
from eqm.registry import register


@register("rule", "langevin")
@dataclass(frozen=True)
class Langevin:
    """Descends with noise: the unadjusted Langevin algorithm (Roberts & Tweedie 1996).

    x_{k+1} = x_k - step_size * field(x_k) + sqrt(2 * step_size * temperature) * xi_k,  xi_k ~ N(0, I)

    In the long run samples of exp(-energy / temperature), up to an error of the order of the step
    size: on the bowl field(x) = x the variance is temperature / (1 - step_size / 2). Temperature 0
    is gradient descent. The gradient norm never comes to rest: stop by path length.

    The noise of a sample is a function of `seed`, the values of its start and its own number of
    steps: it does not depend on the batch, on when the sample joined, or on torch's random state.
    So two equal starts get equal noise; to run several chains from one point, give each a seed or
    start them a little apart.
    """

    step_size: float | Schedule
    temperature: float
    seed: int = 0

    def __post_init__(self) -> None:
        check_step_size(self.step_size)
        if not 0 <= self.temperature < float("inf"):
            raise ValueError(f"temperature must be 0 or a positive number; got {self.temperature}")
        if not 0 <= self.seed < 2**63:
            raise ValueError(f"seed must lie in [0, 2^63); got {self.seed}")

    def init(self, x: Tensor) -> State:
        return (keys(x, self.seed),)

    def step(self, gradient_of: GradientOf, x: Tensor, state: State, steps: Tensor) -> StepResult:
        (key,) = state
        size = size_of(self.step_size, steps)
        gradient = gradient_of(x)
        h = per_sample(size, x)
        noise = (2 * h * self.temperature) ** 0.5 * normal(key, steps, x)
        return StepResult(x - h * gradient + noise, gradient, size, state)


def keys(x: Tensor, seed: int) -> Tensor:
    """A 64-bit number for each sample of x (A, ...), (A,): a hash of its bits, and of the seed."""
    whole = {2: torch.int16, 4: torch.int32, 8: torch.int64}[x.element_size()]
    bits = x.detach().flatten(1).contiguous().view(whole).long()  # (A, D)
    place = _mix(torch.arange(bits.shape[1], device=x.device))
    return _mix(_mix(bits + place).sum(1) + _mix(torch.full((), seed, device=x.device)))


def normal(key: Tensor, steps: Tensor, x: Tensor) -> Tensor:
    """Standard normal noise like x (A, ...), a function of the row's key and steps, both (A,).

    Counter based (Salmon et al. 2011): the bits are splitmix64 at (key, steps, element), turned
    into numbers by Box & Muller (1958); the largest is 5.9.
    """
    place = torch.arange(1, math.prod(x.shape[1:]) + 1, device=x.device)
    bits = _mix(_mix(key + (steps + 1) * _GOLDEN)[:, None] + place * _GOLDEN)  # (A, D)
    radius = ((_shift(bits, 40).float() + 0.5) / 2**24).log().mul(-2).sqrt()
    angle = (bits & (2**24 - 1)).float() * (2 * math.pi / 2**24)
    return (radius * angle.cos()).view(x.shape).to(x)


# splitmix64 (Steele, Lea & Flood 2014). int64 wraps around as uint64 does; the constants are given
# as the int64 of the same bits.
_GOLDEN = 0x9E3779B97F4A7C15 - 2**64


def _mix(z: Tensor) -> Tensor:
    z = (z ^ _shift(z, 30)) * (0xBF58476D1CE4E5B9 - 2**64)
    z = (z ^ _shift(z, 27)) * (0x94D049BB133111EB - 2**64)
    return z ^ _shift(z, 31)


def _shift(z: Tensor, bits: int) -> Tensor:
    """Shifts zeros in from the left; int64's own shift copies the sign."""
    return (z >> bits) & ((1 << (64 - bits)) - 1)
