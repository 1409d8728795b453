"""The statistics of a set of images: mean, covariance and some feature vectors."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from functools import reduce
from itertools import chain
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import torch
from safetensors.torch import save_file
from torch import Tensor, distributed

from eqm.checks import check_path
from eqm.data.array_files import read_npz
from eqm.devices import world_size
from eqm.evaluation.protocol import FeatureSpec, SampleSet
from eqm.evaluation.samples import Samples
from eqm.features import Activations, Features
from eqm.features.features import joined
from eqm.files import printable, replacing
from eqm.metrics import Moments, nearest_distances
from eqm.randomness import generator_at
from eqm.schema import parse_json
from eqm.shapes import all_finite
from eqm.tensor_files import open_tensors

_MERGED_ROWS = 2048  # rows per batch of moments; a merge costs about as much as this many rows
_MAX_SIZE = 20_000  # the longest feature vector; a larger covariance takes more than 3 GB
MAX_PAIR_ROWS = 10_000  # the most rows that are compared in pairs, and that are saved
_ROWS = ("vectors", "probabilities", "labels", "numbers")
T = TypeVar("T")


@dataclass(frozen=True)
class Settings:
    """What is measured, and how."""

    metrics: tuple[str, ...] = ()
    """Names of metrics; by default every metric that can be measured."""
    rounding: bool = True
    """Clip image values and round them to 8 bits first, like images in files."""
    max_rows: int = 50_000
    """The most feature vectors kept of a set, at random, for metrics that need more than moments."""
    batch_size: int = 256
    seed: int = 0
    """The seed of subsets and resampling."""

    def __post_init__(self) -> None:
        if self.max_rows < 2 or self.batch_size < 1:
            raise ValueError(
                f"max_rows must be at least 2 and batch_size at least 1; got {self.max_rows} and {self.batch_size}"
            )


@dataclass(frozen=True, eq=False)
class Statistics:
    """What metrics need of a set of images, in one kind of features."""

    sample_set: SampleSet
    spec: FeatureSpec | None
    """None if a file does not say."""
    moments: Moments
    spatial: Moments | None = None
    vectors: Tensor | None = None
    """Feature vectors of the images kept, (K, D), in the order of the images."""
    probabilities: Tensor | None = None
    """(K, C)"""
    labels: Tensor | None = None
    """(K,)"""
    num_classes: int = 0
    """The number of classes of the labels."""
    shape: tuple[int, ...] | None = None
    """The shape of one image."""
    lowest: float = -1.0
    """The lowest value of all images."""
    numbers: Tensor | None = None
    """The index of each row's image, (K,)."""

    def merge(self, other: Statistics) -> Statistics:
        """The statistics of both, with the rows of both."""
        rows: dict[str, Any] = {
            name: joined([getattr(self, name), getattr(other, name)]) for name in _ROWS
        }
        spatial = None
        if self.spatial is not None and other.spatial is not None:
            spatial = self.spatial.merge(other.spatial)
        moments, lowest = self.moments.merge(other.moments), min(self.lowest, other.lowest)
        return replace(self, moments=moments, spatial=spatial, lowest=lowest, **rows)

    def with_rows(self, count: int, *, seed: int) -> Statistics:
        """These statistics with at most `count` of the rows, at random."""
        return self._each_rows(lambda rows: pick_rows(rows, count, seed=seed))

    def in_order(self) -> Statistics:
        """These statistics with the rows in the order of the images."""
        assert self.numbers is not None
        order = self.numbers.argsort()
        return self._each_rows(lambda rows: rows[order])

    def _each_rows(self, function: Callable[[Tensor], Tensor]) -> Statistics:
        rows: dict[str, Any] = {name: getattr(self, name) for name in _ROWS}
        rows = {name: None if each is None else function(each) for name, each in rows.items()}
        return replace(self, **rows)


def pick_rows(rows: Tensor, count: int, *, seed: int) -> Tensor:
    """At most `count` rows, at random; sets of equal size give the same indices."""
    if len(rows) <= count:
        return rows
    return rows[torch.randperm(len(rows), generator=torch.Generator().manual_seed(seed))[:count]]


