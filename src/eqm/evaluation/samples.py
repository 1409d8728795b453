"""Sets of images, read or drawn a batch at a time."""

from __future__ import annotations

import zipfile
import zlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, distributed

from eqm.data import DataConfig, Source
from eqm.data.arrays import from_array
from eqm.data.parts import digest
from eqm.descent import Outcome
from eqm.encoders import Encoder
from eqm.energy import Energy
from eqm.evaluation.protocol import Subject
from eqm.models import Frozen, Network
from eqm.randomness import Draws, generator_at
from eqm.tasks import Sampling, draw


class Batch(NamedTuple):
    """Some images of a set."""

    images: Tensor
    """(B, C, H, W), float32 in -1..1."""
    labels: Tensor | None
    """(B,), or None."""
    numbers: Tensor
    """Their numbers in the set, (B,)."""


@dataclass(frozen=True, eq=False)
class Samples:
    """A set of images that is gone through once, and need not be anywhere as a whole."""

    subject: Subject
    shape: tuple[int, ...]
    """Of one image."""
    batches: Callable[[int], Iterator[Batch]] = field(repr=False)
    """The images, at most so many at a time; under torchrun this process's share of them."""
    metadata: Mapping[str, Any] = field(default_factory=dict, repr=False)
    """That of the model that they are drawn from."""

    def __len__(self) -> int:
        assert self.subject.count is not None  # only files of statistics do not tell
        return self.subject.count


def from_source(source: Source, *, count: int | None = None, skip: int = 0) -> Samples:
    """The images of a source in an order of chance, always the same; `count` of them after `skip`.

    The order matters as sources are often sorted by class, and parts of a set must be like it. Raises
    ValueError for a source of something else, and more images than there are.
    """
    if len(source.shape) != 3:
        raise ValueError(
            f"{source.name}: images have shape (C, H, W); these samples have {source.shape}: "
            "measure them in Python, by eqm.metrics"
        )
    there = len(source) - skip
    if count is not None and not 0 < count <= there:
        raise ValueError(f"count must lie in 1..{there}, what {source.name} has; got {count}")
    generator = generator_at("evaluation", seed=0, position=0)
    order = torch.randperm(len(source), generator=generator)[skip:][:count]

    def batches(size: int) -> Iterator[Batch]:
        rank, ranks = place()
        for numbers in torch.arange(len(order))[rank::ranks].split(size):
            rows = order[numbers]
            labels = None if source.labels is None else source.labels[rows]
            yield Batch(source.batch(rows, Draws(0, numbers)), labels, numbers)

    about = "none" if source.labels is None else f"its own, {source.num_classes} classes"
    subject = Subject(source.name, len(order), source.fingerprint, about)
    return Samples(subject, source.shape, batches)


def from_npz(path: Path | str, *, count: int | None = None) -> Samples:
    """The images of an .npz: `arr_0` (N, H, W, C) as ADM writes samples, or `images`; with labels, if
    there are any, in `arr_1` or `labels`.

    Raises ValueError for another file, values that are neither uint8 nor in -1..1, and NaN.
    """
    path = Path(path)
    arrays = read_npz(path)
    name = "arr_0" if "arr_0" in arrays else "images"
    if name not in arrays:
        raise ValueError(
            f"{path} must hold images as `arr_0` or `images`, or statistics as `mu` and `sigma`; it "
            f"holds {', '.join(sorted(arrays)) or 'nothing'}"
        )
    images = arrays[name]
    if images.dtype.kind == "f" and images.size and images.min() >= 0:
        high = 255 if images.max() > 1.001 else 1
        raise ValueError(
            f"{path}: floating-point images must lie in -1..1; these seem to lie in 0..{high}: store "
            f"{'them' if high == 255 else 'them times 255'} as uint8"
        )
    labels = arrays.get("arr_1" if name == "arr_0" else "labels")
    return from_source(from_array(path.stem, images, labels, DataConfig(str(path))), count=count)


def read_npz(path: Path) -> dict[str, np.ndarray]:
    """The arrays of an .npz by name. Raises ValueError where it is no readable one."""
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as arrays:
            return {name: arrays[name] for name in arrays.files}
    except FileNotFoundError:
        raise ValueError(f"there is no {path}: check the name") from None
    except (ValueError, TypeError, OSError, EOFError, zlib.error, zipfile.BadZipFile) as error:
        raise ValueError(f"{path} is not a readable .npz of plain arrays ({error})") from error


def drawn(
    model: Network | Energy | Frozen,
    encoder: Encoder,
    *,
    name: str,
    count: int,
    seed: int = 0,
    sampling: Sampling | None = None,
) -> Samples:
    """The images that a model generates, drawn while they are measured; the classes take turns.

    Image k starts from noise of seed `seed + k`, so that two models are drawn in pairs. Raises
    ValueError as `eqm.tasks.draw` does, once drawing begins, and where a sample diverges.
    """
    chosen = sampling or Sampling.of(model.metadata)
    classes = model.config.num_classes

    def batches(size: int) -> Iterator[Batch]:
        ends = draw(model, count=count, seed=seed, sampling=chosen, batch_size=size)
        while some := list(islice(ends, size)):
            failed = [end.index for end in some if end.outcome is Outcome.DIVERGED]
            if failed:
                raise ValueError(
                    f"{name}: sample {failed[0]} diverged, and a distance without it would flatter: "
                    "take a smaller step size"
                )
            numbers = torch.tensor([end.index for end in some])
            images = encoder.decode(torch.stack([end.x for end in some])).float()
            yield Batch(images, numbers % classes if classes else None, numbers)

    settings = {"seeds": f"{seed}..{seed + count - 1}", **asdict(chosen)}
    weights = [part for item in model.state_dict().items() for part in item]
    subject = Subject(
        name,
        count,
        digest(*(w.cpu().float() if isinstance(w, Tensor) else w for w in weights)),
        f"{classes} classes in turn" if classes else "none",
        settings,
    )
    return Samples(subject, tuple(encoder.image_shape_of(model.config.shape)), batches, model.metadata)


def place() -> tuple[int, int]:
    """The rank of this process, and how many share the work."""
    if distributed.is_available() and distributed.is_initialized():
        return distributed.get_rank(), distributed.get_world_size()
    return 0, 1
