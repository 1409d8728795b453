"""The native endpoints: one for every use, with all settings."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from eqm.descent import Solution
from eqm.registry import did_you_mean
from eqm.sampling.labels import chosen_labels
from eqm.sampling.model import describe
from eqm.sampling.settings import Sampling
from eqm.sampling.start import starting_noise
from eqm.serving.http import schemas
from eqm.serving.http.answers import Work, label_names
from eqm.serving.http.limits import Limits
from eqm.serving.http.pictures import Pictures, png, read_mask, read_pictures, unpack
from eqm.serving.models import Served
from eqm.serving.request import Progress
from eqm.tasks import (
    Blur,
    Composition,
    Downsample,
    Grey,
    Inpaint,
    Operator,
    compose,
    denoise,
    estimate_sigma,
    generate,
    interpolate,
    restore,
    vary,
)
from eqm.tasks.operators import measure


def sampling_of(served: Served, changes: dict[str, Any], limits: Limits) -> Sampling:
    """The stored settings of a model with changes. Raises ValueError for settings that are none."""
    known = [each.name for each in fields(Sampling)]
    for name in changes:
        if name not in known:
            raise ValueError(
                f"sampling.{name[:60]} is unknown{did_you_mean(name, known)}: known are {', '.join(known)}"
            )
    unset = [name for name, value in changes.items() if value is None]
    if unset not in ([], ["guidance_interval"]):
        raise ValueError(
            f"sampling.{unset[0]} must not be null: leave it out to keep the stored one"
        )
    sampling = Sampling.of(describe(served.model).metadata).but(**changes)
    if unset:
        sampling = replace(sampling, guidance_interval=None, multistep_coefficients=())
    limits.check_steps(sampling)
    sampling.make_rule()
    sampling.make_stop()
    return sampling


def plan_sample(ask: schemas.SampleAsk, limits: Limits, served: Served) -> Work:
    """The work of `/v1/sample`."""
    labelled = len(ask.labels) if isinstance(ask.labels, tuple) else 1
    count = labelled if ask.count is None else ask.count
    limits.check_count("count", count)
    sampling = sampling_of(served, ask.sampling, limits)
    moments = 0 if ask.trajectory is None else min(ask.trajectory, sampling.max_steps)
    limits.check_answer(count * (1 + moments), *served.image_shape[1:])
    labels = chosen_labels(served.model, _plain(ask.labels), count)
    seeds = range(ask.seed, ask.seed + count)
    trajectory = None
    if moments:
        noise = starting_noise(served.shape, seeds=seeds)
        trajectory = [
            [Progress(k, x, 0, sampling.max_steps, math.nan, 0.0)] for k, x in enumerate(noise)
        ]
    return Work(
        generate,
        (labels,),
        {"count": count, "seed": ask.seed, "sampling": sampling},
        seeds,
        label_names(served, labels, count, ask.labels),
        len(sampling.multistep_coefficients) or sampling.max_steps,
        trajectory=trajectory,
        moments=moments or 10,
    )


def plan_vary(ask: schemas.VaryAsk, limits: Limits, served: Served) -> Work:
    """The work of `/v1/vary`."""
    count = len(ask.images) * ask.count
    limits.check_count("count times the number of images", count)
    limits.check_answer(count, *served.image_shape[1:])
    sampling = sampling_of(served, ask.sampling, limits)
    given, latents = given_pictures(served, ask.images, ask.resize, limits)
    labels = _labels(served, ask.labels, len(latents))
    names = label_names(served, labels, len(latents), ask.labels)
    return Work(
        vary,
        (latents, labels),
        {"strength": ask.strength, "count": ask.count, "seed": ask.seed, "sampling": sampling},
        range(ask.seed, ask.seed + count),
        [name for name in names for _ in range(ask.count)],
        sampling.max_steps,
        given.notes,
    )


def plan_denoise(ask: schemas.DenoiseAsk, limits: Limits, served: Served) -> Work:
    """The work of `/v1/denoise`."""
    _check_pixels(served, "denoise")
    sampling = sampling_of(served, ask.sampling, limits)
    given, images = given_pictures(served, ask.images, ask.resize, limits)
    images = _scaled(images, ask.range)
    limits.check_answer(len(images), *served.image_shape[1:])
    labels = _labels(served, ask.labels, len(images))
    sigma: float | Tensor | None = None
    more = {}
    if ask.sigma == "estimate":
        sigma = estimate_sigma(images)
        more = {"sigma": [round(each, 6) for each in sigma.tolist()]}
    elif ask.sigma is not None:
        sigma = float(ask.sigma)
    return Work(
        denoise,
        (images, labels),
        {"sigma": sigma, "aim": ask.aim, "sampling": sampling},
        [None] * len(images),
        label_names(served, labels, len(images), ask.labels),
        1 if ask.aim == "mmse" else sampling.max_steps,
        given.notes,
        more=lambda images: more,
    )


def plan_restore(ask: schemas.RestoreAsk, limits: Limits, served: Served) -> Work:
    """The work of `/v1/restore`."""
    _check_pixels(served, "restore")
    if (ask.mask is None) is (ask.operator.name == "inpaint"):
        raise ValueError(
            "mask must be given for the operator inpaint and for no other: a picture in base64, white "
            "where pixels are missing"
        )
    count = len(ask.images) * ask.count
    limits.check_count("count times the number of images", count)
    if ask.steps > limits.steps:
        raise ValueError(
            f"steps must be at most {limits.steps:,} on this server; got {ask.steps:,}"
        )
    shape = served.image_shape
    limits.check_answer(count + 2 * len(ask.images), *shape[1:])
    operator = _operator(ask, limits, shape)
    whole = torch.zeros(1, *shape)
    taken = shape if ask.measure else tuple(measure(operator, whole).shape[1:])
    contents = [unpack(text, f"images[{k}]") for k, text in enumerate(ask.images)]
    given = read_pictures(contents, taken, limits=limits, resize=ask.resize)
    y = _scaled(given.images, ask.range)
    if ask.measure or ask.operator.name == "inpaint":
        y = measure(operator, y)
    noise = ask.noise
    if ask.operator.name in (
        "blur",
        "motion",
    ):  # pictures have 256 values, which deblurring would enlarge
        noise = max(noise, 2 / 255 / 12**0.5)
    return restoring(
        served, y, operator, _labels(served, ask.labels, len(y)),
        noise=noise, count=ask.count, seed=ask.seed, steps=ask.steps,
        sampling=sampling_of(served, ask.sampling, limits), notes=given.notes,
    )  # fmt: skip


def restoring(
    served: Served,
    y: Tensor,
    operator: Operator,
    labels: Tensor | None,
    *,
    count: int,
    seed: int,
    sampling: Sampling,
    noise: float = 0.0,
    steps: int = 25,
    notes: list[str] | None = None,
    use: Callable[..., Solution] = restore,
) -> Work:
    """The work of restoring measurements y (B, ...), `count` answers each."""
    names = label_names(served, labels, len(y))
    info = describe(served.model)
    return Work(
        use,
        (y.to(info.device, info.dtype), operator, labels),
        {"noise": noise, "count": count, "seed": seed, "steps": steps, "sampling": sampling},
        range(seed, seed + len(y) * count),
        [name for name in names for _ in range(count)],
        steps,
        notes or [],
        more=partial(_mean_and_spread, count=count),
    )


def plan_interpolate(ask: schemas.InterpolateAsk, limits: Limits, served: Served) -> Work:
    """The work of `/v1/interpolate`."""
    limits.check_count("count", ask.count)
    limits.check_answer(ask.count, *served.image_shape[1:])
    sampling = sampling_of(served, ask.sampling, limits)
    given, latents = given_pictures(
        served, (ask.first, ask.last), ask.resize, limits, names=("first", "last")
    )
    labels = _labels(served, ask.labels, 2)
    names = label_names(served, labels, 2, ask.labels)
    middle = None if names[0] is None else " to ".join(dict.fromkeys(map(str, names)))
    return Work(
        interpolate,
        (latents[0], latents[1], _ends(labels)),
        {
            "count": ask.count,
            "through": ask.through,
            "strength": ask.strength,
            "seed": ask.seed,
            "sampling": sampling,
        },
        [ask.seed] * ask.count,
        [names[0], *[middle] * (ask.count - 2), names[1]],
        sampling.max_steps,
        given.notes,
        first=1,
    )


def plan_compose(ask: schemas.ComposeAsk, limits: Limits, served: Served) -> Work:
    """The work of `/v1/compose`."""
    if ask.labels is not None:
        raise ValueError("labels must be left out: the expression names the classes")
    limits.check_count("count", ask.count)
    _, height, width = served.image_shape
    limits.check_answer(ask.count, height, width)
    sampling = sampling_of(served, ask.sampling, limits)
    masks = {}
    for name, text in ask.masks.items():
        which = f"masks.{name[:60]}"
        mask = read_mask(unpack(text, which), (height, width), limits=limits, name=which)
        masks[name] = functional.interpolate(mask[None, None], served.shape[1:], mode="area")[0, 0]
    return composing(
        served, ask.expression, count=ask.count, seed=ask.seed, masks=masks, balance=ask.balance,
        sampling=sampling,
    )  # fmt: skip


def composing(
    served: Served,
    expression: str,
    *,
    count: int,
    seed: int,
    sampling: Sampling,
    masks: dict[str, Tensor] | None = None,
    balance: bool = False,
) -> Work:
    """The work of sampling an expression. Raises ValueError for one that the model does not have."""
    settings = {"masks": masks or {}, "balance": balance, "sampling": sampling}
    Composition.of(served.model, expression, **settings)  # type: ignore[arg-type]
    return Work(
        compose,
        (expression,),
        {"count": count, "seed": seed, **settings},
        range(seed, seed + count),
        [expression] * count,
        sampling.max_steps,
    )


def _ends(labels: Tensor | None) -> Any:
    """The labels of two pictures as `interpolate` takes them: classes, or a tensor of tokens."""
    return labels if labels is None or labels.ndim == 2 else tuple(labels.tolist())


@dataclass(frozen=True)
class Use:
    """A native endpoint."""

    name: str
    ask: type[schemas.Ask]
    plan: Callable[[Any, Limits, Served], Work]
    summary: str


USES = (
    Use("sample", schemas.SampleAsk, plan_sample, "Draw samples"),
    Use("vary", schemas.VaryAsk, plan_vary, "Draw variations of pictures"),
    Use("denoise", schemas.DenoiseAsk, plan_denoise, "Remove noise of known or unknown strength"),
    Use("restore", schemas.RestoreAsk, plan_restore, "Fill holes, enlarge, deblur, colour"),
    Use(
        "interpolate", schemas.InterpolateAsk, plan_interpolate, "Draw a path between two pictures"
    ),
    Use("compose", schemas.ComposeAsk, plan_compose, "Draw several classes at once"),
)


def _operator(ask: schemas.RestoreAsk, limits: Limits, shape: tuple[int, int, int]) -> Operator:
    given = ask.operator
    match given.name:
        case "downsample":
            return Downsample(given.factor)
        case "blur":
            return Blur.gaussian(given.sigma)
        case "motion":
            return Blur.motion(given.length, given.angle)
        case "grey":
            return Grey()
    missing = read_mask(unpack(ask.mask or "", "mask"), shape[1:], limits=limits) > 0.5
    if missing.all():
        raise ValueError("mask must be black where pixels are known; it is white everywhere")
    return Inpaint((~missing).float())


def _scaled(images: Tensor, ends: tuple[float, float]) -> Tensor:
    """Images in -1..1 with black and white moved to `ends`."""
    black, white = ends
    if not black < white:
        raise ValueError(
            f"range must be the values of black and of white, in order; got {black} and {white}"
        )
    return images if ends == (-1.0, 1.0) else (images + 1) * ((white - black) / 2) + black


def _mean_and_spread(images: Tensor, *, count: int) -> dict[str, Any]:
    each = images.unflatten(0, (-1, count))
    spread = each.std(1, unbiased=False).mean(1, keepdim=True)
    return {
        "mean": [png(image) for image in each.mean(1)],
        "spread": [png(image) for image in 2 * spread.clamp(0, 1) - 1],
    }


def given_pictures(
    served: Served,
    texts: tuple[str, ...],
    resize: bool,
    limits: Limits,
    *,
    names: tuple[str, ...] | None = None,
) -> tuple[Pictures, Tensor]:
    """The pictures of a request, and their latents on the device of the model. Errors call them `names`."""
    names = names or tuple(f"images[{k}]" for k in range(len(texts)))
    contents = [unpack(text, name) for text, name in zip(texts, names, strict=True)]
    given = read_pictures(contents, served.image_shape, limits=limits, resize=resize, names=names)
    info = describe(served.model)
    with torch.no_grad():
        latents = served.encoder.encode(given.images.to(info.device))[0]
    return given, latents.to(info.dtype)


def _labels(served: Served, labels: schemas.Labels, count: int) -> Tensor | None:
    """The class of each picture, (count,); None without."""
    if labels is None:
        return None
    found = chosen_labels(served.model, _plain(labels), count)
    return None if found is None else found.to(describe(served.model).device)


def _plain(labels: schemas.Labels) -> Any:
    """Labels as `chosen_labels` takes them: one label in a list is that of all."""
    if isinstance(labels, tuple):
        return labels[0] if len(labels) == 1 else list(labels)
    return labels


def _check_pixels(served: Served, use: str) -> None:
    if served.encoder.name != "pixels":
        raise ValueError(f"{use} takes models of pixels; {served.name} is a model of latents")