@torch.no_grad()
def gather(
    samples: Samples, features: Sequence[Features], settings: Settings = Settings()
) -> tuple[Statistics, ...]:
    """The statistics of samples in each of the features, from one pass over the images.

    Memory grows with the number of rows kept, not with the number of images. Under torchrun each
    process reads its part of the images, and every process gets the statistics of all. Raises ValueError
    for images that are not finite, and for feature vectors too long for a covariance.
    """
    generator = generator_at("kept rows", seed=0, position=0)
    kept = torch.zeros(len(samples), dtype=torch.bool)
    kept[torch.randperm(len(samples), generator=generator)[: settings.max_rows]] = True
    total: list[Statistics] | None = None
    for block in _blocks(samples, features, settings):
        mask = kept[block.numbers]
        found = [
            Statistics(
                samples.sample_set,
                spec_of(one, settings, size=activations.vector.shape[1], shape=samples.shape),
                moments=Moments.of(activations.vector),
                spatial=None if activations.spatial is None else Moments.of(activations.spatial),
                vectors=_masked(activations.vector, mask),
                probabilities=_masked(activations.probabilities, mask),
                labels=_masked(block.labels, mask),
                num_classes=samples.num_classes,
                shape=samples.shape,
                lowest=block.lowest,
                numbers=block.numbers[mask],
            )
            for one, activations in zip(features, block.activations, strict=True)
        ]
        total = found if total is None else [a.merge(b) for a, b in zip(total, found, strict=True)]
    merged = (reduce(Statistics.merge, parts) for parts in zip(*_all_gather(total), strict=True))
    return tuple(statistics.in_order() for statistics in merged)


@torch.no_grad()
def nearest(
    samples: Samples,
    features: Sequence[Features],
    queries: Sequence[Tensor],
    settings: Settings = Settings(),
) -> list[Tensor]:
    """The distance of each query to the nearest sample, (Q,) for queries (Q, D), for each of the features.

    Under torchrun each process reads its part of the samples.
    """
    found = [torch.full((len(query),), math.inf) for query in queries]
    for block in _blocks(samples, features, settings):
        for k, (query, one) in enumerate(zip(queries, block.activations, strict=True)):
            distance = nearest_distances(query.to(one.vector), one.vector).distance
            found[k] = torch.minimum(found[k], distance.cpu())
    return [reduce(torch.minimum, parts) for parts in zip(*_all_gather(found), strict=True)]


def spec_of(
    features: Features, settings: Settings, *, size: int, shape: Sequence[int] | None
) -> FeatureSpec:
    """The spec of features with vectors of this size, of samples of this shape. Only pictures are rounded."""
    rounding = "8 bits" if settings.rounding and (shape is None or len(shape) == 3) else "none"
    return FeatureSpec(features.name, features.fingerprint, size, features.resize, rounding)


class _Block(NamedTuple):
    numbers: Tensor
    labels: Tensor | None
    lowest: float
    activations: list[Activations]
    """One for each of the features."""


def _blocks(samples: Samples, features: Sequence[Features], settings: Settings) -> Iterator[_Block]:
    """The activations of all samples, some batches together."""
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
        if settings.rounding and images.ndim == 4:
            images = to_8_bits(images)
        found = [one(images) for one in features]
        if (size := max(one.vector.shape[1] for one in found)) > _MAX_SIZE:
            raise ValueError(
                f"features must have at most {_MAX_SIZE:,} numbers per image; got {size:,}: use other "
                "features, such as pca:64"
            )
        waiting.append((numbers, labels, images.min()[None], *chain.from_iterable(found)))
        rows += len(numbers)
        if rows >= _MERGED_ROWS:
            yield _together(waiting)
            waiting, rows = [], 0
    if waiting:
        yield _together(waiting)


def _together(blocks: Sequence[tuple[Tensor | None, ...]]) -> _Block:
    numbers, labels, lowest, *rest = (joined(column) for column in zip(*blocks, strict=True))
    assert numbers is not None
    assert lowest is not None
    activations = [Activations(*rest[k : k + 3]) for k in range(0, len(rest), 3)]  # type: ignore[arg-type]
    return _Block(numbers, labels, float(lowest.min()), activations)


