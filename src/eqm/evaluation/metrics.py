"""The metrics by name: what each needs and what it measures."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeVar

import torch
from torch import Tensor

from eqm.evaluation.protocol import Measurement, Protocol, is_inception
from eqm.evaluation.statistics import MAX_PAIR_ROWS, Statistics, pick_rows
from eqm.metrics import (
    Overlap,
    bootstrap,
    frechet_at_infinity,
    frechet_distance,
    frechet_influence,
    inception_influence,
    inception_score,
    kernel_distance,
    kernel_influence,
    overlap,
)
from eqm.registry import lookup, names, register

HALVINGS = 3
T = TypeVar("T")


class MissingInputError(ValueError):
    """An input of a metric is missing; the message names it."""


@dataclass(frozen=True)
class MetricInput:
    """What a metric gets.

    A metric is a function that takes this and returns an iterable of `Measurement`, registered with
    `eqm.register("metric", NAME)`. It raises MissingInputError if an input is missing.
    """

    samples: Statistics
    reference: Statistics
    nearest: tuple[Tensor, Tensor] | None
    """Distances to the nearest training image, of some samples and of some reference images."""
    protocol: Protocol

    @property
    def seed(self) -> int:
        """The seed of subsets and resampling."""
        return self.protocol.seed

    def measured(
        self,
        name: str,
        value: float,
        *,
        better: Literal["lower", "higher", ""] = "",
        label: str = "",
        spread: float | None = None,
        influence: Tensor | None = None,
        interval: tuple[float, float] | None = None,
        settings: Mapping[str, Any] | None = None,
    ) -> Measurement:
        """A number with its protocol; with `influence`, its interval is a bootstrap of that."""
        if influence is not None:
            low, _, high = bootstrap(torch.mean, influence, seed=self.seed)
            # Rounded, so that the bound of a fraction that is 0 is exactly 0.
            interval = (round(value + low, 12) + 0.0, round(value + high, 12) + 0.0)
        return Measurement(
            *(name, value, self.protocol, better, label, spread, interval),
            settings=dict(settings or {}),
            influence=influence,
        )

    def mean(
        self,
        name: str,
        rows: Tensor,
        *,
        better: Literal["lower", "higher", ""] = "",
        settings: Mapping[str, Any] | None = None,
    ) -> Measurement:
        """The mean of one value per row, such as the fraction of samples that are true."""
        rows = rows.double()
        value, influence = float(rows.mean()), rows - rows.mean()
        return self.measured(name, value, better=better, influence=influence, settings=settings)

    def overlap(self, neighbours: int) -> tuple[Overlap, dict[str, Any]]:
        """The overlap of samples and reference, from at most MAX_PAIR_ROWS of each, and its settings."""
        a, b = (
            pick_rows(_vectors(x), MAX_PAIR_ROWS, seed=self.seed)
            for x in (self.samples, self.reference)
        )
        if min(len(a), len(b)) <= neighbours:
            raise MissingInputError(
                f"{neighbours + 1} samples and {neighbours + 1} reference images"
            )
        settings = {"neighbours": neighbours, "rows": _counts(a, b)}
        return overlap(a, b, neighbours=neighbours), settings

    def label(self, inception: str, otherwise: str) -> str:
        """The label of a metric in Inception features, or in others."""
        return inception if is_inception(self.protocol.features.features) else otherwise


Metric = Callable[[MetricInput], Iterable[Measurement]]
_FIRST = (
    "frechet",
    "frechet-infinity",
    "frechet-spatial",
    "kernel",
    "precision-recall",
    "density-coverage",
    "inception-score",
)
"""The order of reports; other metrics follow."""
_INCEPTION_ONLY = {
    "fid": ("FID is the Frechet distance", "frechet"),
    "kid": ("KID is the kernel distance", "kernel"),
    "sfid": ("sFID is the spatial Frechet distance", "frechet-spatial"),
}
"""Names for Inception features only: what they are, and the name for other features."""


def metrics_named(chosen: Sequence[str], features: str) -> dict[str, Metric]:
    """The chosen metrics by name, for these features; without a choice, every registered metric.

    Raises ValueError for an unknown name, and for fid, kid or sfid unless the features are Inception's.
    """
    for name in chosen:
        if name in _INCEPTION_ONLY and not is_inception(features):
            meaning, other = _INCEPTION_ONLY[name]
            raise ValueError(f"{meaning} in Inception features; with {features} ask for {other}")
    found: dict[Metric, str] = {}
    for name in chosen or (*_FIRST, *names("metric")):
        found.setdefault(lookup("metric", name), name)  # some have two names
    return {name: metric for metric, name in found.items()}


@register("metric", "fid")
@register("metric", "frechet")
def frechet(given: MetricInput) -> Iterator[Measurement]:
    """The Frechet distance; in Inception features it is FID."""
    samples, reference = given.samples, given.reference.moments
    complete = samples.vectors is not None and len(samples.vectors) == samples.sample_set.count
    influence = frechet_influence(_vectors(samples), reference) if complete else None
    value = frechet_distance(samples.moments, reference)
    label = given.label("FID", "Frechet distance")
    yield given.measured("frechet", value, better="lower", label=label, influence=influence)


@register("metric", "frechet-infinity")
def frechet_infinity(given: MetricInput) -> Iterator[Measurement]:
    """The Frechet distance, extrapolated to infinitely many samples."""
    rows = _vectors(given.samples)
    if len(rows) >> HALVINGS <= rows.shape[1]:
        raise MissingInputError(
            f"more than {rows.shape[1] << HALVINGS:,} samples for features of {rows.shape[1]:,} numbers"
        )
    value, error = frechet_at_infinity(
        rows, given.reference.moments, halvings=HALVINGS, seed=given.seed
    )
    yield given.measured(
        *("frechet-infinity", value),
        better="lower",
        label=given.label("FID, infinite samples", "Frechet distance, infinite samples"),
        spread=error,
        settings={"halvings": HALVINGS},
    )


@register("metric", "sfid")
@register("metric", "frechet-spatial")
def frechet_spatial(given: MetricInput) -> Iterator[Measurement]:
    """The Frechet distance of spatial activations; in Inception features it is sFID."""
    what = "spatial activations, which these features or statistics do not have"
    a, b = _present(given.samples.spatial, what), _present(given.reference.spatial, what)
    label = given.label("sFID", "spatial Frechet distance")
    yield given.measured("frechet-spatial", frechet_distance(a, b), better="lower", label=label)


@register("metric", "kid")
@register("metric", "kernel")
def kernel(given: MetricInput) -> Iterator[Measurement]:
    """The kernel distance; in Inception features it is KID."""
    a, b = _vectors(given.samples), _vectors(given.reference)
    size, subsets = min(1000, min(len(a), len(b)) // 2), 100
    if size < 2:
        raise MissingInputError("4 samples and 4 reference images")
    value, spread = kernel_distance(a, b, subsets=subsets, subset_size=size, seed=given.seed)
    influence = None
    if len(a) <= MAX_PAIR_ROWS:
        influence = kernel_influence(a, pick_rows(b, MAX_PAIR_ROWS, seed=given.seed))
    yield given.measured(
        *("kernel", value),
        better="lower",
        label=given.label("KID", "kernel distance"),
        spread=spread,
        influence=influence,
        settings={"subsets": f"{subsets} of {size}"},
    )


@register("metric", "precision-recall")
def precision_recall(given: MetricInput) -> Iterator[Measurement]:
    """Precision and recall."""
    found, settings = given.overlap(neighbours=3)
    yield given.mean("precision", found.balls > 0, better="higher", settings=settings)
    yield given.mean("recall", found.recalled, better="higher", settings=settings)


@register("metric", "density-coverage")
def density_coverage(given: MetricInput) -> Iterator[Measurement]:
    """Density and coverage."""
    found, settings = given.overlap(neighbours=5)
    yield given.mean("density", found.balls / 5, better="higher", settings=settings)
    yield given.mean("coverage", found.covered, better="higher", settings=settings)


@register("metric", "inception-score")
def inception(given: MetricInput) -> Iterator[Measurement]:
    """The Inception Score, from the probabilities of the classes."""
    probabilities = _probabilities(given.samples)
    splits = min(10, len(probabilities))
    value, spread = inception_score(probabilities, splits=splits, seed=given.seed)
    yield given.measured(
        *("inception-score", value),
        better="higher",
        label="Inception Score",
        spread=spread,
        influence=inception_influence(probabilities),
        settings={"splits": splits},
    )


@register("metric", "accuracy")
def accuracy(given: MetricInput) -> Iterator[Measurement]:
    """The fraction of samples that are classified as their label."""
    probabilities = _probabilities(given.samples)
    labels = _present(given.samples.labels, "labels of the samples, which have none")
    known, needed = probabilities.shape[1], given.samples.num_classes
    if known != needed:
        raise MissingInputError(
            f"a classifier of the samples' {needed} classes; this one has {known}"
        )
    yield given.mean("accuracy", probabilities.argmax(1) == labels, better="higher")


@register("metric", "memorisation")
def memorisation(given: MetricInput) -> Iterator[Measurement]:
    """Distances to the nearest training image, of samples and of unseen real images.

    `nearest-ratio` is the ratio of the medians: below 1, samples are nearer. `copies` is the fraction of
    samples that are nearer than 99 % of the unseen images; 0.01 is expected of new images.
    """
    for statistics in (given.samples, given.reference):
        _vectors(statistics)  # the distances come from some of these
    samples, real = _present(given.nearest, "the training images: give --training")
    unseen = real[real > 1e-4 * real.max()]  # not 0, as a network may round one image in two ways
    if len(unseen) < 10:
        raise MissingInputError("a reference with images that are not training images")
    settings = {"compared": _counts(samples, unseen)}
    low, value, high = bootstrap(
        lambda a, b: a.median() / b.median(), samples, unseen, seed=given.seed
    )
    yield given.measured("nearest-ratio", value, interval=(low, high), settings=settings)
    copies = samples < unseen.quantile(0.01)
    yield given.mean("copies", copies, better="lower", settings=settings)


def _vectors(statistics: Statistics) -> Tensor:
    return _present(
        statistics.vectors, "feature vectors, which a file of mean and covariance does not hold"
    )


def _probabilities(statistics: Statistics) -> Tensor:
    what = "probabilities of classes: use features that classify, such as classifier:NAME"
    return _present(statistics.probabilities, what)


def _present(value: T | None, what: str) -> T:
    if value is None:
        raise MissingInputError(what)
    return value


def _counts(a: Tensor, b: Tensor) -> str:
    return f"{len(a):,} and {len(b):,}"
