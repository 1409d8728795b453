"""Noisy images made clean, without knowing how noisy they are."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, get_args

import torch
from torch import Tensor
from torch.nn import functional

from eqm.corruption import Decay, decay_of
from eqm.descent import MaxNFE, Solution, State, StepResult, descend
from eqm.field import Field
from eqm.sampling.model import check_time_invariant, describe
from eqm.sampling.settings import Sampling
from eqm.sampling.start import guided
from eqm.shapes import per_sample

Aim = Literal["sample", "mmse"]
LARGEST = 12.0
"""No value of a noisy image is larger: noise of deviation 1 around -1..1 never is."""
LEVELS = 1000
"""Levels that `estimate_gamma` tells apart."""


def denoise(
    field: Field,
    x: Tensor,
    labels: Tensor | None = None,
    *,
    sigma: float | Tensor | None = None,
    aim: Aim = "sample",
    decay: Decay | None = None,
    sampling: Sampling | None = None,
) -> Solution:
    """Noisy images x (B, ...) made clean.

    x is gamma * image + (1 - gamma) * noise; gamma need not be known, nor be the same for all: the
    field has no noise level to be told (section 5 of arXiv 2510.02300). With `sigma`, one number or
    (B,), x is image + sigma * noise instead: divided by 1 + sigma it is the same mixture at
    gamma = 1 / (1 + sigma). `estimate_sigma` guesses it.

    `aim` chooses between the two ends that no method has at once (Blau & Michaeli 2018). "sample"
    descends to where an image settles: it looks real, and what the noise has hidden is made up.
    "mmse" is the mean of all images that x may have been, which no other estimate beats in PSNR, and
    is smooth where they differ. As the field is E[c(gamma) (noise - image) | x], that is one step of
    the right length,

        x - (1 - gamma) / c(gamma) * field(x)

    with gamma from `sigma`, or as `estimate_gamma` finds it from that same evaluation.

    Without `labels` a class-conditional model uses its null label. `decay` is that of the training,
    by default what the model says of it. `sampling`, by default that of the model, says how "sample"
    descends: it stops each image by its gradient where these settings say so, and else after a path
    for noise.

    Raises ValueError for values that no noisy image has, and for a sigma that is negative or not one
    an image.
    """
    if aim not in get_args(Aim):
        raise ValueError(f"aim must be one of {', '.join(get_args(Aim))}; got {aim!r}")
    check_time_invariant(field)
    gamma = None
    if sigma is not None:
        gamma = 1 / (1 + _deviations(sigma, x))
        x = per_sample(gamma, x) * x
    if not (len(x) == 0 or x.abs().max() <= LARGEST):
        raise ValueError(
            f"x must be images in -1..1 under noise, so within {LARGEST:g}; got values from "
            f"{x.min():.3g} to {x.max():.3g}: rescale the images, or pass the sigma of their noise"
        )
    sampling = sampling or Sampling.of(describe(field).metadata)
    field_there = guided(field, sampling, labels)
    if aim == "mmse":
        step = _ToMean(decay or decay_of(field), gamma)
        return descend(field_there, x, labels, rule=step, stop=MaxNFE(1))
    return descend(
        field_there,
        x,
        labels,
        rule=sampling.make_rule(),
        stop=sampling.make_stop(),
        max_steps=sampling.max_steps,
    )


def estimate_sigma(x: Tensor) -> Tensor:
    """The standard deviation (B,) of normal noise in images x (B, C, H, W), from their finest detail.

    Half the difference of the diagonals of each 2x2 block, a Haar coefficient, is mostly noise: the
    median of its size, divided by 0.6745, is robust against edges (Donoho & Johnstone 1994).

    Raises ValueError for images less than two pixels high or wide.

    >>> noise = torch.randn(1, 1, 256, 256, generator=torch.Generator().manual_seed(0))
    >>> round(estimate_sigma(0.3 * noise).item(), 2)
    0.3
    """
    if x.ndim != 4 or min(x.shape[-2:]) < 2:
        raise ValueError(
            f"x must be images (B, C, H, W) of at least 2x2 pixels; got {tuple(x.shape)}"
        )
    height, width = (size // 2 * 2 for size in x.shape[-2:])
    blocks = functional.pixel_unshuffle(x[..., :height, :width], 2).unflatten(1, (-1, 4))
    first, second, third, fourth = blocks.unbind(2)
    detail = (first - second - third + fourth) / 2
    return detail.abs().flatten(1).median(1).values / 0.6745


@torch.no_grad()
def estimate_gamma(
    field: Field, x: Tensor, labels: Tensor | None = None, *, decay: Decay | None = None
) -> Tensor:
    """The level gamma (B,) of x (B, ...) = gamma * image + (1 - gamma) * noise, as the field sees it.

    With d numbers an image, q the square norm of the clean one and f the field at x, in the mean

        |x|^2 = gamma^2 q + (1 - gamma)^2 d    and    <x, f> = c(gamma) ((1 - gamma) d - gamma q),

    and without q, gamma (d + <x, f> / c(gamma)) = d - |x|^2. Where c falls that may have two
    solutions, of which the size of f, about c(gamma) sqrt(1.5 d), tells the right one. The error is
    that of |noise|^2 = d, some hundredths for 28x28 pixels. `decay` as in `denoise`.
    """
    return _level(x, field(x, labels), decay or decay_of(field))


@dataclass(frozen=True)
class _ToMean:
    """One step to the mean of what x may have been; at level `gamma` (B,), or the one found."""

    decay: Decay
    gamma: Tensor | None

    def init(self, x: Tensor) -> State:
        return () if self.gamma is None else (self.gamma.to(x),)

    def step(self, gradient_of: Any, x: Tensor, state: State, steps: Tensor) -> StepResult:
        gradient = gradient_of(x)
        gamma = state[0] if state else _level(x, gradient, self.decay)
        size = reach(gamma, self.decay).to(x)
        return StepResult(x - per_sample(size, x) * gradient, gradient, size, state)


def reach(gamma: Tensor, decay: Decay) -> Tensor:
    """The step (1 - gamma) / c(gamma) that leads from level gamma to the mean of the images."""
    exact = torch.promote_types(gamma.dtype, torch.float32)  # bfloat16 has nothing next to 1
    gamma = gamma.to(exact).clamp(max=1 - 1 / LEVELS)  # the limit at the data, where both are 0
    return (1 - gamma) / decay(gamma)


def _level(x: Tensor, gradient: Tensor, decay: Decay) -> Tensor:
    levels = torch.arange(LEVELS, device=x.device, dtype=torch.float32) / LEVELS
    size = decay(levels)

    def mean_product(a: Tensor, b: Tensor) -> Tensor:
        return (a.float() * b.float()).flatten(1).mean(1, keepdim=True)

    mismatch = levels * (1 + mean_product(x, gradient) / size) - (1 - mean_product(x, x))
    longer = (mean_product(gradient, gradient) / (1.5 * size**2)).log() / 2
    # The second only chooses between solutions of the first.
    return levels[(mismatch**2 + 0.01 * longer**2).argmin(1)].to(x)


def _deviations(sigma: float | Tensor, x: Tensor) -> Tensor:
    values = torch.as_tensor(sigma, dtype=x.dtype, device=x.device)
    if values.ndim == 0:
        values = values.expand(len(x))
    if values.shape != (len(x),) or not ((values >= 0) & values.isfinite()).all():
        raise ValueError(
            f"sigma must be a standard deviation from 0, one number or one an image ({len(x)},); "
            f"got {sigma}"
        )
    return values
