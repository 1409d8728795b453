"""What remains of a set of images once features have seen them: moments, and some rows."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import reduce
from pathlib import Path
from typing import TypeVar

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, distributed

from eqm.evaluation.protocol import Lens, Subject
from eqm.evaluation.samples import Samples, read_npz
from eqm.features import Activations, Features
from eqm.files import replacing
from eqm.metrics import Moments, nearest_distances
from eqm.randomness import generator_at
from eqm.shapes import all_finite
from eqm.tasks.generation import place

_AT_ONCE = 2048
"""Rows whose moments are taken together: merging costs as much as so many rows of as many entries."""
_LARGEST = 20_000
"""A covariance of more features takes more than 3 GB."""
QUADRATIC = 10_000
"""The most rows that are compared each with each, and that are saved."""
T = TypeVar("T")


@dataclass(frozen=True)
class Settings:
    """How images are looked at and measured."""

    metrics: tuple[str, ...] = ()
    """By name; by default every one that can be measured."""
    rounding: bool = True
    """Clip values and round them to 8 bits first, as pictures in files are."""
    keep: int = 50_000
    """The most rows of features kept of a set, at random, for what needs more than moments."""
    batch_size: int = 256
    seed: int = 0
    """Of subsets and resampling."""

    def __post_init__(self) -> None:
        if self.keep < 2 or self.batch_size < 1:
            raise ValueError(
                f"keep must be at least 2 and batch_size 1; got {self.keep} and {self.batch_size}"
            )


@dataclass(frozen=True, eq=False)
class Statistics:
    """A set of images as metrics need it; of some of them, everything."""

    subject: Subject
    lens: Lens | None
    """None where a file does not tell."""
    moments: Moments
    spatial: Moments | None = None
    vectors: Tensor | None = None
    """Features of the images kept, (K, D), in their order."""
    probabilities: Tensor | None = None
    """(K, C)"""
    labels: Tensor | None = None
    """(K,)"""
    num_classes: int = 0
    """That the labels are of."""
    shape: tuple[int, ...] | None = None
    """Of one image."""
    lowest: float = -1.0
    """Of all values of all images."""

    def merge(self, other: Statistics) -> Statistics:
        """The statistics of both sets as one, with the rows of both."""
        subject = self.subject
        if subject.count is not None and other.subject.count is not None:
            subject = replace(subject, count=subject.count + other.subject.count)
        return replace(
            self,
            subject=subject,
            moments=self.moments.merge(other.moments),
            spatial=_merged([self.spatial, other.spatial]),
            vectors=_joined([self.vectors, other.vectors]),
            probabilities=_joined([self.probabilities, other.probabilities]),
            labels=_joined([self.labels, other.labels]),
            lowest=min(self.lowest, other.lowest),
        )


def few(rows: Tensor, most: int, *, seed: int) -> Tensor:
    """At most so many of the rows, at random; the same ones of every set of one size."""
    if len(rows) <= most:
        return rows
    return rows[torch.randperm(len(rows), generator=torch.Generator().manual_seed(seed))[:most]]


@dataclass
class _Share:
    """What a process has seen of a set through some features."""

    moments: Moments | None = None
    spatial: Moments | None = None
    rows: list[tuple[Tensor | None, ...]] = field(default_factory=list)
    """Numbers, vectors, probabilities and labels of images kept."""

    def add(self, other: _Share) -> _Share:
        """This share with another's content."""
        self.moments = _merged([self.moments, other.moments])
        self.spatial = _merged([self.spatial, other.spatial])
        self.rows += other.rows
        return self


