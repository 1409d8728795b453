"""The path from noise to data, and the decays c(gamma): the gradient magnitude on it.

gamma runs from 0 (pure noise) to 1 (clean data). This module imports no torch: configurations use it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from eqm.checks import as_levels, check_alike, check_fraction, check_gamma, check_positive
from eqm.registry import make, register
from eqm.shapes import per_sample

if TYPE_CHECKING:
    from torch import Tensor


def corrupt(data: Tensor, noise: Tensor, gamma: Tensor) -> Tensor:
    """Points between noise and data, `gamma * data + (1 - gamma) * noise`, (B, ...).

    `data` and `noise` have shape (B, ...), `gamma` (B,). Section 3 of arXiv 2510.02300.

    Raises ValueError for what are no floating-point tensors, and if the shapes do not match.

    >>> import torch
    >>> corrupt(torch.ones(2, 2), torch.zeros(2, 2), torch.tensor([0.0, 0.75]))
    tensor([[0.0000, 0.0000],
            [0.7500, 0.7500]])
    """
    check_alike(data=data, noise=noise)
    check_gamma(gamma, data)
    gamma = per_sample(gamma.to(data.dtype), data)  # (B, 1, ...)
    return gamma * data + (1 - gamma) * noise


class Decay(Protocol):
    """A decay returns the gradient magnitude c(gamma), which is not negative.

    If c(1) = 0, data are stationary points.
    """

    def __call__(self, gamma: Tensor) -> Tensor: ...


@register("decay", "linear")
@dataclass(frozen=True)
class LinearDecay:
    """c(gamma) = scale * (1 - gamma)."""

    scale: float = 1.0

    def __post_init__(self) -> None:
        check_positive(scale=self.scale)

    def __call__(self, gamma: Tensor) -> Tensor:
        return self.scale * (1 - as_levels(gamma))


@register("decay", "truncated")
@dataclass(frozen=True)
class TruncatedDecay:
    """c(gamma) = scale up to gamma = `start`, then linear to 0 at gamma = 1.

    The default, and the best in the paper. `start` is the paper's a, `scale` its lambda.
    """

    start: float = 0.8
    scale: float = 4.0

    def __post_init__(self) -> None:
        check_positive(scale=self.scale)
        check_fraction(start=self.start)

    def __call__(self, gamma: Tensor) -> Tensor:
        return self.scale * ((1 - as_levels(gamma)) / (1 - self.start)).clamp(max=1)


@register("decay", "piecewise")
@dataclass(frozen=True)
class PiecewiseDecay:
    """c(gamma) = scale times two lines: from `initial` at 0 to 1 at `start`, then to 0 at gamma = 1.

    `initial` is the paper's b, `start` its a. With `initial` 1 it is `TruncatedDecay`.
    """

    start: float = 0.8
    initial: float = 1.4
    scale: float = 1.0

    def __post_init__(self) -> None:
        check_positive(scale=self.scale, initial=self.initial, start=self.start)
        check_fraction(start=self.start)

    def __call__(self, gamma: Tensor) -> Tensor:
        gamma = as_levels(gamma)
        before = self.initial - (self.initial - 1) / self.start * gamma
        after = (1 - gamma) / (1 - self.start)
        return self.scale * before.where(gamma <= self.start, after)


@register("decay", "constant")
@dataclass(frozen=True)
class ConstantDecay:
    """c(gamma) = scale everywhere: flow matching.

    Data are not stationary points, so descents must stop by path length."""

    scale: float = 1.0

    def __post_init__(self) -> None:
        check_positive(scale=self.scale)

    def __call__(self, gamma: Tensor) -> Tensor:
        gamma = as_levels(gamma)
        return gamma.new_full(gamma.shape, self.scale)


def decay_of(field: Any) -> Decay:
    """The decay that a model was trained with, from its metadata.

    Without metadata: TruncatedDecay, or ConstantDecay if the network is noise-conditioned. Raises
    ValueError for a decay that is not registered.
    """
    training = (getattr(field, "metadata", None) or {}).get("training") or {}
    stored = {key.removeprefix("objective."): value for key, value in training.items()}
    if "decay" in stored:
        settings = {key: stored[key] for key in ("start", "initial", "scale") if key in stored}
        decay: Decay = make("decay", stored["decay"], settings, stored.get("decay_options", ()))
        return decay
    conditioned = getattr(getattr(field, "config", None), "noise_conditioning", False)
    return ConstantDecay() if conditioned else TruncatedDecay()
