"""Samples against a reference."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import reduce
from importlib.metadata import version

from eqm.evaluation.measures import METRICS, Finding
from eqm.evaluation.protocol import Measurement, Protocol, Subject
from eqm.evaluation.report import Report
from eqm.evaluation.samples import Samples
from eqm.evaluation.statistics import Seen, Statistics, gather
from eqm.features import Features

PROBES = 2_000
"""The most samples, and held-out images, whose nearest training image is looked for."""


@dataclass(frozen=True)
class Reference:
    """What samples are compared with."""

    images: tuple[Samples, ...] | Statistics
    """The parts of a set of images, to be told apart where nothing is held out; or its moments."""
    held_out: Samples | None = None
    """Real images that the model never saw."""
    path: str = ""
    """What it was opened by."""

    @property
    def shape(self) -> tuple[int, ...] | None:
        """Of one image, where that is known."""
        return self.images.shape if isinstance(self.images, Statistics) else self.images[0].shape


def evaluate(
    samples: Samples | Statistics,
    reference: Reference | Samples | Statistics,
    features: Features,
    *,
    metrics: Sequence[str] = (),
    batch_size: int = 256,
    keep: int = 50_000,
    rounding: bool = True,
    seed: int = 0,
) -> Report:
    """The report on samples, as one of `evaluate_each`."""
    return evaluate_each(
        [samples],
        reference,
        features,
        metrics=metrics,
        batch_size=batch_size,
        keep=keep,
        rounding=rounding,
        seed=seed,
    )[0]


def evaluate_each(
    several: Sequence[Samples | Statistics],
    reference: Reference | Samples | Statistics,
    features: Features,
    *,
    metrics: Sequence[str] = (),
    batch_size: int = 256,
    keep: int = 50_000,
    rounding: bool = True,
    seed: int = 0,
) -> tuple[Report, ...]:
    """A report on each of several sets of samples, against a reference that is gone through once.

    Images come a batch at a time and are not kept: the memory does not grow with their number, but
    for the features of the first `keep` of each set, which all but the moments need. By default every
    metric is measured that can be; a report says which could not. Beside each number of the samples
    is that of real images: of held-out ones, or of one half of the reference against the other.

    Raises ValueError for unknown metrics and those that lack something, images of different shapes,
    NaN, and statistics made with other features.
    """
    unknown = [name for name in metrics if name not in METRICS]
    if unknown:
        raise ValueError(f"metrics must be among {', '.join(METRICS)}; got {', '.join(unknown)}")
    if not isinstance(reference, Reference):
        images = reference if isinstance(reference, Statistics) else (reference,)
        reference = Reference(images)
    for one in several:
        _require_alike(one, reference)

    def gathered(images: Samples, probes: Sequence[Statistics] = ()) -> Statistics:
        rows = [probe.vectors[:PROBES] for probe in probes if probe.vectors is not None]
        return gather(
            images, features, batch_size=batch_size, keep=keep, rounding=rounding, probes=rows
        )

    every = [one if isinstance(one, Statistics) else gathered(one) for one in several]
    held_out = None if reference.held_out is None else gathered(reference.held_out)
    probes = [one for one in every if one.vectors is not None] if held_out is not None else []
    floor = None
    if isinstance(reference.images, Statistics):
        whole = reference.images
    else:
        looked_for = [] if held_out is None else [*probes, held_out]
        parts = [gathered(part, looked_for) for part in reference.images]
        whole = reduce(Statistics.merge, parts)
        count = sum(part.moments.count for part in parts)
        whole = replace(whole, subject=replace(whole.subject, count=count))
        if held_out is None and len(parts) == 2:
            floor = (parts[0], parts[1])
    if held_out is not None:
        floor = (held_out, whole)
    sample_size = features.size or len(whole.moments.mean)
    lens = Seen(
        features.name, features.fingerprint, features.resize, "8 bits" if rounding else "none"
    )
    for one in (*every, whole):
        _require_seen(one, lens, sample_size)

    def protocol(a: Subject, b: Subject) -> Protocol:
        return Protocol(
            *(lens.features, lens.fingerprint, len(whole.moments.mean), lens.resize, lens.rounding),
            *(a, b, keep, seed, version("eqm")),
        )

    real: tuple[Measurement, ...] = ()
    if floor is not None:
        a, b = (replace(one, nearest=()) for one in floor)
        found, _ = _measure(a, b, [n for n in metrics or METRICS if n != "memorisation"], (), seed)
        real = _with(protocol(a.subject, b.subject), found, seed)
    reports = []
    for one in every:
        nearest: tuple = ()
        if whole.nearest and one in probes:
            nearest = (whole.nearest[probes.index(one)], whole.nearest[-1])
        found, missing = _measure(
            one, replace(whole, nearest=nearest), metrics or METRICS, metrics, seed
        )
        measured = _with(protocol(one.subject, whole.subject), found, seed)
        notes = (*_warnings(one, whole, floor), *missing)
        reports.append(Report(measured, real, notes))
    return tuple(reports)


def _measure(
    samples: Statistics,
    reference: Statistics,
    names: Sequence[str] | dict[str, object],
    required: Sequence[str],
    seed: int,
) -> tuple[list[Finding], list[str]]:
    """What is found, and why the rest is not."""
    found: list[Finding] = []
    missing = []
    for name in names:
        metric = METRICS[name]
        lack = metric.lacks(samples, reference)
        if lack is None:
            found += metric.measure(samples, reference, seed)
        elif name in required:
            raise ValueError(f"{name} needs {lack}")
        else:
            missing.append(f"{name} is not measured: it needs {lack}")
    return found, missing


def _with(protocol: Protocol, found: Sequence[Finding], seed: int) -> tuple[Measurement, ...]:
    return tuple(
        Measurement(
            one.name,
            one.value,
            protocol,
            one.spread,
            one.bounds(seed),
            dict(one.settings),
            one.influence,
        )
        for one in found
    )


def _warnings(
    samples: Statistics, reference: Statistics, floor: tuple[Statistics, Statistics] | None
) -> list[str]:
    said = []
    size = len(samples.moments.mean)
    for one, what in ((samples, "samples"), (reference, "images of the reference")):
        if one.subject.count is not None and one.subject.count <= size:
            said.append(
                f"{one.subject.count:,} {what} are too few for a Frechet distance of features of "
                f"{size:,} numbers, which then is mostly bias: trust the kernel distance, which has "
                f"none, draw 10 times {size:,} samples, or take smaller features"
            )
    if floor is not None and samples.subject.count is not None:
        there = floor[0].moments.count
        if there < samples.subject.count:
            said.append(
                f"the real images beside are {there:,}, fewer than the samples: their Frechet "
                "distance has more bias than that of the samples; compare frechet-infinity or kernel"
            )
    return said


def _require_alike(samples: Samples | Statistics, reference: Reference) -> None:
    shapes = {"samples": samples.shape, "reference": reference.shape}
    if reference.held_out is not None:
        shapes["held-out images"] = reference.held_out.shape
    if len({shape for shape in shapes.values() if shape is not None}) > 1:
        told = ", ".join(f"{name} {shape}" for name, shape in shapes.items())
        raise ValueError(f"images must have one shape (C, H, W); got {told}: resize some of them")


def _require_seen(statistics: Statistics, lens: Seen, size: int) -> None:
    name, there = statistics.subject.name, len(statistics.moments.mean)
    if there != size:
        raise ValueError(
            f"{name}: the statistics are of features of {there:,} numbers, those of {lens.features} "
            f"have {size:,}: give the features that the statistics were made with"
        )
    if statistics.seen is not None and statistics.seen != lens:
        raise ValueError(
            f"{name}: the statistics were made as {statistics.seen}, the others as {lens}: give the "
            "same features and rounding"
        )
