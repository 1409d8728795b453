"""The metrics by name: what each needs, and what it finds."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from eqm.evaluation.statistics import Statistics
from eqm.metrics import (
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

QUADRATIC = 10_000
"""The most rows of either set that are compared each with each."""
HALVINGS = 3
_LACKS = {
    "vectors": "rows of features, which a file of statistics does not hold",
    "spatial": "spatial activations, which these features do not have",
    "probabilities": "probabilities of classes: choose features that classify, as classifier:NAME",
    "labels": "labels of the samples",
    "nearest": "held-out images and images to train on, not statistics: give --held-out",
}


@dataclass(frozen=True)
class Finding:
    """A number, not yet with its protocol."""

    name: str
    value: float
    spread: float | None = None
    influence: Tensor | None = None
    settings: Mapping[str, Any] = field(default_factory=dict)
    interval: tuple[float, float] | None = None

    def bounds(self, seed: int) -> tuple[float, float] | None:
        """Its 95 % confidence interval, by the bootstrap of what each row adds."""
        if self.influence is None:
            return self.interval
        low, _, high = bootstrap(torch.mean, self.influence, seed=seed)
        return self.value + low, self.value + high


@dataclass(frozen=True)
class Metric:
    """How to measure samples against a reference."""

    measure: Callable[[Statistics, Statistics, int], Iterator[Finding]]
    """The last argument is a seed."""
    samples_need: tuple[str, ...] = ()
    reference_needs: tuple[str, ...] = ()
    unfit: Callable[[Statistics], str | None] = lambda samples: None
    """Why samples that have what is needed still do not fit."""

    def lacks(self, samples: Statistics, reference: Statistics) -> str | None:
        """What it needs that is not there, in words; None where it can be measured."""
        for statistics, needs in (
            (samples, self.samples_need),
            (reference, self.reference_needs),
        ):
            for need in needs:
                if getattr(statistics, need) in (None, ()):
                    return _LACKS[need]
        return self.unfit(samples)


def _frechet(samples: Statistics, reference: Statistics, seed: int) -> Iterator[Finding]:
    value = frechet_distance(samples.moments, reference.moments)
    influence = None
    if samples.vectors is not None and len(samples.vectors) == samples.moments.count:
        influence = frechet_influence(samples.vectors, reference.moments)
    yield Finding("frechet", value, influence=influence)


def _spatial(samples: Statistics, reference: Statistics, seed: int) -> Iterator[Finding]:
    assert samples.spatial is not None
    assert reference.spatial is not None
    yield Finding("frechet-spatial", frechet_distance(samples.spatial, reference.spatial))


def _infinity(samples: Statistics, reference: Statistics, seed: int) -> Iterator[Finding]:
    found = frechet_at_infinity(
        _present(samples.vectors), reference.moments, halvings=HALVINGS, seed=seed
    )
    yield Finding("frechet-infinity", *found, settings={"halvings": HALVINGS})


def _kernel(samples: Statistics, reference: Statistics, seed: int) -> Iterator[Finding]:
    a, b = _present(samples.vectors), _present(reference.vectors)
    subsets = 100
    value, spread = kernel_distance(a, b, subsets=subsets, seed=seed)
    settings = {"subsets": subsets, "subset size": min(1000, min(len(a), len(b)) // 2)}
    influence = kernel_influence(a, b[:QUADRATIC]) if len(a) <= QUADRATIC else None
    yield Finding("kernel", value, spread, influence, settings)


def _precision_recall(samples: Statistics, reference: Statistics, seed: int) -> Iterator[Finding]:
    found = overlap(*_few(samples, reference), neighbours=3)
    rows = {"rows": f"{len(found.balls):,} and {len(found.recalled):,}"}
    yield _share("precision", found.balls > 0, {"neighbours": 3, **rows})
    yield _share("recall", found.recalled, {"neighbours": 3, **rows})


def _density_coverage(samples: Statistics, reference: Statistics, seed: int) -> Iterator[Finding]:
    found = overlap(*_few(samples, reference), neighbours=5)
    rows = {"rows": f"{len(found.balls):,} and {len(found.recalled):,}"}
    yield _share("density", found.balls / 5, {"neighbours": 5, **rows})
    yield _share("coverage", found.covered, {"neighbours": 5, **rows})


def _inception(samples: Statistics, reference: Statistics, seed: int) -> Iterator[Finding]:
    probabilities = _present(samples.probabilities)
    splits = min(10, len(probabilities))
    value, spread = inception_score(probabilities, splits=splits, seed=seed)
    influence = inception_influence(probabilities)
    yield Finding("inception-score", value, spread, influence, {"splits": splits})


def _accuracy(samples: Statistics, reference: Statistics, seed: int) -> Iterator[Finding]:
    hits = _present(samples.probabilities).argmax(1) == _present(samples.labels)
    yield _share("accuracy", hits, {})


def _memorisation(samples: Statistics, reference: Statistics, seed: int) -> Iterator[Finding]:
    mine, held_out = reference.nearest
    settings = {"nearest of": f"{reference.moments.count:,}", "held out": f"{len(held_out):,}"}
    low, value, high = bootstrap(
        lambda a, b: a.median() / b.median(), mine, held_out, resamples=1000, seed=seed
    )
    yield Finding("nearest-ratio", value, settings=settings, interval=(low, high))
    near = held_out.quantile(0.01)
    yield _share("copies", mine < near, settings)


def _share(name: str, rows: Tensor, settings: Mapping[str, Any]) -> Finding:
    values = rows.double()
    mean = values.mean()
    return Finding(name, float(mean), influence=values - mean, settings=settings)


def _few(*sets: Statistics) -> Iterator[Tensor]:
    return (_present(each.vectors)[:QUADRATIC] for each in sets)


def _present(rows: Tensor | None) -> Tensor:
    assert rows is not None  # `lacks` has been asked
    return rows


def _too_few_for_infinity(samples: Statistics) -> str | None:
    rows, size = _present(samples.vectors).shape
    if rows >> HALVINGS > size:
        return None
    return f"more than {size << HALVINGS:,} samples for features of {size} numbers; got {rows:,}"


def _other_classes(samples: Statistics) -> str | None:
    classes, labels = _present(samples.probabilities).shape[1], _present(samples.labels)
    if int(labels.max()) + 1 == classes:
        return None
    return f"a classifier of the same classes; this one tells {classes} apart"


METRICS: dict[str, Metric] = {
    "frechet": Metric(_frechet),
    "frechet-infinity": Metric(_infinity, ("vectors",), unfit=_too_few_for_infinity),
    "frechet-spatial": Metric(_spatial, ("spatial",), ("spatial",)),
    "kernel": Metric(_kernel, ("vectors",), ("vectors",)),
    "precision-recall": Metric(_precision_recall, ("vectors",), ("vectors",)),
    "density-coverage": Metric(_density_coverage, ("vectors",), ("vectors",)),
    "inception-score": Metric(_inception, ("probabilities",)),
    "accuracy": Metric(_accuracy, ("probabilities", "labels"), unfit=_other_classes),
    "memorisation": Metric(_memorisation, ("vectors",), ("nearest",)),
}
"""What can be measured."""

BETTER = dict.fromkeys(("frechet", "frechet-infinity", "frechet-spatial", "kernel", "copies"), -1)
BETTER |= dict.fromkeys(
    ("precision", "recall", "density", "coverage", "inception-score", "accuracy"), 1
)
"""1 where higher is better, -1 where lower is; neither for what is not here."""