@torch.no_grad()
def gather(
    samples: Samples, features: Sequence[Features], settings: Settings = Settings()
) -> tuple[Statistics, ...]:
    """The statistics of samples through each of the features, gone through once; the memory that it
    takes does not grow with their number beyond the rows kept.

    Under torchrun every process sees its share, and all of them get the statistics of the whole.
    Raises ValueError for images that are not finite, and for features too large for a covariance.
    """
    generator = generator_at("kept rows", seed=0, position=0)
    kept = torch.zeros(len(samples), dtype=torch.bool)
    kept[torch.randperm(len(samples), generator=generator)[: settings.keep]] = True
    shares, lowest = [_Share() for _ in features], math.inf
    for block in _blocks(samples, features, settings):
        lowest, mine = min(lowest, block.lowest), kept[block.numbers]
        for share, found in zip(shares, block.found, strict=True):
            columns = (block.numbers, found.vector, found.probabilities, block.labels)
            rows = tuple(None if c is None else c[mine.to(c.device)].cpu() for c in columns)
            spatial = None if found.spatial is None else Moments.of(found.spatial)
            share.add(_Share(Moments.of(found.vector), spatial, [rows]))
    everyone = _of_all((shares, lowest))
    lowest = min(low for _, low in everyone)
    wholes = [reduce(_Share.add, parts) for parts in zip(*(s for s, _ in everyone), strict=True)]
    return tuple(
        _statistics(samples, share, lens_of(eyes, settings), lowest)
        for share, eyes in zip(wholes, features, strict=True)
    )


def _statistics(samples: Samples, share: _Share, lens: Lens, lowest: float) -> Statistics:
    assert share.moments is not None  # no set is empty
    numbers, *columns = (_joined(column) for column in zip(*share.rows, strict=True))
    assert numbers is not None
    order = numbers.argsort()
    vectors, probabilities, labels = (None if c is None else c[order] for c in columns)
    return Statistics(
        samples.subject,
        replace(lens, size=len(share.moments.mean)),
        share.moments,
        share.spatial,
        vectors,
        probabilities,
        labels,
        samples.num_classes,
        samples.shape,
        lowest,
    )


@torch.no_grad()
def nearest(
    samples: Samples,
    features: Sequence[Features],
    probes: Sequence[Tensor],
    settings: Settings = Settings(),
) -> list[Tensor]:
    """The distance of each probe (P, D), some for each of the features, to the nearest of all samples,
    (P,) each; under torchrun every process looks at its share."""
    found = [torch.full((len(probe),), math.inf) for probe in probes]
    for block in _blocks(samples, features, settings):
        for k, (probe, seen) in enumerate(zip(probes, block.found, strict=True)):
            distance = nearest_distances(probe.to(seen.vector), seen.vector).distance
            found[k] = torch.minimum(found[k], distance.cpu())
    return [reduce(torch.minimum, parts) for parts in zip(*_of_all(found), strict=True)]


def lens_of(features: Features, settings: Settings) -> Lens:
    """How these features see images."""
    rounding = "8 bits" if settings.rounding else "none"
    return Lens(features.name, features.fingerprint, features.size, features.resize, rounding)


@dataclass(frozen=True)
class _Block:
    numbers: Tensor
    labels: Tensor | None
    found: list[Activations]
    """By each of the features."""
    lowest: float


def _blocks(samples: Samples, features: Sequence[Features], settings: Settings) -> Iterator[_Block]:
    """What features see, many images at a time."""
    waiting: list[_Block] = []
    for images, labels, numbers in samples.batches(settings.batch_size):
        finite = all_finite(images).cpu()
        if not bool(finite.all()):
            bad = numbers[~finite].tolist()
            raise ValueError(
                f"{samples.subject.name}: {len(bad)} images hold NaN or infinity, the first is number "
                f"{min(bad)}: remove them"
            )
        lowest = float(images.min())
        images = to_8_bits(images) if settings.rounding else images
        waiting.append(_Block(numbers, labels, [eyes(images) for eyes in features], lowest))
        if max(len(found.vector[0]) for found in waiting[0].found) > _LARGEST:
            raise ValueError(
                f"features of {samples.subject.name} must have at most {_LARGEST:,} numbers an image; "
                f"got {len(waiting[0].found[0].vector[0]):,}: choose others, such as pca:64"
            )
        if sum(len(block.numbers) for block in waiting) >= _AT_ONCE:
            yield _together(waiting)
            waiting = []
    if waiting:
        yield _together(waiting)


def _together(blocks: Sequence[_Block]) -> _Block:
    """Several blocks as one."""
    return _Block(
        torch.cat([block.numbers for block in blocks]),
        _joined([block.labels for block in blocks]),
        [
            Activations(*map(_joined, zip(*parts, strict=True)))  # type: ignore[arg-type]
            for parts in zip(*(block.found for block in blocks), strict=True)
        ],
        min(block.lowest for block in blocks),
    )


