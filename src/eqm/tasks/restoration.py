"""Restoring images from measurements: inpainting, super-resolution, deblurring, colouring."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from eqm.checks import check_count, check_range, check_samples, check_seed
from eqm.corruption import Decay, corrupt
from eqm.descent import MaxNFE, Solution, State, StepResult, descend
from eqm.descent.rules.langevin import keys, normal
from eqm.descent.rules.rule import GradientOf
from eqm.field import Field
from eqm.sampling.labels import Labels
from eqm.sampling.model import check_time_invariant, describe
from eqm.sampling.settings import Sampling
from eqm.sampling.start import guided, starting_noise
from eqm.shapes import per_sample
from eqm.tasks.denoising import MAX_VALUE, mean_step, prepared
from eqm.tasks.operators import Operator, check_linear, for_rows, least_squares, measure


def restore(
    field: Field,
    measurement: Tensor,
    operator: Operator,
    labels: Labels = None,
    *,
    noise: float = 0.0,
    count: int = 1,
    seed: int = 0,
    steps: int = 25,
    decay: Decay | None = None,
    sampling: Sampling | None = None,
) -> Solution:
    """Likely images, or samples of any shape, whose measurement by `operator` is `measurement` (B, ...).

    The operator is any linear function that autograd can differentiate: `Inpaint`, `Downsample`,
    `Blur`, `Grey` of `eqm.tasks`, or your own. `noise` is the standard deviation of normal noise in
    the measurement; with 0, images fit it exactly, as far as the operator can be inverted.

    `.x` is (B * count, ...): the `count` samples of the first measurement, then of the next. Sample k
    uses seed `seed + k`. Samples differ where the measurement says little; their mean has a better
    PSNR. `labels` (B,), `decay` and the guidance of `sampling` are as in `denoise`. The cost is `steps`
    evaluations a sample. `Fit` is the rule; it computes in float32 or better.

    Raises ValueError for an operator that is not linear, a measurement of another shape or with
    values that no image gives, a field that does not say its shape, and noise-conditioned models.
    """
    check_count(count=count, steps=steps)
    check_time_invariant(field)
    check_range(0, math.inf, noise=noise)
    check_samples("(B, ...)", measurement=measurement)
    check_seed(len(measurement) * count, seed=seed)
    sampling, decay, labels = prepared(field, measurement, labels, sampling, decay)
    info = describe(field)
    shape = info.shape
    if shape is None:
        raise ValueError("restore needs a field with the .shape of one image: add that attribute")
    if not (len(measurement) == 0 or measurement.abs().max() <= MAX_VALUE):
        raise ValueError(
            f"measurement must be of images in -1..1, so within {MAX_VALUE:g}; got values from "
            f"{measurement.min():.3g} to {measurement.max():.3g}: rescale it"
        )
    exact = measurement.to(torch.promote_types(measurement.dtype, torch.float32))
    with torch.no_grad():
        check_linear(operator, tuple(shape), exact)
    rows = torch.arange(len(measurement), device=measurement.device).repeat_interleave(count)
    starts = starting_noise(shape, seeds=range(int(seed), int(seed) + len(rows))).to(measurement)
    return descend(
        guided(field, sampling, labels),
        starts,
        None if labels is None else labels[rows],
        rule=Fit(for_rows(operator, rows), exact[rows], decay, steps, noise),
        stop=MaxNFE(steps),
        max_steps=steps,
    )


@dataclass(frozen=True, eq=False)
class Fit:
    """A rule that reduces energy and misfit together, from noise, in `steps` even steps of gamma.

    At gamma the field predicts an image p, the mean of all images that x may come from. The smallest
    change that fits p to the measurement y = A image + noise is added. Then p is mixed with new noise
    xi for the next gamma':

        p = x - (1 - gamma) / c(gamma) * field(x)
        p <- p + A^T (A A^T + noise^2 / v)^-1 (y - A p),    v = (1 - gamma)^2 / (gamma^2 + (1 - gamma)^2)
        x <- gamma' p + (1 - gamma') xi

    v is the variance of the image given x, if its own variance is 1 (arXiv 2302.07121, 3.1). Keeping
    the old noise would be plain descent on the sum of both gradients; those images fit as well but
    look worse, because early details are never drawn again. xi depends only on the start and on the
    number of steps.

    All samples must start together, as in `descend`; sample k belongs to measurement k.
    """

    operator: Operator
    measurement: Tensor
    decay: Decay
    steps: int
    noise: float = 0.0

    def init(self, x: Tensor) -> State:
        return torch.arange(len(x), device=x.device), keys(x, 0)

    def step(self, gradient_of: GradientOf, x: Tensor, state: State, steps: Tensor) -> StepResult:
        rows, key = state
        gradient = gradient_of(x)
        level = steps / self.steps
        size = mean_step(level, self.decay)
        predicted = x.to(self.measurement) - per_sample(size, x) * gradient
        # all samples have made as many steps
        share = (1 - level[0]) ** 2
        ridge = self.noise**2 * float((level[0] ** 2 + share) / share)
        operator = for_rows(self.operator, rows)
        misfit = self.measurement[rows] - measure(operator, predicted)
        predicted = predicted + least_squares(operator, misfit, predicted, ridge=ridge)
        fresh = normal(key, steps, predicted)
        x = corrupt(predicted, fresh, (level + 1 / self.steps).clamp(max=1)).to(x)
        return StepResult(x, gradient, 1 / self.steps / self.decay(level), state)
