"""Interpolation between samples, and variations of a sample; they are called images and may be of any shape."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import pi
from typing import Literal, get_args

import torch
from torch import Tensor

from eqm.checks import (
    check_alike,
    check_choice,
    check_count,
    check_range,
    check_samples,
    warn_of_range,
)
from eqm.composition import compose, condition
from eqm.corruption import corrupt
from eqm.descent import (
    FinishedSample,
    Outcome,
    PathLength,
    Solution,
    State,
    Step,
    Stop,
    collect,
    descend,
    stream,
)
from eqm.field import Field, gradient_at
from eqm.sampling.labels import Labels, chosen_labels
from eqm.sampling.model import Model, check_time_invariant, describe, null_label
from eqm.sampling.settings import Sampling
from eqm.sampling.start import labels_of, prepare
from eqm.shapes import norms, per_sample

Way = Literal["noise", "landscape"]


def vary(
    model: Model,
    images: Tensor,
    labels: Labels = None,
    *,
    strength: float = 0.5,
    count: int = 1,
    seed: int = 0,
    sampling: Sampling | None = None,
    batch_size: int = 256,
) -> Solution:
    """Variations of images (B, ...), `.x` (B * count, ...): `count` of the first, then of the next.

    Each starts at (1 - strength) * image + strength * noise and descends sqrt(strength) of the path
    of a sample, because less noise needs a shorter path. Strength 0 returns the images; strength 1
    returns what `generate` does with the same seed and labels. Row k has noise of seed `seed + k`.
    Without `labels` a model with classes uses its null label.

    Raises ValueError for images that do not have the model's shape, a strength outside 0..1, labels
    that the model does not have, and noise-conditioned models.
    """
    check_range(0, 1, strength=strength)
    check_count(count=count, batch_size=batch_size)
    x = _checked(model, images).repeat_interleave(count, dim=0)
    classes = None if not len(x) else labels_of(model, labels, images)
    if classes is not None:
        classes = classes.repeat_interleave(count, dim=0)
    start = prepare(
        model,
        classes,
        count=len(x),
        seed=seed,
        sampling=sampling,
        shape=x.shape[1:],
        classes_in_turn=False,
    )
    if strength == 1 and len(x):  # nothing is left of the images
        return collect(start.stream(batch_size=batch_size))
    rows = None if start.labels is None else start.labels.tolist()
    strengths = torch.full((len(x),), float(strength))
    return _descend_from(start.field, x, start.noise, strengths, rows, start.sampling, batch_size)


def interpolate(
    model: Model,
    first: Tensor,
    last: Tensor,
    labels: tuple[int | str, int | str] | None = None,
    *,
    count: int = 9,
    through: Way = "noise",
    strength: float = 0.5,
    seed: int = 0,
    sampling: Sampling | None = None,
    batch_size: int = 256,
) -> Solution:
    """`count` images from `first` to `last` (...), `.x` (count, ...), with these two as the ends.

    Through "noise", the blend (1 - t) * first + t * last is mixed with the share
    strength * sin(pi t) of one noise, and descends as in `vary`. Through the "landscape", the blends
    are a chain that descends together for the path of a sample: each point follows the part of the
    field across the chain, and springs keep the distances along the chain even (the nudged elastic
    band of Henkelman & Jónsson 2000). The landscape changes more smoothly; noise gives images nearer
    to the data.

    `labels` are those of the two images; between them the fields are weighted 1 - t and t, guided as
    `sampling` says, on the whole path. Without labels a model with classes uses its null label.

    Raises ValueError as `vary` does, and for fewer than 2 images.
    """
    check_choice(get_args(Way), through=through)
    check_range(0, 1, strength=strength)
    check_count(count=count)
    check_samples("(C, H, W), or of another shape", least=1, first=first, last=last)
    check_alike(least=1, first=first, last=last)
    if count < 2:
        raise ValueError(f"count must be at least 2, as the two images count; got {count}")
    check_count(batch_size=batch_size)
    ends = _checked(model, torch.stack([first, last]))
    start = prepare(model, seed=seed, sampling=sampling, shape=first.shape, classes_in_turn=False)
    sampling = start.sampling
    t = torch.linspace(0, 1, count).to(ends)
    x = torch.lerp(ends[:1], ends[1:], per_sample(t, ends))
    field = _blended_field(model, labels, t, sampling)
    if through == "landscape":
        return _descend_chain(field, x, sampling)
    noise = start.noise.expand_as(x)
    strengths = strength * torch.sin(pi * t.cpu())
    strengths[[0, -1]] = 0.0
    return _descend_from(field, x, noise, strengths, range(count), sampling, batch_size)


def _descend_from(
    field: Field,
    x: Tensor,
    noise: Tensor,
    strengths: Tensor,
    labels: Sequence[int | Sequence[int]] | None,
    sampling: Sampling,
    batch_size: int,
) -> Solution:
    """The descents of x (B, ...) mixed with noise of `strengths` (B,); strength 0 keeps x."""
    starts = corrupt(x, noise, 1 - strengths.to(x))
    moving = strengths.nonzero().flatten().tolist()
    ends = stream(
        field,
        (starts[k] for k in moving),
        None if labels is None else [labels[k] for k in moving],
        rule=sampling.make_rule(),
        stop=PathLengths(sampling.path_length * strengths[moving].sqrt().to(x)),
        batch_size=max(1, min(batch_size, len(moving))),
        max_steps=sampling.max_steps,
    )
    moved = [replace(end, index=moving[end.index]) for end in ends]
    still = [
        FinishedSample(k, x[k], 0, 0, torch.nan, Outcome.CONVERGED)
        for k in (strengths == 0).nonzero().flatten().tolist()
    ]
    return collect([*moved, *still], like=x)


@dataclass(frozen=True, eq=False)
class PathLengths(Stop):
    """`PathLength` with a length for each start, (N,)."""

    lengths: Tensor

    def __call__(self, step: Step, state: State) -> tuple[Tensor, State]:
        return step.path >= self.lengths[step.index] * (1 - 1e-4), state


def _blended_field(
    model: Model, labels: tuple[int | str, int | str] | None, t: Tensor, sampling: Sampling
) -> Field:
    """The field of the blends at t (count,); its labels are the numbers of the blends."""
    pair = None if labels is None else chosen_labels(model, labels, 2)
    if pair is None:
        return lambda x, numbers: gradient_at(model, x, None)
    one, other = pair.tolist()
    none = condition(model, [null_label(model)] * len(one) if pair.ndim == 2 else null_label(model))
    parts = [condition(model, one), condition(model, other)]

    def field(x: Tensor, numbers: Tensor | None) -> Tensor:
        share = per_sample(t[numbers], x)
        weights = [sampling.guidance * (1 - share), sampling.guidance * share]
        return compose(parts, weights, base=none)(x, None)

    return field


def _descend_chain(field: Field, x: Tensor, sampling: Sampling) -> Solution:
    """The chain x (count, ...) after its descent, as one sample of `elastic_band`."""
    if len(x) == 2:
        return _descend_from(field, x, x, torch.zeros(2), None, sampling, 1)
    end = descend(
        elastic_band(field),
        x[None],
        rule=sampling.make_rule(),
        stop=PathLength(sampling.path_length),
        max_steps=sampling.max_steps,
    )
    slopes = norms(elastic_band(field)(end.x, None)[0])
    ones = torch.ones(len(x), dtype=torch.int64, device=x.device)
    return Solution(end.x[0], end.steps * ones, end.nfe * ones, slopes, end.outcome * len(x))


def elastic_band(field: Field, *, stiffness: float = 10.0) -> Field:
    """The field of chains (B, K, ...) of K points; `field` gets the place in the chain as the label.

    The ends do not move. The other points have the part of the gradient across the chain, and along
    the chain `stiffness` times the difference of the distances to the two neighbours.
    """

    def chained(x: Tensor, labels: Tensor | None) -> Tensor:
        chains, count = x.shape[:2]
        inner = x[:, 1:-1]
        places = torch.arange(1, count - 1, device=x.device).repeat(chains)
        gradient = field(inner.flatten(0, 1), places)
        ahead, behind = (x[:, 2:] - inner).flatten(0, 1), (inner - x[:, :-2]).flatten(0, 1)
        along = ahead + behind
        tiny = torch.finfo(x.dtype).eps
        along = along / per_sample(norms(along).clamp(min=tiny), along)
        slope = (gradient * along).flatten(1).sum(1)
        pull = slope + stiffness * (norms(ahead) - norms(behind))
        across = (gradient - per_sample(pull, along) * along).unflatten(0, (chains, count - 2))
        return torch.cat([x[:, :1] * 0, across, x[:, :1] * 0], dim=1)

    return chained


def _checked(model: Model, images: Tensor) -> Tensor:
    """The images (B, ...) on the device of the model, in its dtype."""
    check_time_invariant(model)
    check_samples(images=images)
    info = describe(model)
    shape = info.shape or tuple(images.shape[1:])
    if tuple(images.shape[1:]) != shape or not images.is_floating_point():
        raise ValueError(
            f"images must be floating point of shape {('B', *shape)}; got {images.dtype} "
            f"{tuple(images.shape)}: resize them to the model's shape"
        )
    if not images.isfinite().all():
        raise ValueError("images must be finite; some values are NaN or infinity")
    warn_of_range(images)
    return images.to(info.device, info.dtype)