def _joined(parts: Sequence[Tensor | None]) -> Tensor | None:
    there = [part for part in parts if part is not None]
    return torch.cat(there) if len(there) == len(parts) else None


def _merged(parts: Sequence[Moments | None]) -> Moments | None:
    there = [part for part in parts if part is not None]
    return reduce(Moments.merge, there) if there else None


def _of_all(mine: T) -> list[T]:
    """What each process has, on every process."""
    ranks = place()[1]
    if ranks == 1:
        return [mine]
    all_of_them: list[T | None] = [None] * ranks
    distributed.all_gather_object(all_of_them, mine)
    return all_of_them  # type: ignore[return-value]  # each is filled


def to_8_bits(images: Tensor) -> Tensor:
    """Images in -1..1 with the values that they have once stored as bytes.

    >>> to_8_bits(torch.tensor([-2.0, 0.999]))
    tensor([-1.,  1.])
    """
    return images.add(1).mul_(127.5).round_().clamp_(0, 255).div_(127.5).sub_(1)


def save_statistics(path: Path | str, statistics: Statistics) -> None:
    """Returns nothing; writes what metrics need of a reference to a .safetensors, with what it is of.

    Rows of features are cut to QUADRATIC. Raises ValueError for another suffix or statistics that do
    not tell their features, and OSError where it cannot be written.
    """
    path = Path(path)
    if path.suffix != ".safetensors" or statistics.lens is None:
        raise ValueError(f"statistics of known features are saved as .safetensors; got {path}")
    about = {
        "subject": asdict(statistics.subject),
        "lens": asdict(statistics.lens),
        "shape": statistics.shape,
    }
    tensors = {"mu": statistics.moments.mean, "sigma": statistics.moments.covariance}
    if statistics.spatial is not None:
        tensors |= {"mu_s": statistics.spatial.mean, "sigma_s": statistics.spatial.covariance}
    if statistics.vectors is not None:
        tensors["vectors"] = few(statistics.vectors, QUADRATIC, seed=0)
    tensors = {name: tensor.contiguous() for name, tensor in tensors.items()}
    with replacing(path) as temporary:
        save_file(tensors, temporary, {"about": json.dumps(about)})


def open_statistics(path: Path | str) -> Statistics:
    """The statistics that `save_statistics` wrote, or the moments in an .npz of `mu` and `sigma`, maybe
    with `mu_s` and `sigma_s`, as ADM and pytorch-fid write them.

    The latter do not tell their count or features: that those fit is for the caller to know, but for
    their number. Raises ValueError for another file.
    """
    path, about = Path(path), ""
    if path.suffix == ".npz":
        arrays = read_npz(path)
        names = arrays.keys() & {"mu", "sigma", "mu_s", "sigma_s"}
        tensors = {name: torch.from_numpy(arrays[name].copy()) for name in names}
    else:
        try:
            with safe_open(path, "pt") as file:
                about = (file.metadata() or {}).get("about", "")
                tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        except (SafetensorError, OSError) as error:
            raise ValueError(f"{path} is not a whole safetensors file ({error})") from error
    if not {"mu", "sigma"} <= tensors.keys() or ("mu_s" in tensors) != ("sigma_s" in tensors):
        raise ValueError(
            f"{path} must hold mu and sigma, and mu_s and sigma_s or neither; it holds "
            f"{', '.join(sorted(tensors)) or 'nothing of these'}"
        )
    subject, lens, shape = Subject(path.stem, None, "unknown", "unknown"), None, None
    if about:
        told = json.loads(about)
        subject, lens = Subject(**told["subject"]), Lens(**told["lens"])
        shape = told["shape"] and tuple(told["shape"])
    # Where the count is unknown 2 stands for it: a distance asks only that there be a covariance.
    count = subject.count or 2
    spatial = None
    if "mu_s" in tensors:
        spatial = Moments(tensors["mu_s"], tensors["sigma_s"], count)
    moments = Moments(tensors["mu"], tensors["sigma"], count)
    return Statistics(subject, lens, moments, spatial, tensors.get("vectors"), shape=shape)
