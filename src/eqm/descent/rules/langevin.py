"""Langevin dynamics: descent with noise."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from eqm.checks import check_range, check_seed
from eqm.descent.rules.rule import GradientOf, State, StepResult, StepSizeRule
from eqm.registry import register


@register("rule", "langevin")
@dataclass(frozen=True)
class Langevin(StepSizeRule):
    """The unadjusted Langevin algorithm (Roberts & Tweedie 1996).

    x_{k+1} = x_k - step_size * field(x_k) + sqrt(2 * step_size * temperature) * xi_k,  xi_k ~ N(0, I)

    In the long run it samples exp(-energy / temperature), with an error of the order of the step size:
    for field(x) = x the variance is temperature / (1 - step_size / 2). With temperature 0 it is gradient
    descent. The gradient norm does not converge: stop by path length.

    The noise of a sample depends on `seed`, the values of its start and its number of steps. It does
    not depend on the batch or on torch's random state. Equal starts get equal noise: for several chains
    from one point use several seeds.
    """

    temperature: float
    seed: int = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        check_range(0, math.inf, temperature=self.temperature)
        check_seed(seed=self.seed)
        if self.seed < 0:
            raise ValueError(f"seed must lie in [0, 2^63); got {self.seed}")

    def init(self, x: Tensor) -> State:
        return (keys(x, self.seed),)

    def step(self, gradient_of: GradientOf, x: Tensor, state: State, steps: Tensor) -> StepResult:
        (key,) = state
        size, h = self.sizes(steps, x)
        gradient = gradient_of(x)
        noise = (2 * h * self.temperature) ** 0.5 * normal(key, steps, x)
        return StepResult(x - h * gradient + noise, gradient, size, state)


def keys(x: Tensor, seed: int) -> Tensor:
    """A 64-bit hash of each sample of x (A, ...) and the seed, (A,)."""
    whole = {2: torch.int16, 4: torch.int32, 8: torch.int64}[x.element_size()]
    bits = x.detach().flatten(1).contiguous().view(whole).long()  # (A, D)
    place = _mix(torch.arange(bits.shape[1], device=x.device))
    return _mix(_mix(bits + place).sum(1) + _mix(torch.full((), seed, device=x.device)))


def normal(key: Tensor, steps: Tensor, x: Tensor) -> Tensor:
    """Standard normal noise like x (A, ...), a function of `key` (A,) and `steps` (A,).

    Counter based (Salmon et al. 2011): splitmix64 at (key, steps, element) and the Box-Muller transform
    (1958). The largest value is 5.9.
    """
    place = torch.arange(1, math.prod(x.shape[1:]) + 1, device=x.device)
    bits = _mix(_mix(key + (steps + 1) * _GOLDEN)[:, None] + place * _GOLDEN)  # (A, D)
    radius = ((_shift(bits, 40).float() + 0.5) / 2**24).log().mul(-2).sqrt()
    angle = (bits & (2**24 - 1)).float() * (2 * math.pi / 2**24)
    return (radius * angle.cos()).view(x.shape).to(x)


# splitmix64 (Steele, Lea & Flood 2014) in int64, which overflows as uint64 does
_GOLDEN = 0x9E3779B97F4A7C15 - 2**64


def _mix(z: Tensor) -> Tensor:
    z = (z ^ _shift(z, 30)) * (0xBF58476D1CE4E5B9 - 2**64)
    z = (z ^ _shift(z, 27)) * (0x94D049BB133111EB - 2**64)
    return z ^ _shift(z, 31)


def _shift(z: Tensor, bits: int) -> Tensor:
    """A logical shift to the right; the shift of int64 copies the sign."""
    return (z >> bits) & ((1 << (64 - bits)) - 1)
