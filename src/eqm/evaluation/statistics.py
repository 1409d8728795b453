"""What remains of a set of images once features have seen them: moments, and some rows."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from functools import reduce
from itertools import chain
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, distributed

from eqm.devices import world_size
from eqm.evaluation.protocol import FeatureSpec, SampleSet
from eqm.evaluation.samples import Samples, read_npz
from eqm.features import Activations, Features
from eqm.files import replacing
from eqm.metrics import Moments, nearest_distances
from eqm.randomness import generator_at
from eqm.shapes import all_finite

_AT_ONCE = 2048
"""Rows whose moments are taken together: merging costs as much as so many rows of as many entries."""
_LARGEST = 20_000
"""A covariance of more features takes more than 3 GB."""
QUADRATIC = 10_000
"""The most rows that are compared each with each, and that are saved."""
_ROWS = ("vectors", "probabilities", "labels", "numbers")
T = TypeVar("T")


@dataclass(frozen=True)
class Settings:
    """How images are looked at and measured."""

    metrics: tuple[str, ...] = ()
    """By name; by default every one that can be measured."""
    rounding: bool = True
    """Clip values and round them to 8 bits first, as pictures in files are."""
    max_rows: int = 50_000
    """The most rows of features kept of a set, at random, for what needs more than moments."""
    batch_size: int = 256
    seed: int = 0
    """Of subsets and resampling."""

    def __post_init__(self) -> None:
        if self.max_rows < 2 or self.batch_size < 1:
            raise ValueError(
                f"max_rows must be at least 2 and batch_size 1; got {self.max_rows} and {self.batch_size}"
            )


@dataclass(frozen=True, eq=False)
class Statistics:
    """A set of images as metrics need it; of some of them, everything."""

    sample_set: SampleSet
    spec: FeatureSpec | None
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
    numbers: Tensor | None = None
    """Which images the rows are of, (K,)."""

    def merge(self, other: Statistics) -> Statistics:
        """The statistics of both, with the rows of both."""
        rows: dict[str, Any] = {
            name: _joined([getattr(self, name), getattr(other, name)]) for name in _ROWS
        }
        spatial = None
        if self.spatial is not None and other.spatial is not None:
            spatial = self.spatial.merge(other.spatial)
        moments, lowest = self.moments.merge(other.moments), min(self.lowest, other.lowest)
        return replace(self, moments=moments, spatial=spatial, lowest=lowest, **rows)

    def of_some(self, most: int, *, seed: int) -> Statistics:
        """The same with at most so many of the rows, at random."""
        rows: dict[str, Any] = {name: getattr(self, name) for name in _ROWS}
        rows = {k: row if row is None else few(row, most, seed=seed) for k, row in rows.items()}
        return replace(self, **rows)

    def in_order(self) -> Statistics:
        """The same with the rows in the order of their images."""
        rows: dict[str, Any] = {name: getattr(self, name) for name in _ROWS}
        order = rows["numbers"].argsort()
        rows |= {name: row[order] for name, row in rows.items() if row is not None}
        return replace(self, **rows)


def few(rows: Tensor, most: int, *, seed: int) -> Tensor:
    """At most so many of the rows, at random; the same ones of every set of one size."""
    if len(rows) <= most:
        return rows
    return rows[torch.randperm(len(rows), generator=torch.Generator().manual_seed(seed))[:most]]


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
    kept[torch.randperm(len(samples), generator=generator)[: settings.max_rows]] = True
    share: list[Statistics] | None = None
    for block in _blocks(samples, features, settings):
        mine = kept[block.numbers]
        seen = [
            Statistics(
                samples.sample_set,
                spec_of(eyes, settings, size=found.vector.shape[1]),
                moments=Moments.of(found.vector),
                spatial=None if found.spatial is None else Moments.of(found.spatial),
                vectors=_kept(found.vector, mine),
                probabilities=_kept(found.probabilities, mine),
                labels=_kept(block.labels, mine),
                num_classes=samples.num_classes,
                shape=samples.shape,
                lowest=block.lowest,
                numbers=block.numbers[mine],
            )
            for eyes, found in zip(features, block.found, strict=True)
        ]
        share = seen if share is None else [a.merge(b) for a, b in zip(share, seen, strict=True)]
    wholes = [reduce(Statistics.merge, parts) for parts in zip(*_of_all(share), strict=True)]
    return tuple(whole.in_order() for whole in wholes)


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


def spec_of(features: Features, settings: Settings, *, size: int) -> FeatureSpec:
    """How these features see images, as so many numbers each."""
    rounding = "8 bits" if settings.rounding else "none"
    return FeatureSpec(features.name, features.fingerprint, size, features.resize, rounding)


class _Block(NamedTuple):
    numbers: Tensor
    labels: Tensor | None
    lowest: float
    found: list[Activations]
    """By each of the features."""


def _blocks(samples: Samples, features: Sequence[Features], settings: Settings) -> Iterator[_Block]:
    """What features see, many images at a time."""
    waiting: list[tuple[Tensor | None, ...]] = []
    rows = 0
    for images, labels, numbers in samples.batches(settings.batch_size):
        finite = all_finite(images).cpu()
        if not bool(finite.all()):
            bad = numbers[~finite].tolist()
            raise ValueError(
                f"{samples.sample_set.name}: {len(bad)} images hold NaN or infinity, the first is number "
                f"{min(bad)}: remove them"
            )
        seen = [eyes(to_8_bits(images) if settings.rounding else images) for eyes in features]
        if (size := max(found.vector.shape[1] for found in seen)) > _LARGEST:
            raise ValueError(
                f"features must have at most {_LARGEST:,} numbers an image; got {size:,}: choose "
                "others, such as pca:64"
            )
        waiting.append((numbers, labels, images.min()[None], *chain.from_iterable(seen)))
        rows += len(numbers)
        if rows >= _AT_ONCE:
            yield _together(waiting)
            waiting, rows = [], 0
    if waiting:
        yield _together(waiting)


def _together(blocks: Sequence[tuple[Tensor | None, ...]]) -> _Block:
    numbers, labels, lowest, *seen = (_joined(column) for column in zip(*blocks, strict=True))
    assert numbers is not None
    assert lowest is not None
    found = [Activations(*seen[k : k + 3]) for k in range(0, len(seen), 3)]  # type: ignore[arg-type]
    return _Block(numbers, labels, float(lowest.min()), found)


def _joined(parts: Sequence[Tensor | None]) -> Tensor | None:
    there = [part for part in parts if part is not None]
    return torch.cat(there) if len(there) == len(parts) else None


def _kept(rows: Tensor | None, mask: Tensor) -> Tensor | None:
    return None if rows is None else rows[mask.to(rows.device)].cpu()


def _of_all(mine: T | None) -> list[T]:
    """What each process has, on every process, but for those that have nothing."""
    everyone: list[T | None] = [mine] * world_size()
    if len(everyone) > 1:
        distributed.all_gather_object(everyone, mine)
    return [each for each in everyone if each is not None]


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
    if path.suffix != ".safetensors" or statistics.spec is None:
        raise ValueError(f"statistics of known features are saved as .safetensors; got {path}")
    about = {
        "sample_set": asdict(statistics.sample_set),
        "spec": asdict(statistics.spec),
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
    sample_set, spec, shape = SampleSet(path.stem, None, "unknown", "unknown"), None, None
    if about:
        told = json.loads(about)
        sample_set, spec = SampleSet(**told["sample_set"]), FeatureSpec(**told["spec"])
        shape = told["shape"] and tuple(told["shape"])
    # Where the count is unknown 2 stands for it: a distance asks only that there be a covariance.
    count = sample_set.count or 2
    spatial = None
    if "mu_s" in tensors:
        spatial = Moments(tensors["mu_s"], tensors["sigma_s"], count)
    moments = Moments(tensors["mu"], tensors["sigma"], count)
    return Statistics(sample_set, spec, moments, spatial, tensors.get("vectors"), shape=shape)
