"""Search for the sampling settings of a trained model."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from eqm.checks import (
    check_callable,
    check_count,
    check_fraction,
    check_samples,
    check_seed,
    seeded,
)
from eqm.descent import AdamsBashforth, fit_multistep, record_trajectory
from eqm.metrics import Moments, frechet_distance
from eqm.sampling.labels import Labels
from eqm.sampling.model import Model, check_time_invariant, describe
from eqm.sampling.settings import Sampling
from eqm.sampling.start import Start, labels_of, prepare
from eqm.tasks.generation import generate

Features = Callable[[Tensor], Tensor]
"""Images (N, ...) to features (N, D)."""

RULES: tuple[tuple[str, float, int], ...] = (
    ("gradient-descent", 0.3, 1),
    ("nesterov-lookahead", 0.3, 1),
    ("nesterov-lookahead", 0.5, 1),
    ("adams-bashforth", 0.3, 1),
    ("heun", 0.3, 2),
)
"""The rules that are tried: name, momentum, NFE a step."""
PATHS = (0.6, 0.7, 0.8, 0.9, 1.0, 1.2)  # path lengths tried, as multiples of the stored one
RATIOS = (0.05, 0.1, 0.15, 0.2, 0.3)  # gradient ratios tried on the best settings
FITTED_STEPS = (3, 4, 5, 6, 8, 10, 12, 16)  # numbers of steps to fit coefficients for
SMALL_STEPS = 100  # steps of the descents that coefficients are fitted to
KEPT = 6  # settings of the first round that reach the second
LARGEST = 100  # samples are clipped to this value, so that the distance of diverged ones is finite


@dataclass(frozen=True)
class Trial:
    """Settings that were tried, and their result."""

    sampling: Sampling
    distance: float
    """Frechet distance of the samples to the reference. Compare it only within one tuning and for
    equal numbers of samples."""
    nfe: float
    """Mean number of function evaluations (NFE) a sample."""
    samples: int
    """How many samples were drawn."""

    def __str__(self) -> str:
        chosen = self.sampling
        name = chosen.rule
        if name == "nesterov-lookahead":
            name = f"{name} {chosen.momentum:g}"
        how = f"{name:<24} step {chosen.step_size:<7.4g}"
        if chosen.multistep_coefficients:
            how = f"{f'fitted to {len(chosen.multistep_coefficients)} steps':<37}"
        return (
            f"{how} path {chosen.path_length:<6.3g} "
            f"ratio {chosen.gradient_ratio:<5g} distance {self.distance:<9.4g} "
            f"NFE {self.nfe:<5.1f} samples {self.samples}"
        )


@dataclass(frozen=True)
class Tuning:
    """The result of `tune`."""

    before: Trial
    """The stored settings, on new noise."""
    after: Trial
    """The best settings found, on the same new noise."""
    improved: bool
    """Whether these are better: a smaller distance by more than the tolerance, or an equal distance
    for fewer evaluations."""
    trials: tuple[Trial, ...]
    """All trials, in order."""

    @property
    def sampling(self) -> Sampling:
        """The better of the two settings."""
        return self.after.sampling if self.improved else self.before.sampling

    def __str__(self) -> str:
        verdict = "better" if self.improved else "not better: the stored settings stay"
        return f"stored  {self.before}\nfound   {self.after}\n{verdict}"


def tune(
    model: Model,
    reference: Tensor,
    labels: Labels = None,
    *,
    samples: int = 512,
    nfe: int = 20,
    tolerance: float = 0.03,
    keep_rule: bool = False,
    seed: int = 0,
    batch_size: int = 256,
    features: Features | None = None,
    on_trial: Callable[[Trial], object] | None = None,
) -> Tuning:
    """The sampling settings whose samples are nearest to `reference` (N, ...), with its `labels` (N,).

    It tries rules, step sizes, momenta, path lengths and gradient ratios with up to `nfe` evaluations
    a sample, and coefficients fitted to few steps from noise (`fit_multistep`). Guidance stays as
    stored. With `keep_rule` only the fitted coefficients are tried, which is fast and changes
    nothing for descents that do not start from noise.

    The distance is the Frechet distance between features of `samples` samples and of the reference.
    Of all settings within `tolerance` of the smallest distance, the one with the lowest NFE wins. It
    is compared with the stored settings on new noise, because the best of many trials looks better
    than it is. Use validation data as the reference if you have them.

    `features` default to two random convolutions, averaged over the pixels. They see little but
    texture: pass the features of a classifier if there is one. Data that are not images are their
    own features. `on_trial` is called with each trial.

    Raises ValueError for fewer than 8 samples or references, a reference that does not have the
    model's shape, a seed of more than 63 bits, and noise-conditioned models.
    """
    check_time_invariant(model)
    check_samples("(N, ...)", reference=reference)
    check_count(samples=samples)
    check_seed(4 * int(samples), seed=seed)
    labels = labels_of(model, labels, reference)
    for name, function in {"features": features, "on_trial": on_trial}.items():
        if function is not None:
            check_callable(**{name: function})
    info = describe(model)
    known = Sampling.of(info.metadata)
    stored = replace(known, multistep_coefficients=())
    check_count(samples=samples, nfe=nfe, batch_size=batch_size)
    check_fraction(tolerance=tolerance)
    if min(samples, len(reference)) < 8:
        raise ValueError(
            f"tuning needs at least 8 samples and references; got {samples} and {len(reference)}"
        )
    shape = tuple(reference.shape[1:])
    if info.shape not in (shape, None):
        raise ValueError(
            f"reference must have the model's shape, {('N', *info.shape)}; "
            f"got {tuple(reference.shape)}"
        )
    features = features or random_features(shape)
    trials = _Trials(
        model,
        shape,
        _labels_like(labels, samples, info.num_classes, seed),
        features,
        Moments.of(features(reference.float().cpu())),
        samples,
        batch_size,
        on_trial,
    )
    best = trials.draw(stored, seed) if keep_rule else _search(trials, stored, nfe, tolerance, seed)
    # Fitted to descents from other noise than that of the trials.
    fitted = _fit(trials, best.sampling, nfe, seed + 2 * samples)
    fewer = [trials.draw(each, seed) for each in fitted]
    best = _cheapest([best, *fewer], tolerance)
    before, after = (trials.draw(s, seed + samples) for s in (known, best.sampling))
    return Tuning(before, after, _is_better(after, before, tolerance), tuple(trials.done))


def random_features(shape: tuple[int, ...]) -> Features:
    """Untrained features (N, 128) of images (C, H, W): two random convolutions, averaged over the
    pixels. For data of another shape, the numbers themselves."""
    if len(shape) != 3:
        return lambda data: data.flatten(1)
    generator = torch.Generator().manual_seed(0)
    first = torch.randn(64, shape[0], 3, 3, generator=generator) / (9 * shape[0]) ** 0.5
    second = torch.randn(128, 64, 3, 3, generator=generator) / 24

    def features(images: Tensor) -> Tensor:
        parts = []
        for part in images.split(256):
            part = functional.conv2d(part, first, padding=1).relu()
            part = functional.conv2d(part, second, padding=1, stride=2).relu()
            parts.append(part.mean((2, 3)))
        return torch.cat(parts)

    return features


@dataclass
class _Trials:
    """Draws samples with given settings, and keeps their distances."""

    model: Model
    shape: tuple[int, ...]
    labels: Tensor | None
    features: Features
    target: Moments
    samples: int
    batch_size: int
    on_trial: Callable[[Trial], object] | None = None
    done: list[Trial] = field(default_factory=list)

    def draw(self, sampling: Sampling, seed: int) -> Trial:
        """The trial of these settings, with all samples."""
        end = generate(
            self.model,
            self.labels,
            count=self.samples,
            seed=seed,
            sampling=sampling,
            shape=self.shape,
            batch_size=self.batch_size,
        )
        return self.score(sampling, end.x, end.nfe.double().mean().item())

    def score(self, sampling: Sampling, x: Tensor, nfe: float) -> Trial:
        """The trial of these settings, which gave the samples x."""
        finite = x.float().cpu().nan_to_num().clamp(-LARGEST, LARGEST)
        distance = frechet_distance(Moments.of(self.features(finite)), self.target)
        self.done.append(Trial(sampling, distance, nfe, len(x)))
        if self.on_trial:
            self.on_trial(self.done[-1])
        return self.done[-1]

    def start(self, sampling: Sampling, seed: int) -> Start:
        """The start of the samples of the first round."""
        count = self.samples
        start = prepare(
            self.model, self.labels, count=count, seed=seed, sampling=sampling, shape=self.shape
        )
        return start[: max(8, count // 4)]


def _search(trials: _Trials, stored: Sampling, nfe: int, tolerance: float, seed: int) -> Trial:
    """The best of rules, step sizes, momenta, path lengths and gradient ratios."""
    for rule, momentum, cost in RULES:
        if cost > nfe:
            continue
        for share in (4, 2, 1):
            steps = max(2, nfe // share // cost)
            size = stored.path_length / steps
            counts = sorted({max(1, round(steps * length)) for length in PATHS})
            counts = [count for count in counts if count * cost <= nfe]
            base = stored.but(rule=rule, momentum=momentum, step_size=size, gradient_ratio=0.0)
            base = replace(base, path_length=max(size * counts[-1], size))
            for count, x in zip(counts, _paths(trials, base, counts, seed), strict=True):
                trials.score(replace(base, path_length=size * count), x, float(count * cost))
    ranked = sorted(trials.done, key=lambda trial: trial.distance)
    best = _cheapest([trials.draw(trial.sampling, seed) for trial in ranked[:KEPT]], tolerance)

    # With a gradient ratio the path may be longer, as most samples stop before its end.
    chosen = best.sampling
    cost = next(cost for rule, _, cost in RULES if rule == chosen.rule)
    longer = [
        replace(chosen, gradient_ratio=ratio, path_length=chosen.path_length * stretch)
        for stretch in (1.0, 1.2)
        for ratio in RATIOS
    ]
    adaptive = [trials.draw(each, seed) for each in longer if each.max_steps * cost <= nfe]
    return _cheapest([best, *adaptive], tolerance)


def _paths(trials: _Trials, sampling: Sampling, counts: list[int], seed: int) -> Tensor:
    """A few samples after each number of steps, (len(counts), few, ...), from one descent."""
    start, rule, parts = trials.start(sampling, seed), sampling.make_rule(), []
    for first in range(0, len(start), trials.batch_size):
        part = start[first : first + trials.batch_size]
        moved = record_trajectory(
            part.field, part.noise, part.labels, rule=rule, at=counts, max_steps=counts[-1]
        )
        parts.append(moved.x.cpu())
    return torch.cat(parts, dim=1)


def _fit(trials: _Trials, sampling: Sampling, nfe: int, seed: int) -> Iterator[Sampling]:
    """The settings with coefficients fitted to their own descents, and to descents by small steps."""
    start = trials.start(sampling, seed)[: trials.batch_size]
    noise = start.noise
    small = AdamsBashforth(sampling.path_length / SMALL_STEPS)
    for rule, stop, most in [
        (sampling.make_rule(), sampling.make_stop(), sampling.max_steps),
        (small, None, SMALL_STEPS),
    ]:
        moved = record_trajectory(
            start.field,
            noise,
            start.labels,
            rule=rule,
            stop=stop,
            at=range(most + 1),
            max_steps=most,
        )
        if not moved.x.isfinite().all() or torch.equal(moved.x[0], moved.x[-1]):
            continue  # diverged, or did not move
        for steps in FITTED_STEPS:
            if steps < most and steps <= nfe:
                found = fit_multistep(start.field, moved, start.labels, steps=steps).rows
                rows: Any = tuple(tuple(round(weight, 6) for weight in row) for row in found)
                yield replace(sampling, multistep_coefficients=rows)


def _labels_like(
    labels: Tensor | None, samples: int, num_classes: int | None, seed: int
) -> Tensor | None:
    """Labels as often as the reference has them, in random order."""
    if labels is None or num_classes == 0:
        return torch.arange(samples) % num_classes if num_classes else None
    order = torch.randperm(len(labels), generator=seeded(seed))
    return labels.cpu()[order.repeat(-(-samples // len(labels)))[:samples]].long()


def _cheapest(found: list[Trial], tolerance: float) -> Trial:
    least = min(trial.distance for trial in found)
    near = [trial for trial in found if trial.distance <= least * (1 + tolerance)]
    return min(near, key=lambda trial: (trial.nfe, trial.distance))


def _is_better(after: Trial, before: Trial, tolerance: float) -> bool:
    if after.distance < before.distance * (1 - tolerance):
        return True
    as_near = after.distance <= before.distance * (1 + tolerance)
    return as_near and after.nfe < 0.95 * before.nfe
