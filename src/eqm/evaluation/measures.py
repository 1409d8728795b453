"""The metrics by name: what each needs, and what it finds."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
from torch import Tensor

from eqm.evaluation.protocol import Measurement, Protocol
from eqm.evaluation.statistics import QUADRATIC, Statistics, few
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

HALVINGS = 3
T = TypeVar("T")


class LackingError(ValueError):
    """What a metric needs is not there; the sentence says what."""


@dataclass(frozen=True)
class MetricInput:
    """What is measured."""

    samples: Statistics
    reference: Statistics
    nearest: tuple[Tensor, Tensor] | None
    """How far some samples, and some images of the reference, are from their nearest training image."""
    protocol: Protocol

    @property
    def seed(self) -> int:
        """Of subsets and resampling."""
        return self.protocol.seed

    def found(
        self,
        name: str,
        value: float,
        *,
        spread: float | None = None,
        influence: Tensor | None = None,
        interval: tuple[float, float] | None = None,
        settings: Mapping[str, Any] | None = None,
    ) -> Measurement:
        """A number with its protocol; its interval is that of what each row adds to it, if known."""
        if influence is not None:
            low, _, high = bootstrap(torch.mean, influence, seed=self.seed)
            # Without the last digits, which keep a share that is 0 from being 0.
            interval = (round(value + low, 12) + 0.0, round(value + high, 12) + 0.0)
        return Measurement(
            name, value, self.protocol, spread, interval, dict(settings or {}), influence
        )

    def share(
        self, name: str, rows: Tensor, settings: Mapping[str, Any] | None = None
    ) -> Measurement:
        """The mean of something that each row has."""
        rows = rows.double()
        return self.found(name, float(rows.mean()), influence=rows - rows.mean(), settings=settings)

    def overlap(self, neighbours: int) -> tuple[Overlap, dict[str, Any]]:
        """Which rows lie within reach of each other's, of as many as can be compared each with each,
        and the settings."""
        a, b = (few(_rows(x), QUADRATIC, seed=self.seed) for x in (self.samples, self.reference))
        if min(len(a), len(b)) <= neighbours:
            raise LackingError(f"{neighbours + 1} samples and images of the reference each")
        return overlap(a, b, neighbours=neighbours), {
            "neighbours": neighbours,
            "rows": _counts(a, b),
        }


def _frechet(case: MetricInput) -> Iterator[Measurement]:
    samples, reference = case.samples, case.reference.moments
    every = samples.vectors is not None and len(samples.vectors) == samples.sample_set.count
    influence = frechet_influence(_rows(samples), reference) if every else None
    yield case.found("frechet", frechet_distance(samples.moments, reference), influence=influence)


def _infinity(case: MetricInput) -> Iterator[Measurement]:
    rows = _rows(case.samples)
    if len(rows) >> HALVINGS <= rows.shape[1]:
        raise LackingError(
            f"more than {rows.shape[1] << HALVINGS:,} samples for features of {rows.shape[1]:,} numbers"
        )
    value, error = frechet_at_infinity(
        rows, case.reference.moments, halvings=HALVINGS, seed=case.seed
    )
    yield case.found("frechet-infinity", value, spread=error, settings={"halvings": HALVINGS})


def _spatial(case: MetricInput) -> Iterator[Measurement]:
    what = "spatial activations, which these features or statistics do not have"
    a, b = _present(case.samples.spatial, what), _present(case.reference.spatial, what)
    yield case.found("frechet-spatial", frechet_distance(a, b))


def _kernel(case: MetricInput) -> Iterator[Measurement]:
    a, b = _rows(case.samples), _rows(case.reference)
    size, subsets = min(1000, min(len(a), len(b)) // 2), 100
    if size < 2:
        raise LackingError("4 samples and images of the reference each")
    value, spread = kernel_distance(a, b, subsets=subsets, subset_size=size, seed=case.seed)
    few_enough = len(a) <= QUADRATIC
    influence = kernel_influence(a, few(b, QUADRATIC, seed=case.seed)) if few_enough else None
    settings = {"subsets": f"{subsets} of {size}"}
    yield case.found("kernel", value, spread=spread, influence=influence, settings=settings)


def _precision_recall(case: MetricInput) -> Iterator[Measurement]:
    found, settings = case.overlap(neighbours=3)
    yield case.share("precision", found.balls > 0, settings)
    yield case.share("recall", found.recalled, settings)


def _density_coverage(case: MetricInput) -> Iterator[Measurement]:
    found, settings = case.overlap(neighbours=5)
    yield case.share("density", found.balls / 5, settings)
    yield case.share("coverage", found.covered, settings)


def _inception(case: MetricInput) -> Iterator[Measurement]:
    probabilities = _probabilities(case.samples)
    splits = min(10, len(probabilities))
    value, spread = inception_score(probabilities, splits=splits, seed=case.seed)
    influence = inception_influence(probabilities)
    yield case.found(
        "inception-score", value, spread=spread, influence=influence, settings={"splits": splits}
    )


def _accuracy(case: MetricInput) -> Iterator[Measurement]:
    probabilities = _probabilities(case.samples)
    labels = _present(case.samples.labels, "labels of the samples, which have none")
    told, there = probabilities.shape[1], case.samples.num_classes
    if told != there:
        raise LackingError(f"a classifier of the samples' {there} classes; this one tells {told}")
    yield case.share("accuracy", probabilities.argmax(1) == labels)


def _memorisation(case: MetricInput) -> Iterator[Measurement]:
    for one in (case.samples, case.reference):
        _rows(one)  # of which some are looked for
    mine, real = _present(case.nearest, "images that were trained on: give --training")
    unseen = real[real > 1e-4 * real.max()]  # a network rounds one image in two ways
    if len(unseen) < 10:
        raise LackingError("a reference with images that were not trained on")
    settings = {"probes": _counts(mine, unseen)}
    low, value, high = bootstrap(lambda a, b: a.median() / b.median(), mine, unseen, seed=case.seed)
    yield case.found("nearest-ratio", value, interval=(low, high), settings=settings)
    yield case.share("copies", mine < unseen.quantile(0.01), settings)


def _rows(statistics: Statistics) -> Tensor:
    what = "rows of features, which a file of moments does not hold"
    return _present(statistics.vectors, what)


def _probabilities(statistics: Statistics) -> Tensor:
    what = "probabilities of classes: choose features that classify, as classifier:NAME"
    return _present(statistics.probabilities, what)


def _present(value: T | None, what: str) -> T:
    if value is None:
        raise LackingError(what)
    return value


def _counts(a: Tensor, b: Tensor) -> str:
    return f"{len(a):,} and {len(b):,}"


METRICS: dict[str, Callable[[MetricInput], Iterator[Measurement]]] = {
    "frechet": _frechet,
    "frechet-infinity": _infinity,
    "frechet-spatial": _spatial,
    "kernel": _kernel,
    "precision-recall": _precision_recall,
    "density-coverage": _density_coverage,
    "inception-score": _inception,
    "accuracy": _accuracy,
    "memorisation": _memorisation,
}
"""What can be measured; each raises LackingError where it cannot."""

LOWER = {"frechet", "frechet-infinity", "frechet-spatial", "kernel", "copies"}
HIGHER = {"precision", "recall", "density", "coverage", "inception-score", "accuracy"}


def better(name: str) -> str:
    """Which numbers of a metric are better: lower, higher, or "" for neither."""
    return "lower" if name in LOWER else "higher" if name in HIGHER else ""
