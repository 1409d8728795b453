"""Distributions of gamma in training: where on the path from noise to data the field learns most.

Gamma is drawn from its density p on 0..1, or drawn uniformly while each loss is weighted by p; both have the
same minimum. This module imports torch when it computes: configurations use it.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from eqm.checks import check_callable, check_positive, check_range, check_ratio, kind_of
from eqm.registry import make, register

if TYPE_CHECKING:
    import torch
    from torch import Tensor

NODES = 2**14 + 1
"""Points of the table of a density without a closed form."""
SMALLEST = 2.0**-25
"""Uniform numbers have 24 bits; 0 is taken as half of the least."""


class Distribution:
    """A distribution on 0..1: its density, which integrates to 1, and its quantile function.

    Both take and return tensors (B,), float64. Any other density is made one by `Tabulated`.
    """

    def density(self, gamma: Tensor) -> Tensor:
        """The density at gamma."""
        raise NotImplementedError

    def quantile(self, uniform: Tensor) -> Tensor:
        """The gamma below which a share `uniform` of the distribution lies."""
        raise NotImplementedError

    def draw(self, uniform: Tensor) -> tuple[Tensor, Tensor | float]:
        """From uniform numbers in [0, 1) (B,): gamma (B,), and the weight of each loss."""
        inside = _precise(uniform).clamp(SMALLEST, 1 - SMALLEST)
        return self.quantile(inside).to(uniform), 1.0


@register("gamma", "uniform")
@dataclass(frozen=True)
class Uniform(Distribution):
    """p = 1, as in the paper."""

    def density(self, gamma: Tensor) -> Tensor:
        return gamma * 0 + 1

    def quantile(self, uniform: Tensor) -> Tensor:
        return uniform

    def draw(self, uniform: Tensor) -> tuple[Tensor, Tensor | float]:
        return uniform, 1.0


@register("gamma", "power")
@dataclass(frozen=True)
class Power(Distribution):
    """gamma = u^exponent for uniform u: more noise for an exponent above 1, more data below 1."""

    exponent: float = 1.3

    def __post_init__(self) -> None:
        check_positive(exponent=self.exponent)

    def density(self, gamma: Tensor) -> Tensor:
        power = 1 / self.exponent
        return power * gamma.clamp(min=SMALLEST) ** (power - 1)

    def quantile(self, uniform: Tensor) -> Tensor:
        return uniform**self.exponent


@register("gamma", "logit-normal")
@dataclass(frozen=True)
class LogitNormal(Distribution):
    """log(gamma / (1 - gamma)) is normal: a positive `mean` is nearer to data (arXiv 2403.03206)."""

    mean: float = 0.0
    deviation: float = 1.0

    def __post_init__(self) -> None:
        check_range(-100, 100, mean=self.mean)
        check_positive(deviation=self.deviation)

    def density(self, gamma: Tensor) -> Tensor:
        inside = gamma.clamp(SMALLEST, 1 - SMALLEST)
        normal = (inside.logit() - self.mean) / self.deviation
        scale = self.deviation * math.sqrt(2 * math.pi) * inside * (1 - inside)
        return (-normal.square() / 2).exp() / scale

    def quantile(self, uniform: Tensor) -> Tensor:
        import torch

        return torch.sigmoid(self.mean + self.deviation * torch.special.ndtri(uniform))


class Tabulated(Distribution):
    """The distribution of any `density`, a function of gamma (Q,), which need not integrate to 1.

    It is 0 above `end`. Its table has NODES points between which the density is linear.

    Raises ValueError for a density that is negative or not finite somewhere on 0..`end`, is 0 everywhere,
    or does not integrate, such as one with a very narrow peak.
    """

    def __init__(self, density: Callable[[Tensor], Tensor], *, end: float = 1.0) -> None:
        import torch

        check_callable(distribution=density)
        check_ratio(end=end)
        gamma = torch.linspace(0, end, NODES, dtype=torch.float64)
        try:
            found: Any = density(gamma)
        except Exception as error:  # whatever their code raises
            raise ValueError(
                f"a density must be a function of gamma (Q,); it failed, with {type(error).__name__} "
                f"({str(error).strip().partition(chr(10))[0]})"
            ) from error
        if not isinstance(found, torch.Tensor) or found.shape != gamma.shape:
            raise ValueError(
                f"a density of gamma must return a tensor (Q,) for gamma (Q,); got {kind_of(found)} for "
                f"{NODES} gammas"
            )
        found = found.double()
        if not found.isfinite().all() or found.min() < 0:
            at = int((~found.isfinite() | (found < 0)).nonzero()[0])
            raise ValueError(
                "a density of gamma must be finite and at least 0 everywhere; got "
                f"{float(found[at]):g} at gamma {float(gamma[at]):g}"
            )
        steps = (found[1:] + found[:-1]) / 2 * (end / (NODES - 1))
        whole, coarse = float(steps.sum()), float(torch.trapezoid(found[::2], gamma[::2]))
        if not 0 < whole < math.inf or abs(whole - coarse) > 0.01 * whole:
            raise ValueError(
                "a density of gamma must integrate to a positive number; on two grids its integral is "
                f"{coarse:g} and {whole:g}"
            )
        self.end = end
        self._density = found / whole
        self._below = torch.cat([steps.new_zeros(1), steps.cumsum(0) / whole]).clamp(max=1)
        self._below[-1] = 1.0
        self._tables: dict[torch.device, tuple[Tensor, Tensor]] = {}

    def _on(self, device: torch.device) -> tuple[Tensor, Tensor]:
        """The table on a device, copied there once."""
        if device not in self._tables:
            self._tables[device] = self._density.to(device), self._below.to(device)
        return self._tables[device]

    def density(self, gamma: Tensor) -> Tensor:
        density, _ = self._on(gamma.device)
        place = (gamma.double() / self.end * (NODES - 1)).clamp(0, NODES - 1)
        left = place.long().clamp(max=NODES - 2)
        found = density[left].lerp(density[left + 1], place - left)
        return found.where(gamma <= self.end, 0.0)

    def quantile(self, uniform: Tensor) -> Tensor:
        import torch

        density, below = self._on(uniform.device)
        right = torch.searchsorted(below, uniform.double().contiguous(), right=True)
        left = (right - 1).clamp(0, NODES - 2)
        # Within a cell of width h the density is p + slope * t: solve p * t + slope * t^2 / 2 = rest.
        h = self.end / (NODES - 1)
        rest, p = (uniform - below[left]).clamp(min=0), density[left]
        slope = (density[left + 1] - p) / h
        root = (p.square() + 2 * slope * rest).clamp(min=0).sqrt()
        t = (2 * rest / (p + root).clamp(min=1e-300)).clamp(0, h)
        return left * h + t


@register("gamma", "inverse-decay")
class InverseDecay(Tabulated):
    """p proportional to 1 / c(gamma), up to gamma = 1 - floor, as c is 0 at data.

    With it, the target is that of an interpolant (Beckmann Transport Models, arXiv 2608.01692).
    """

    def __init__(self, decay: Callable[[Tensor], Tensor], *, floor: float = 0.01) -> None:
        check_range(1e-4, 0.999, floor=floor)
        super().__init__(lambda gamma: 1 / decay(gamma), end=1 - floor)


@dataclass(frozen=True)
class Weighted(Distribution):
    """Uniform gamma, and losses that are weighted by the density of `distribution`."""

    distribution: Distribution

    def density(self, gamma: Tensor) -> Tensor:
        return self.distribution.density(gamma)

    def quantile(self, uniform: Tensor) -> Tensor:
        return uniform

    def draw(self, uniform: Tensor) -> tuple[Tensor, Tensor | float]:
        return uniform, self.density(_precise(uniform)).to(uniform)


def distribution_of(name: str, *, decay: Any = None, options: Any = ()) -> Distribution:
    """The distribution registered as `name`, or of the density MODULE:NAME, with its settings `options`.

    `decay` is what `inverse-decay` inverts. A registered function of gamma is a density. Raises ValueError
    for unknown names and settings, and as `Tabulated` does.
    """
    return as_distribution(make("gamma", name, {"decay": decay}, options))


def as_distribution(given: Distribution | Callable[[Tensor], Tensor]) -> Distribution:
    """A distribution, or that of a density, a function of gamma. Raises ValueError as `Tabulated` does."""
    return given if isinstance(given, Distribution) else Tabulated(given)


def _precise(uniform: Tensor) -> Tensor:
    """The numbers in float64, on the CPU for a device that has none."""
    return (uniform.cpu() if uniform.device.type == "mps" else uniform).double()
