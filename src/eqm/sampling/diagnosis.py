"""What went wrong in sampling, in sentences."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from eqm.corruption import Decay
from eqm.descent import (
    GradientDescent,
    Outcome,
    PathLength,
    Solution,
    descend,
    stability_limit,
    stiffness,
)
from eqm.field import Field
from eqm.sampling.model import Model, describe
from eqm.sampling.settings import Sampling
from eqm.sampling.start import prepare
from eqm.shapes import norms

LOOK = 8
"""Samples that are looked at."""
CAREFUL = 200
"""Steps of a descent that is careful enough to arrive where the settings do not."""
ARRIVED = 0.9
"""The gamma that a path must lead to at least."""
ENOUGH = 1.0
"""The longest path of that descent: more leads no farther, and its steps would be too long."""


@torch.no_grad()
def diagnose(
    model: Model,
    descent: Solution,
    labels: Tensor | None = None,
    *,
    sampling: Sampling | None = None,
    seed: int = 0,
) -> list[str]:
    """What `generate` came to that its caller should know, a sentence each; none if all is well.

    A network that gives NaN; samples that diverge, grow, or swing on steps that are too long, with
    the largest stable step estimated from the stiffness of the landscape where careful descents
    end; and a gradient ratio that no sample met. `labels`, `sampling` and `seed` are those of the
    `generate`. Costs nothing where no sample fails and few evaluations of few samples else.
    """
    count = min(LOOK, len(descent.x))
    if describe(model).noise_conditioning or not count:
        return []
    diverged = descent.outcome.count(Outcome.DIVERGED)
    part = None if labels is None else labels[:count]
    start = prepare(model, part, count=count, seed=seed, sampling=sampling)
    field, noise, part, sampling = start.field, start.noise, start.labels, start.sampling
    first = norms(field(noise, part)).float()
    if not first.isfinite().all():
        if norms(model(noise, part)).isfinite().all():
            return [f"guidance {sampling.guidance:g} is too large: values became infinite"]
        return [
            "the network returns values that are not finite for plain noise: its weights are damaged, "
            "or its precision is too low"
        ]
    last = descent.gradient_norm[:count].float().to(first)
    failed = ""
    if diverged:
        failed = f"{diverged} of {len(descent.x)} samples diverged"
    elif (last > 2 * first).any():
        failed = "the gradient of samples grew instead of falling"
    if (
        sampling.multistep_coefficients
    ):  # without a size, and the last may well begin high on the slope
        return [f"{failed}: its fitted steps do not suit it, tune it anew"] if failed else []
    if failed or (last > first / 2).any():
        stable, stiff = _largest_stable(field, noise, part, sampling)
        if sampling.step_size > stable:
            # far from the data many a network levels out: samples swing, and none diverges
            failed = failed or "the gradient of samples hardly fell"
        if failed and stable < math.inf:
            failed += (
                f": the largest stable step is about {stable:.2g} (stiffness {stiff:.3g}); "
                f"step_size is {sampling.step_size:g}"
            )
        if failed:
            return [failed]
    if sampling.gradient_ratio and (descent.steps >= sampling.max_steps).all():
        return [
            f"no sample met gradient_ratio {sampling.gradient_ratio:g} within path_length "
            f"{sampling.path_length:g}: the smallest of the first {count} came to "
            f"{(last / first).min():.2g}"
        ]
    return []


def check_sampling(sampling: Sampling, decay: Decay) -> list[str]:
    """What the sampling settings of a field that is yet to be trained will come to, as far as its
    decay tells; a sentence each, none if all is well.

    A perfect field leads from noise to data by d gamma / d path = c(gamma), and its stiffness near
    the data is -c'(1): paths may be too short, and steps too long. The steps of a decay that is not
    0 at the data are not judged.
    """
    near, parts = 0.999, 1000
    gamma = (torch.arange(parts, dtype=torch.float64) + 0.5) * (near / parts)
    path = (near / parts / decay(gamma)).cumsum(0)
    said = []
    reached = float((path < sampling.path_length).sum()) * near / parts
    if reached < ARRIVED:
        said.append(
            f"samples will end at gamma {reached:.2g} between noise, 0, and data, 1: with this objective "
            f"the path takes a sampling.path_length of {path[-1]:.2g}"
        )
    limit = stability_limit(sampling.make_rule())
    stiff = float(decay(gamma[-1:])) / (1 - float(gamma[-1]))
    if (
        limit is not None
        and float(decay(torch.ones(1))) == 0
        and sampling.step_size * stiff > limit
    ):
        said.append(
            f"samples will swing near the data: with this objective the largest stable "
            f"sampling.step_size is {limit / stiff:.2g}; got {sampling.step_size:g}"
        )
    return said


def _largest_stable(
    field: Field, noise: Tensor, labels: Tensor | None, sampling: Sampling
) -> tuple[float, float]:
    """The largest step that the settings bear where careful descents end, infinity if it cannot be
    told, and the stiffness of the landscape there."""
    path = min(sampling.path_length, ENOUGH)
    rule, stop = GradientDescent(path / CAREFUL), PathLength(path)
    end = descend(field, noise, labels, rule=rule, stop=stop)
    stiff = stiffness(field, end.x, labels).float().median().item()
    limit = stability_limit(sampling.make_rule())
    if limit is None or not 0 < stiff < math.inf:
        return math.inf, stiff
    return limit / stiff, stiff
