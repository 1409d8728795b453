"""Samples against a reference."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from importlib.metadata import version

import torch
from torch import Tensor

from eqm.data import Source
from eqm.evaluation.measures import METRICS, LackingError, MetricInput
from eqm.evaluation.protocol import Measurement, Protocol
from eqm.evaluation.report import Report
from eqm.evaluation.samples import Samples, from_source
from eqm.evaluation.statistics import Settings, Statistics, few, gather, nearest, spec_of
from eqm.features import Features

PROBES = 2_000
"""The most samples, and images of the reference, whose nearest training image is looked for."""


def evaluate(
    samples: Samples | Statistics,
    reference: Source | Statistics,
    features: Sequence[Features],
    *,
    training: Source | None = None,
    settings: Settings = Settings(),
) -> Report:
    """The report on samples, as one of `evaluate_each`."""
    return evaluate_each([samples], reference, features, training=training, settings=settings)[0]


def evaluate_each(
    several: Sequence[Samples | Statistics],
    reference: Source | Statistics,
    features: Sequence[Features],
    *,
    training: Source | None = None,
    settings: Settings = Settings(),
    watch: Callable[[Samples], Samples] = lambda images: images,
) -> tuple[Report, ...]:
    """A report on each of several sets of samples, against a reference that is gone through once.

    Images come a batch at a time and are not kept. Every metric is measured that can be, or those
    named in `settings`; a report says which could not. Beside the numbers of the samples it has those
    of real images: some of the reference, as many as the samples or half of it, against its rest.
    In `training`, the nearest neighbours of samples are looked for, and those of the reference. `watch`
    may wrap each set of images before it is gone through, to tell how far it is.

    Raises ValueError for unknown metrics and named ones that lack something, images of different
    shapes or ranges, NaN, sets of samples that differ in size, and statistics made with other
    features.
    """
    unknown = [name for name in settings.metrics if name not in METRICS]
    if unknown:
        raise ValueError(f"metrics must be among {', '.join(METRICS)}; got {', '.join(unknown)}")
    _require_alike(several, reference, training)
    for given in (*several, reference):
        if isinstance(given, Statistics):
            _require_seen_through(given, features, settings)

    def seen(images: Samples) -> tuple[Statistics, ...]:
        return gather(watch(images), features, settings)

    every = [(one,) if isinstance(one, Statistics) else seen(one) for one in several]
    real: tuple[Statistics, ...] = ()
    rest: tuple[Statistics, ...] = ()
    whole: tuple[Statistics, ...]
    if isinstance(reference, Statistics):
        whole = (reference,)
    else:
        part = min(len(reference) // 2, several[0].sample_set.count or len(reference))
        real = seen(from_source(reference, count=part))
        rest = seen(from_source(reference, skip=part))
        sample_set = from_source(reference).sample_set
        both = zip(real, rest, strict=True)
        whole = tuple(
            replace(a.merge(b), sample_set=sample_set).of_some(
                settings.max_rows, seed=settings.seed
            )
            for a, b in both
        )
    for one in every:
        _require_range(one[0], whole[0])

    trained_on, near = None, None
    if training is not None and "memorisation" in (settings.metrics or METRICS):
        trained_on = from_source(training)
        near = _near([*every, whole], watch(trained_on), features, settings)

    def case(f: int, a: Statistics, b: Statistics, k: int | None = None) -> MetricInput:
        spec = spec_of(features[f], settings, size=len(a.moments.mean))
        sample_set = (
            None if trained_on is None or near is None or k is None else trained_on.sample_set
        )
        distances = None if near is None or k is None else (near[f][k], near[f][-1])
        protocol = Protocol(
            *(
                a.sample_set,
                b.sample_set,
                spec,
                sample_set,
                settings.max_rows,
                settings.seed,
                version("eqm"),
            )
        )
        return MetricInput(a, b, distances, protocol)

    floor: list[Measurement] = []
    for f, (a, b) in enumerate(zip(real, rest, strict=True)):
        floor += _measure(case(f, a, b), settings.metrics)[0]
    reports = []
    for k, one in enumerate(every):
        measured: list[Measurement] = []
        notes: list[str] = []
        for f, (a, b) in enumerate(zip(one, whole, strict=True)):
            found, lacking = _measure(case(f, a, b, k), settings.metrics)
            for why, named in lacking.items():
                if settings.metrics:
                    raise ValueError(f"{named[0]} through {features[f].name} needs {why}")
                notes.append(f"{', '.join(named)}: not measured, for want of {why}")
            measured += found
            notes += _warnings(a, b)
        reports.append(Report(tuple(measured), tuple(floor), tuple(dict.fromkeys(notes)), whole))
    return tuple(reports)


def _near(
    sets: Sequence[Sequence[Statistics]],
    training: Samples,
    features: Sequence[Features],
    settings: Settings,
) -> list[tuple[Tensor, ...]] | None:
    """Of some of each set, the distances to the nearest training image, by each of the features."""
    probes = []
    for f in range(len(features)):
        rows = [one[f].vectors for one in sets]
        if any(some is None for some in rows):
            return None  # files of moments
        probes.append([few(some, PROBES, seed=settings.seed) for some in rows if some is not None])
    found = nearest(training, features, [torch.cat(some) for some in probes], settings)
    return [
        distances.split([len(rows) for rows in some])
        for distances, some in zip(found, probes, strict=True)
    ]


def _measure(
    case: MetricInput, names: Sequence[str]
) -> tuple[list[Measurement], dict[str, list[str]]]:
    """What is found, and for each thing that is lacking the metrics that need it."""
    found: list[Measurement] = []
    lacking: dict[str, list[str]] = {}
    for name in names or METRICS:
        try:
            found += METRICS[name](case)
        except LackingError as error:
            lacking.setdefault(str(error), []).append(name)
    return found, lacking


def _warnings(samples: Statistics, reference: Statistics) -> Iterator[str]:
    size = len(samples.moments.mean)
    for one, what in ((samples, "samples"), (reference, "images of the reference")):
        if one.sample_set.count is not None and one.sample_set.count <= size:
            yield (
                f"{one.sample_set.count:,} {what} are too few for a Frechet distance of {size:,} features, "
                f"which then is mostly bias: trust the kernel distance, which has none, take {10 * size:,}"
                " images or smaller features"
            )


def _require_alike(
    several: Sequence[Samples | Statistics],
    reference: Source | Statistics,
    training: Source | None,
) -> None:
    counts = dict.fromkeys(one.sample_set.count for one in several)
    if len(counts) > 1:
        raise ValueError(
            "a distance depends on the number of samples, so that sets of one size alone compare; got "
            f"{' and '.join(f'{count:,}' if count else 'unknown' for count in counts)}: give --count"
        )
    shapes = {one.sample_set.name: one.shape for one in several}
    shapes |= {"the reference": reference.shape}
    shapes |= {} if training is None else {"the training images": training.shape}
    known = {name: tuple(shape) for name, shape in shapes.items() if shape is not None}
    if len(set(known.values())) > 1:
        told = ", ".join(f"{name} {shape}" for name, shape in known.items())
        raise ValueError(
            f"images must have one shape (C, H, W); got {told}: --size and --channels bring files to one"
        )


def _require_range(samples: Statistics, reference: Statistics) -> None:
    """Images in 0..1 fit into -1..1 unseen."""
    pairs = ((samples, reference), (reference, samples))
    for one, other in pairs:
        if one.lowest >= 0 > other.lowest:
            raise ValueError(
                f"{one.sample_set.name}: images must lie in -1..1, or in 0..255 as uint8; these seem to lie "
                f"in 0..1, as nothing is below 0, while {other.sample_set.name} goes down to "
                f"{other.lowest:.2g}: rescale them by 2 x - 1"
            )


def _require_seen_through(
    found: Statistics, features: Sequence[Features], settings: Settings
) -> None:
    """Statistics of other features mean something else."""
    name, size = found.sample_set.name, len(found.moments.mean)
    if len(features) > 1:
        raise ValueError(
            f"{name} holds statistics of one kind of features; got {len(features)}: give the features that "
            "they were made with alone"
        )
    wanted = spec_of(features[0], settings, size=features[0].size or size)
    there = found.spec or replace(wanted, size=size)
    if there != wanted:
        raise ValueError(
            f"{name} holds statistics of {there}; needed are those of {wanted}: give the features that they "
            "were made with, or make them again"
        )
