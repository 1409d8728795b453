"""Denoising, with an unknown amount of noise."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, get_args

import torch
from torch import Tensor
from torch.nn import functional

from eqm.checks import check_call, check_choice, check_decay, check_samples, kind_of, warn_of_range
from eqm.corruption import Decay, decay_of
from eqm.descent import MaxNFE, Solution, State, StepResult, descend
from eqm.field import Field, gradient_at
from eqm.sampling.labels import Labels
from eqm.sampling.model import check_time_invariant
from eqm.sampling.settings import Sampling
from eqm.sampling.start import guided, labels_of, sampling_of
from eqm.shapes import per_sample

Aim = Literal["sample", "mmse"]
MAX_VALUE = 12.0  # no value of an image in -1..1 under normal noise of deviation 1 is larger
LEVELS = 1000  # the number of gammas that `estimate_gamma` chooses from


def denoise(
    field: Field,
    x: Tensor,
    labels: Labels = None,
    *,
    sigma: float | Tensor | None = None,
    aim: Aim = "sample",
    decay: Decay | None = None,
    sampling: Sampling | None = None,
) -> Solution:
    """Denoised images (B, ...) of noisy images x (B, ...).

    x is gamma * image + (1 - gamma) * noise. The gammas need not be known and may differ between
    images, because the field does not depend on them (section 5 of arXiv 2510.02300). With `sigma`,
    one number or (B,), x is image + sigma * noise: divided by 1 + sigma, that is the same mixture at
    gamma = 1 / (1 + sigma). `estimate_sigma` estimates it.

    `aim` is one of two goals that exclude each other (Blau & Michaeli 2018). "sample" descends to a
    likely image: it looks real, and details that the noise hides are invented. "mmse" is the mean of
    all images that x may have been: the best PSNR, and smooth where those images differ. As the
    field is E[c(gamma) (noise - image) | x], the mean is one step away,

        x - (1 - gamma) / c(gamma) * field(x)

    with gamma from `sigma`, or from `estimate_gamma` on the same evaluation.

    Without `labels` a class-conditional model uses its null label. `decay` defaults to that of the
    model's training. `sampling`, by default that of the model, sets the descent of "sample".

    Raises ValueError for values that no noisy image has, a sigma that is negative or not one an
    image, and noise-conditioned models.
    """
    check_choice(get_args(Aim), aim=aim)
    check_time_invariant(field)
    sampling, decay, labels = prepared(field, x, labels, sampling, decay)
    warn_of_range(x)
    gamma = None
    if sigma is not None:
        gamma = 1 / (1 + _deviations(sigma, x))
        x = per_sample(gamma, x) * x
    if not (len(x) == 0 or x.abs().max() <= MAX_VALUE):
        raise ValueError(
            f"x must be noisy images in -1..1, so within {MAX_VALUE:g}; got values from "
            f"{x.min():.3g} to {x.max():.3g}: rescale the images, or pass the sigma of their noise"
        )
    if aim == "mmse":
        step = _PosteriorMean(decay, gamma)
        return descend(guided(field, sampling, labels), x, labels, rule=step, stop=MaxNFE(1))
    return descend(
        guided(field, sampling, labels),
        x,
        labels,
        rule=sampling.make_rule(),
        stop=sampling.make_stop(),
        max_steps=sampling.max_steps,
    )


def estimate_sigma(x: Tensor) -> Tensor:
    """The standard deviation (B,) of normal noise in images x (B, C, H, W), videos (B, C, T, H, W) or
    signals (B, C, L).

    Half the difference of the diagonals of a 2x2 block (a Haar coefficient) is mostly noise, and so is the
    difference of two neighbours in a signal, divided by sqrt(2). The median of its absolute value, divided
    by 0.6745, is robust against edges (Donoho & Johnstone 1994).

    Raises ValueError for images smaller than 2x2 pixels, signals shorter than 2, and points.

    >>> noise = torch.randn(1, 1, 256, 256, generator=torch.Generator().manual_seed(0))
    >>> round(estimate_sigma(0.3 * noise).item(), 2)
    0.3
    """
    check_samples("(B, C, H, W)", x=x)
    if x.ndim == 5:  # all frames together
        x = x.flatten(1, 2)
    if x.ndim not in (3, 4) or min(x.shape[2:]) < 2:
        raise ValueError(
            "x must be images (B, C, H, W) of at least 2x2 pixels, or signals (B, C, L) of at least 2 values; "
            f"got {tuple(x.shape)}"
        )
    if not len(x):
        return x.new_zeros(0)
    if x.ndim == 3:
        even = x.shape[2] // 2 * 2
        detail = (x[..., 0:even:2] - x[..., 1:even:2]) / 2**0.5
        return detail.abs().flatten(1).median(1).values / 0.6745
    height, width = (size // 2 * 2 for size in x.shape[-2:])
    blocks = functional.pixel_unshuffle(x[..., :height, :width], 2).unflatten(1, (x.shape[1], 4))
    first, second, third, fourth = blocks.unbind(2)
    detail = (first - second - third + fourth) / 2
    return detail.abs().flatten(1).median(1).values / 0.6745


@torch.no_grad()
def estimate_gamma(
    field: Field, x: Tensor, labels: Labels = None, *, decay: Decay | None = None
) -> Tensor:
    """The gamma (B,) of x (B, ...) = gamma * image + (1 - gamma) * noise, from one evaluation.

    With d numbers an image, q the squared norm of the clean image and f the field at x, on average

        |x|^2 = gamma^2 q + (1 - gamma)^2 d    and    <x, f> = c(gamma) ((1 - gamma) d - gamma q).

    Eliminating q gives gamma (d + <x, f> / c(gamma)) = d - |x|^2. Where c falls this may have two
    solutions; the norm of f, about c(gamma) sqrt(1.5 d), selects one. The error, some hundredths for
    28x28 pixels, is that of |noise|^2 = d. `decay` is as in `denoise`.

    Raises ValueError as `denoise` does.
    """
    _, decay, chosen = prepared(field, x, labels, None, decay)
    return _gamma(x, gradient_at(field, x, chosen), decay)


def prepared(
    field: Field, x: Tensor, labels: Labels, sampling: Sampling | None, decay: Decay | None
) -> tuple[Sampling, Decay, Tensor | None]:
    """The settings, the decay and the labels (B,) for samples x (B, ...), with defaults of the field.

    Raises ValueError for what are no samples, labels, settings or decay of this field.
    """
    check_samples(x=x)
    chosen = labels_of(field, labels, x)
    check_call(field, x, chosen)
    if decay is not None:
        check_decay(decay)
    return sampling_of(field, sampling), decay or decay_of(field), chosen


@dataclass(frozen=True)
class _PosteriorMean:
    """One step to the mean of the images that x may have been; `gamma` (B,) is estimated if None."""

    decay: Decay
    gamma: Tensor | None

    def init(self, x: Tensor) -> State:
        return () if self.gamma is None else (self.gamma.to(x),)

    def step(self, gradient_of: Any, x: Tensor, state: State, steps: Tensor) -> StepResult:
        gradient = gradient_of(x)
        gamma = state[0] if state else _gamma(x, gradient, self.decay)
        size = mean_step(gamma, self.decay).to(x)
        return StepResult(x - per_sample(size, x) * gradient, gradient, size, state)


def mean_step(gamma: Tensor, decay: Decay) -> Tensor:
    """The step size (1 - gamma) / c(gamma) that leads from x at gamma to the mean of its images."""
    exact = torch.promote_types(gamma.dtype, torch.float32)  # bfloat16 is too coarse near 1
    gamma = gamma.to(exact).clamp(max=1 - 1 / LEVELS)  # at gamma 1 it would be 0 / 0
    return (1 - gamma) / decay(gamma)


def _gamma(x: Tensor, gradient: Tensor, decay: Decay) -> Tensor:
    levels = torch.arange(LEVELS, device=x.device, dtype=torch.float32) / LEVELS
    size = decay(levels)

    def mean_product(a: Tensor, b: Tensor) -> Tensor:
        return (a.float() * b.float()).flatten(1).mean(1, keepdim=True)

    error = levels * (1 + mean_product(x, gradient) / size) - (1 - mean_product(x, x))
    norm_error = (mean_product(gradient, gradient) / (1.5 * size**2)).log() / 2
    # The second only chooses between solutions of the first.
    return levels[(error**2 + 0.01 * norm_error**2).argmin(1)].to(x)


def _deviations(sigma: float | Tensor, x: Tensor) -> Tensor:
    try:
        values = torch.as_tensor(sigma, dtype=x.dtype, device=x.device)
    except (TypeError, ValueError, RuntimeError, OverflowError):
        values = torch.full((1, 1), torch.nan)
    if values.ndim == 0:
        values = values.expand(len(x))
    if values.shape != (len(x),) or not ((values >= 0) & values.isfinite()).all():
        raise ValueError(
            f"sigma must be a standard deviation of 0 or more, one number or one an image, "
            f"({len(x)},); got {kind_of(sigma)}"
        )
    return values
