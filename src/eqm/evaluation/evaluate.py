"""Measures samples against a reference."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from importlib.metadata import version

import torch
from torch import Tensor

from eqm.data import Source
from eqm.evaluation.metrics import Metric, MetricInput, MissingInputError, metrics_named
from eqm.evaluation.protocol import Measurement, Protocol
from eqm.evaluation.report import Report
from eqm.evaluation.samples import Samples, from_source
from eqm.evaluation.statistics import Settings, Statistics, gather, nearest, pick_rows, spec_of
from eqm.features import Features

QUERIES = 2_000  # the most images of each set whose nearest training image is searched


def evaluate(
    samples: Samples | Statistics,
    reference: Source | Statistics,
    features: Sequence[Features],
    *,
    training: Source | None = None,
    settings: Settings = Settings(),
) -> Report:
    """The report on one set of samples; see `evaluate_each`."""
    return evaluate_each([samples], reference, features, training=training, settings=settings)[0]


def evaluate_each(
    sample_sets: Sequence[Samples | Statistics],
    reference: Source | Statistics,
    features: Sequence[Features],
    *,
    training: Source | None = None,
    settings: Settings = Settings(),
    track: Callable[[Samples], Samples] = lambda images: images,
) -> tuple[Report, ...]:
    """One report per set of samples, against a reference that is read once.

    Images are read in batches and not kept. A report holds the metrics named in `settings`, by default
    all that can be measured, and notes which could not. It also holds the same metrics of real images:
    as many images of the reference as there are samples, but at most half, against the rest.
    Memorisation is measured in the `training` images. `track` may wrap each set of images, for a
    progress bar.

    Raises ValueError for unknown metrics, a named metric that lacks an input, images of different
    shapes or ranges, NaN, sets of different sizes, and statistics of other features.
    """
    metrics = [metrics_named(settings.metrics, one.name) for one in features]
    _require_same_shape(sample_sets, reference, training)
    for images in (*sample_sets, reference):
        if isinstance(images, Statistics):
            _require_features(images, features, settings)

    def statistics_of(images: Samples) -> tuple[Statistics, ...]:
        return gather(track(images), features, settings)

    gathered = [(x,) if isinstance(x, Statistics) else statistics_of(x) for x in sample_sets]
    real: tuple[Statistics, ...] = ()
    rest: tuple[Statistics, ...] = ()
    whole: tuple[Statistics, ...]
    if isinstance(reference, Statistics):
        whole = (reference,)
    else:
        count = min(len(reference) // 2, sample_sets[0].sample_set.count or len(reference))
        real = statistics_of(from_source(reference, count=count))
        rest = statistics_of(from_source(reference, skip=count))
        sample_set = from_source(reference).sample_set
        whole = tuple(
            replace(a.merge(b), sample_set=sample_set).with_rows(
                settings.max_rows, seed=settings.seed
            )
            for a, b in zip(real, rest, strict=True)
        )
    for statistics in gathered:
        _require_same_range(statistics[0], whole[0])

    trained_on, distances = None, None
    if training is not None and any("memorisation" in each for each in metrics):
        trained_on = from_source(training)
        distances = _nearest([*gathered, whole], track(trained_on), features, settings)

    def metric_input(f: int, a: Statistics, b: Statistics, k: int | None = None) -> MetricInput:
        pair = None if distances is None or k is None else (distances[f][k], distances[f][-1])
        protocol = Protocol(
            samples=a.sample_set,
            reference=b.sample_set,
            features=spec_of(features[f], settings, size=len(a.moments.mean), shape=a.shape),
            training=None if trained_on is None or pair is None else trained_on.sample_set,
            max_rows=settings.max_rows,
            seed=settings.seed,
            version=version("eqm"),
        )
        return MetricInput(a, b, pair, protocol)

    real_images: list[Measurement] = []
    for f, (a, b) in enumerate(zip(real, rest, strict=True)):
        real_images += _measure(metric_input(f, a, b), metrics[f])[0]
    reports = []
    for k, statistics in enumerate(gathered):
        measured: list[Measurement] = []
        notes: list[str] = []
        for f, (a, b) in enumerate(zip(statistics, whole, strict=True)):
            found, missing = _measure(metric_input(f, a, b, k), metrics[f])
            some: list[str] = []
            for what, names in missing.items():
                if settings.metrics:
                    raise ValueError(f"{names[0]} in {features[f].name} features needs {what}")
                some.append(f"not measured: {', '.join(names)}; needed: {what}")
            measured += found
            some += [*_memorisation_notes(found), *_count_notes(a, b)]
            where = f"in {features[f].name} features: " if len(features) > 1 else ""
            notes += [where + note for note in some]
        reports.append(Report(tuple(measured), tuple(real_images), tuple(notes), whole))
    return tuple(reports)


def _nearest(
    sets: Sequence[Sequence[Statistics]],
    training: Samples,
    features: Sequence[Features],
    settings: Settings,
) -> list[tuple[Tensor, ...]] | None:
    """The distances of some images of each set to the nearest training image, for each of the features."""
    queries = []
    for each in zip(*sets, strict=True):
        vectors = [one.vectors for one in each if one.vectors is not None]
        if len(vectors) < len(sets):
            return None  # files of mean and covariance
        queries.append([pick_rows(rows, QUERIES, seed=settings.seed) for rows in vectors])
    found = nearest(training, features, [torch.cat(rows) for rows in queries], settings)
    counts = [len(rows) for rows in queries[0]]
    return [distances.split(counts) for distances in found]


def _measure(
    given: MetricInput, metrics: Mapping[str, Metric]
) -> tuple[list[Measurement], dict[str, list[str]]]:
    """The measurements, and for each missing input the metrics that need it."""
    found: list[Measurement] = []
    missing: dict[str, list[str]] = {}
    for name, metric in metrics.items():
        try:
            found += metric(given)
        except MissingInputError as error:
            missing.setdefault(str(error), []).append(name)
    return found, missing


def _memorisation_notes(measurements: Sequence[Measurement]) -> Iterator[str]:
    """Whether the intervals show memorisation; unseen real images have ratio 1 and copies 0.01."""
    interval = {measurement.name: measurement.interval for measurement in measurements}
    ratio, copies = interval.get("nearest-ratio"), interval.get("copies")
    if ratio and copies:
        if ratio[1] < 1 or copies[0] > 0.01:
            yield (
                "There are signs of memorisation: samples are nearer to the training images than unseen "
                "real images are."
            )
        else:
            yield (
                "There is no sign of memorisation: samples are as far from the training images as unseen "
                "real images are."
            )


def _count_notes(samples: Statistics, reference: Statistics) -> Iterator[str]:
    size = len(samples.moments.mean)
    for one, what in ((samples, "samples"), (reference, "reference images")):
        if one.sample_set.count is not None and one.sample_set.count <= size:
            yield (
                f"{one.sample_set.count:,} {what} are too few for a Frechet distance of {size:,} "
                "features, which is then mostly bias: use the kernel distance (kernel), which is "
                f"unbiased, at least {10 * size:,} images, or fewer features"
            )


def _require_same_shape(
    sample_sets: Sequence[Samples | Statistics],
    reference: Source | Statistics,
    training: Source | None,
) -> None:
    counts = dict.fromkeys(one.sample_set.count for one in sample_sets)
    if len(counts) > 1:
        raise ValueError(
            "sets of samples can be compared only if they have the same size; got "
            f"{' and '.join(f'{count:,}' if count else 'unknown' for count in counts)}: give --count"
        )
    shapes = {one.sample_set.name: one.shape for one in sample_sets}
    shapes |= {"the reference": reference.shape}
    shapes |= {} if training is None else {"the training images": training.shape}
    known = {name: tuple(shape) for name, shape in shapes.items() if shape is not None}
    if len(set(known.values())) > 1:
        got = ", ".join(f"{name} {shape}" for name, shape in known.items())
        if any(len(shape) != 3 for shape in known.values()):
            raise ValueError(
                f"samples must have one shape; got {got}: bring them to one, or set data.layout"
            )
        raise ValueError(
            f"images must have one shape (C, H, W); got {got}: give files one shape with --size and "
            "--channels"
        )


def _require_same_range(samples: Statistics, reference: Statistics) -> None:
    """Raises ValueError for images that seem to be in 0..1, which lies within -1..1."""
    if samples.shape is not None and len(samples.shape) != 3:
        return
    pairs = ((samples, reference), (reference, samples))
    for one, other in pairs:
        if one.lowest >= 0 > other.lowest:
            raise ValueError(
                f"{one.sample_set.name}: images must lie in -1..1, or in 0..255 as uint8; these seem to lie "
                f"in 0..1, as no value is below 0, but {other.sample_set.name} has values down to "
                f"{other.lowest:.2g}: rescale them by 2 x - 1"
            )


def _require_features(
    statistics: Statistics, features: Sequence[Features], settings: Settings
) -> None:
    """Raises ValueError if statistics come from other features."""
    name, size = statistics.sample_set.name, len(statistics.moments.mean)
    if len(features) > 1:
        raise ValueError(
            f"{name} holds statistics of one kind of features; got {len(features)} kinds: give only the "
            "features of the statistics"
        )
    wanted = spec_of(features[0], settings, size=features[0].size or size, shape=statistics.shape)
    found = statistics.spec or replace(wanted, size=size)
    if found != wanted:
        raise ValueError(
            f"{name} holds statistics of {found}; needed are those of {wanted}: give the features of the "
            "statistics, or compute the statistics again"
        )