def _masked(rows: Tensor | None, mask: Tensor) -> Tensor | None:
    return None if rows is None else rows[mask.to(rows.device)].cpu()


def _all_gather(mine: T | None) -> list[T]:
    """The values of all processes but None, on every process."""
    everyone: list[T | None] = [mine] * world_size()
    if len(everyone) > 1:
        distributed.all_gather_object(everyone, mine)
    return [each for each in everyone if each is not None]


def to_8_bits(images: Tensor) -> Tensor:
    """Images in -1..1, rounded to the values that 8 bits can hold.

    >>> to_8_bits(torch.tensor([-2.0, 0.999]))
    tensor([-1.,  1.])
    """
    return images.add(1).mul_(127.5).round_().clamp_(0, 255).div_(127.5).sub_(1)


def save_statistics(path: Path | str, statistics: Statistics) -> None:
    """Returns nothing; writes the statistics of a reference to a .safetensors file.

    At most MAX_PAIR_ROWS feature vectors are written. Raises ValueError for another suffix or unknown
    features, and OSError if the file cannot be written.
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
        tensors["vectors"] = pick_rows(statistics.vectors, MAX_PAIR_ROWS, seed=0)
    tensors = {name: tensor.contiguous() for name, tensor in tensors.items()}
    with replacing(path) as temporary:
        save_file(tensors, temporary, {"about": json.dumps(about)})


def open_statistics(path: Path | str) -> Statistics:
    """Statistics from a file of `save_statistics`, or from an .npz of ADM or pytorch-fid.

    The .npz holds `mu` and `sigma`, and may hold `mu_s` and `sigma_s`. It does not say how many images
    or which features it comes from, so only the length of the vectors can be checked. Raises ValueError
    for another file.
    """
    check_path(path=path)
    path, about = Path(path), None
    if path.suffix == ".npz":
        arrays = read_npz(path)
        names = arrays.keys() & {"mu", "sigma", "mu_s", "sigma_s"}
        if strange := [name for name in sorted(names) if arrays[name].dtype.kind not in "fiu"]:
            raise ValueError(
                f"{path}: {strange[0]} must hold numbers; got {arrays[strange[0]].dtype}"
            )
        tensors = {name: torch.from_numpy(arrays[name].copy()) for name in names}
    else:
        with open_tensors(path) as file:
            text = (file.metadata() or {}).get("about")
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        about = None if text is None else parse_json(text, _About, f"{path}, about")
    if not {"mu", "sigma"} <= tensors.keys() or ("mu_s" in tensors) != ("sigma_s" in tensors):
        raise ValueError(
            f"{path} must hold mu and sigma, and mu_s and sigma_s or neither; it holds "
            f"{', '.join(map(printable, sorted(tensors))) or 'none of these'}"
        )
    sample_set = (
        SampleSet(path.stem, None, "unknown", "unknown") if about is None else about.sample_set
    )
    # 2 stands for an unknown count, the least that has a covariance.
    count = sample_set.count or 2
    try:
        moments = Moments(tensors["mu"], tensors["sigma"], count)
        spatial = Moments(tensors["mu_s"], tensors["sigma_s"], count) if "mu_s" in tensors else None
        vectors = tensors.get("vectors")
        if vectors is not None:
            kept = Moments.of(vectors)  # checks them
            if len(kept.mean) != len(moments.mean):
                raise ValueError(
                    f"vectors must have as many columns as mu, {len(moments.mean)}; got {len(kept.mean)}"
                )
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error
    if about is None:
        return Statistics(sample_set, None, moments, spatial, vectors)
    if about.spec.size != len(moments.mean):
        raise ValueError(
            f"{path} must hold {about.spec.size} numbers per image, as it says; got {len(moments.mean)}"
        )
    return Statistics(sample_set, about.spec, moments, spatial, vectors, shape=about.shape)


@dataclass(frozen=True)
class _About:
    """What a file of `save_statistics` says of itself."""

    sample_set: SampleSet
    spec: FeatureSpec
    shape: tuple[int, ...] | None
