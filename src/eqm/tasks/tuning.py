"""The settings with which a trained model samples best, found by trying."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from eqm.descent import AdamsBashforth, Solution, fit_multistep, record_trajectory
from eqm.descent.checks import check_count
from eqm.field import Field
from eqm.metrics import Moments, frechet_distance
from eqm.sampling.model import Model, check_time_invariant, describe
from eqm.sampling.settings import Sampling
from eqm.sampling.start import check_seeds, prepare
from eqm.tasks.generation import generate

Features = Callable[[Tensor], Tensor]
"""Images (N, ...) to features (N, D)."""
Start = tuple[Field, Tensor, Tensor | None]

RULES: tuple[tuple[str, float, int], ...] = (
    ("gradient-descent", 0.3, 1),
    ("nesterov-lookahead", 0.3, 1),
    ("nesterov-lookahead", 0.5, 1),
    ("adams-bashforth", 0.3, 1),
    ("heun", 0.3, 2),
)
"""Rule, momentum, and evaluations a step of what is tried."""
PATHS = (0.6, 0.7, 0.8, 0.9, 1.0, 1.2)
"""Path lengths tried, as multiples of the stored one."""
RATIOS = (0.05, 0.1, 0.15, 0.2, 0.3)
"""Gradient ratios tried on the best of the rest."""
FITTED = (3, 4, 5, 6, 8, 10)
"""Numbers of steps that weights are fitted to."""
CAREFUL = 100
"""Steps of the descents that they are fitted to."""
FINALISTS = 6
FAR = 100
"""Samples that diverged are cut off here, so that the distance stays a number."""


@dataclass(frozen=True)
class Trial:
    """Settings, and what came of them."""

    sampling: Sampling
    distance: float
    """Frechet distance of the samples to the reference; compare it only within one tuning, and
    between trials of as many samples."""
    nfe: float
    """Mean evaluations of the model a sample."""
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
            f"evaluations {self.nfe:<5.1f} samples {self.samples}"
        )


@dataclass(frozen=True)
class Tuning:
    """What trying came to."""

    before: Trial
    """The stored settings, on noise that no other trial but `after` saw."""
    after: Trial
    """The best settings found, on the same noise."""
    improved: bool
    """Whether these are better: nearer to the data by more than the tolerance, or as near for fewer
    evaluations. If not, the stored ones are to be kept."""
    trials: tuple[Trial, ...]
    """All that was tried, in order."""

    @property
    def sampling(self) -> Sampling:
        """The settings to use from now on."""
        return self.after.sampling if self.improved else self.before.sampling

    def __str__(self) -> str:
        verdict = "better" if self.improved else "not better: the stored settings stay"
        return f"stored  {self.before}\nfound   {self.after}\n{verdict}"


def tune(
    model: Model,
    reference: Tensor,
    labels: Tensor | None = None,
    *,
    samples: int = 512,
    nfe: int = 20,
    tolerance: float = 0.03,
    keep_rule: bool = False,
    seed: int = 0,
    batch_size: int = 256,
    features: Features | None = None,
    follow: Callable[[Trial], object] | None = None,
) -> Tuning:
    """The sampling settings of a model whose samples come nearest to `reference` (N, ...), data it
    was trained on or better held-out ones, with their `labels` (N,) for a model with classes.

    Tries rules, step sizes, momenta, path lengths and gradient ratios within `evaluations` of the
    model a sample, and weights fitted to a few steps from noise (`fit_multistep`); guidance stays as
    stored. With `keep_rule` the rule and its settings stay too, and weights alone are tried: that is
    soon done, and changes nothing for what does not start from noise.

    Near is the Frechet distance between features of `samples` samples and of the reference; of what
    is within `tolerance` of the best, the cheapest is taken. It is then compared to the stored
    settings on fresh noise, as the best of many trials looks better than it is.

    `features` are, by default, those of two random convolutions, averaged over the pixels: they need
    neither labels nor downloads, but are poor judges of anything but textures; take those of a
    classifier where there is one. Data that are no images are their own features. `follow` is called
    with each trial as it is made.

    Raises ValueError for fewer than 8 samples or references, references of another shape than the
    model's, a seed of more than 63 bits, and a model that is told the noise level, whose sampling
    has nothing to tune.
    """
    check_time_invariant(model)
    info = describe(model)
    known = Sampling.of(info.metadata)
    stored = replace(known, multistep_coefficients=())
    check_count(samples=samples, nfe=nfe, batch_size=batch_size)
    check_seeds([seed])
    if min(samples, len(reference)) < 8:
        raise ValueError(
            f"tuning needs at least 8 samples and references; got {samples} and {len(reference)}"
        )
    shape = tuple(reference.shape[1:])
    if info.shape not in (shape, None):
        raise ValueError(
            f"reference must have the model's shape, {('N', *info.shape)}; got {tuple(reference.shape)}"
        )
    if not 0 <= tolerance < 1:
        raise ValueError(f"tolerance must lie in [0, 1); got {tolerance}")
    features = features or random_features(shape)
    judge = _Judge(
        model,
        _classes(labels, samples, info.num_classes, seed),
        features,
        Moments.of(features(reference.float().cpu())),
        samples,
        batch_size,
        follow,
        shape,
    )
    search = (judge, stored, nfe, tolerance, seed)
    best = judge.drawn(stored, seed) if keep_rule else _searched(*search)
    # Weights are fitted to the way that the best go, from noise of their own.
    fitted = _fitted(judge, best.sampling, seed + 2 * samples)
    fewer = [judge.drawn(each, seed) for each in fitted if len(each.multistep_coefficients) <= nfe]
    best = _cheapest([best, *fewer], tolerance)
    before, after = (judge.drawn(s, seed + samples) for s in (known, best.sampling))
    return Tuning(before, after, _is_better(after, before, tolerance), tuple(judge.trials))


def random_features(shape: tuple[int, ...]) -> Features:
    """Features of images of that shape (C, H, W) that have learned nothing, yet tell much of
    textures: two random convolutions, averaged over the pixels, 128 numbers. Of other data all
    numbers."""
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
class _Judge:
    """Tries settings on a model."""

    model: Model
    classes: Tensor | None
    features: Features
    target: Moments
    samples: int
    batch_size: int
    follow: Callable[[Trial], object] | None
    shape: tuple[int, ...] | None = None
    trials: list[Trial] = field(default_factory=list)

    @property
    def few(self) -> int:
        """Samples that tell the good from the bad."""
        return max(8, self.samples // 4)

    def drawn(self, sampling: Sampling, seed: int) -> Trial:
        """What samples from noise of this seed and the next come to."""
        end: Solution = generate(
            self.model,
            self.classes,
            count=self.samples,
            seed=seed,
            sampling=sampling,
            shape=self.shape,
            batch_size=self.batch_size,
        )
        return self.judged(sampling, end.x, end.nfe.double().mean().item())

    def judged(self, sampling: Sampling, x: Tensor, nfe: float) -> Trial:
        """What samples x that settings have come to are worth."""
        finite = x.float().cpu().nan_to_num().clamp(-FAR, FAR)
        distance = frechet_distance(Moments.of(self.features(finite)), self.target)
        self.trials.append(Trial(sampling, distance, nfe, len(x)))
        if self.follow:
            self.follow(self.trials[-1])
        return self.trials[-1]

    def started(self, sampling: Sampling, rows: range, seed: int) -> Start:
        """The field, the noise and the labels that samples of these rows start with."""
        start = prepare(
            self.model,
            self.classes,
            count=self.samples,
            seed=seed,
            sampling=sampling,
            shape=self.shape,
        )[rows.start : rows.stop]
        return start.field, start.noise, start.labels


def _searched(judge: _Judge, stored: Sampling, nfe: int, tolerance: float, seed: int) -> Trial:
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
            for count, x in zip(counts, _along(judge, base, counts, seed), strict=True):
                judge.judged(replace(base, path_length=size * count), x, float(count * cost))
    ranked = sorted(judge.trials, key=lambda trial: trial.distance)
    finalists = [judge.drawn(trial.sampling, seed) for trial in ranked[:FINALISTS]]
    best = _cheapest(finalists, tolerance)

    # With a stop by the gradient the path may be longer: who has arrived does not walk it.
    chosen = best.sampling
    cost = next(cost for rule, _, cost in RULES if rule == chosen.rule)
    longer = [
        replace(chosen, gradient_ratio=ratio, path_length=chosen.path_length * stretch)
        for stretch in (1.0, 1.2)
        for ratio in RATIOS
    ]
    adaptive = [judge.drawn(each, seed) for each in longer if each.max_steps * cost <= nfe]
    return _cheapest([best, *adaptive], tolerance)


def _along(judge: _Judge, sampling: Sampling, counts: list[int], seed: int) -> Tensor:
    """A few samples after each number of steps, (len(counts), few, ...): one descent serves all
    lengths of its path."""
    parts = []
    for first in range(0, judge.few, judge.batch_size):
        rows = range(first, min(first + judge.batch_size, judge.few))
        start, rule = judge.started(sampling, rows, seed), sampling.make_rule()
        parts.append(record_trajectory(*start, rule=rule, at=counts, max_steps=counts[-1]).x.cpu())
    return torch.cat(parts, dim=1)


def _fitted(judge: _Judge, sampling: Sampling, seed: int) -> Iterator[Sampling]:
    """The settings with weights fitted to few steps: to the way they go themselves, and to that of a
    careful descent as long."""
    start = judge.started(sampling, range(min(judge.few, judge.batch_size)), seed)
    careful = AdamsBashforth(sampling.path_length / CAREFUL)
    for rule, stop, most in [
        (sampling.make_rule(), sampling.make_stop(), sampling.max_steps),
        (careful, None, CAREFUL),
    ]:
        way = record_trajectory(*start, rule=rule, stop=stop, at=range(most + 1), max_steps=most)
        if not way.x.isfinite().all() or torch.equal(way.x[0], way.x[-1]):
            continue  # it leads nowhere
        for steps in FITTED:
            if steps < most:
                found = fit_multistep(start[0], way, start[2], steps=steps).rows
                rows: Any = tuple(tuple(round(weight, 6) for weight in row) for row in found)
                yield replace(sampling, multistep_coefficients=rows)


def _classes(
    labels: Tensor | None, samples: int, num_classes: int | None, seed: int
) -> Tensor | None:
    """Labels as often as the reference has them, in an order of chance."""
    if labels is None or num_classes == 0:
        return torch.arange(samples) % num_classes if num_classes else None
    order = torch.randperm(len(labels), generator=torch.Generator().manual_seed(seed))
    return labels.cpu()[order].repeat(-(-samples // len(labels)))[:samples].long()


def _cheapest(found: list[Trial], tolerance: float) -> Trial:
    least = min(trial.distance for trial in found)
    near = [trial for trial in found if trial.distance <= least * (1 + tolerance)]
    return min(near, key=lambda trial: (trial.nfe, trial.distance))


def _is_better(after: Trial, before: Trial, tolerance: float) -> bool:
    if after.distance < before.distance * (1 - tolerance):
        return True
    as_near = after.distance <= before.distance * (1 + tolerance)
    return as_near and after.nfe < 0.95 * before.nfe
