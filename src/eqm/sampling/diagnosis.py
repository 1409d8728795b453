"""Advice about sampling: why samples failed, and whether settings suit an objective."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from eqm.checks import check_decay, kind_of
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
from eqm.field import Field, gradient_at
from eqm.sampling.labels import chosen_labels
from eqm.sampling.model import Model, describe
from eqm.sampling.settings import Sampling
from eqm.sampling.start import check_settings, prepare
from eqm.shapes import norms

CHECKED = 8  # samples that are checked
SMALL_STEPS = 200  # steps of the descent that finds where samples should end
LONGEST_PATH = 1.0  # its longest path, so that its steps stay small
LEAST_GAMMA = 0.9  # the gamma that samples should reach at least


@torch.no_grad()
def diagnose(
    model: Model,
    descent: Solution,
    labels: Tensor | None = None,
    *,
    sampling: Sampling | None = None,
    seed: int = 0,
) -> list[str]:
    """The problems of samples that `generate` returned, one sentence each; none if all is well.

    It reports a network that gives NaN, samples that diverge, grow or oscillate because steps are too
    long, and a gradient ratio that no sample reached. The largest stable step is estimated from the
    stiffness at the end of a descent with small steps. `labels`, `sampling` and `seed` must be those
    of `generate`. It evaluates the model on a few samples: once if all is well.
    """
    if not isinstance(descent, Solution):
        raise ValueError(f"descent must be what generate returned; got {kind_of(descent)}")
    count = min(CHECKED, len(descent.x))
    if describe(model).noise_conditioning or not count:
        return []
    diverged = descent.outcome.count(Outcome.DIVERGED)
    part = None
    if labels is not None and (chosen := chosen_labels(model, labels, len(descent.x))) is not None:
        part = chosen[:count]
    shape = descent.x.shape[1:]
    start = prepare(model, part, count=count, seed=seed, sampling=sampling, shape=shape)
    field, noise, part, sampling = start.field, start.noise, start.labels, start.sampling
    first = norms(gradient_at(field, noise, part)).float()
    if not first.isfinite().all():
        if norms(gradient_at(model, noise, part)).isfinite().all():
            return [f"guidance {sampling.guidance:g} is too large: values became infinite"]
        return [
            "the network returns NaN or infinity for plain noise: its weights are damaged, "
            "or its precision is too low"
        ]
    last = descent.gradient_norm[:count].float().to(first)
    failed = ""
    if diverged:
        failed = f"{diverged} of {len(descent.x)} samples diverged"
    elif (last > 2 * first).any():
        failed = "the gradient of samples grew instead of falling"
    if sampling.multistep_coefficients:  # they have no step size, and may stop where it is steep
        return [f"{failed}: its fitted steps do not suit it, run eqm tune"] if failed else []
    if failed or (last > first / 2).any():
        stable, stiff = _largest_stable(field, noise, part, sampling)
        if sampling.step_size > stable:
            # far from the data many networks level off, so samples oscillate and do not diverge
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
            f"{sampling.path_length:g}: the smallest ratio of the first {count} samples is "
            f"{(last / first).min():.2g}"
        ]
    return []


def check_sampling(sampling: Sampling, decay: Decay) -> list[str]:
    """The problems that sampling settings will have after training, one sentence each; none if all
    is well.

    They follow from the decay c: an ideal field leads from noise to data by d gamma / d path =
    c(gamma), so a path may be too short, and its stiffness at the data is -c'(1), so steps may be too
    long. Step sizes are not checked for a decay that is not 0 at the data.
    """
    check_decay(decay)
    check_settings(sampling)
    near, parts = 0.999, 1000
    gamma = (torch.arange(parts, dtype=torch.float64) + 0.5) * (near / parts)
    path = (near / parts / decay(gamma)).cumsum(0)
    problems = []
    reached = float((path < sampling.path_length).sum()) * near / parts
    if reached < LEAST_GAMMA:
        problems.append(
            f"samples will end at gamma {reached:.2g}, before the data at 1: "
            f"this objective needs a sampling.path_length of {path[-1]:.2g}"
        )
    limit = stability_limit(sampling.make_rule())
    stiff = float(decay(gamma[-1:])) / (1 - float(gamma[-1]))
    if (
        limit is not None
        and float(decay(torch.ones(1))) == 0
        and sampling.step_size * stiff > limit
    ):
        problems.append(
            f"samples will oscillate near the data: the largest stable sampling.step_size for this "
            f"objective is {limit / stiff:.2g}; got {sampling.step_size:g}"
        )
    return problems


def _largest_stable(
    field: Field, noise: Tensor, labels: Tensor | None, sampling: Sampling
) -> tuple[float, float]:
    """The largest stable step where samples should end (infinity if unknown), and the stiffness
    there."""
    path = min(sampling.path_length, LONGEST_PATH)
    rule, stop = GradientDescent(path / SMALL_STEPS), PathLength(path)
    end = descend(field, noise, labels, rule=rule, stop=stop)
    stiff = stiffness(field, end.x, labels).float().median().item()
    limit = stability_limit(sampling.make_rule())
    if limit is None or not 0 < stiff < math.inf:
        return math.inf, stiff
    return limit / stiff, stiff
