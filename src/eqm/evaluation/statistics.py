"""What remains of a set of images once a network has seen them: moments, and some rows."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from functools import reduce
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, distributed

from eqm.evaluation.protocol import Subject
from eqm.evaluation.samples import Samples, place, read_npz
from eqm.features import Features
from eqm.files import replacing
from eqm.metrics import Moments, nearest_distances

_AT_ONCE = 2048
"""Rows whose moments are taken together: merging costs as much as so many rows of as many entries."""
_ARRAYS = ("mu", "sigma", "mu_s", "sigma_s")


@dataclass(frozen=True)
class Seen:
    """Through which eyes: statistics of other features do not compare."""

    features: str
    fingerprint: str
    resize: str
    rounding: str


@dataclass(frozen=True, eq=False)
class Statistics:
    """A set of images as measures need it; of the first `kept` of them, everything."""

    subject: Subject
    seen: Seen | None
    """None where a file does not tell."""
    moments: Moments
    spatial: Moments | None = None
    numbers: Tensor | None = None
    """Which images the rows are of, in order, (K,)."""
    vectors: Tensor | None = None
    """(K, D)"""
    probabilities: Tensor | None = None
    """(K, C)"""
    labels: Tensor | None = None
    """(K,)"""
    nearest: tuple[Tensor, ...] = ()
    """For each set of probes, the distance of each to the nearest of all these images."""
    shape: tuple[int, ...] | None = None
    """Of one image."""

    def merge(self, other: Statistics) -> Statistics:
        """The statistics of both sets as one, rows in the order of their numbers."""
        spatial = None
        if self.spatial is not None and other.spatial is not None:
            spatial = self.spatial.merge(other.spatial)
        rows = {name: getattr(self, name) for name in _ROWS}
        if self.numbers is not None and other.numbers is not None and len(other.numbers):
            order = torch.cat([self.numbers, other.numbers]).argsort(stable=True)
            for name, mine in rows.items():
                theirs = getattr(other, name)
                both = mine is not None and theirs is not None
                rows[name] = torch.cat([mine, theirs])[order] if both else None
        pairs = zip(self.nearest, other.nearest, strict=True)
        nearest = tuple(torch.minimum(a, b) for a, b in pairs)
        moments = self.moments.merge(other.moments)
        return replace(self, moments=moments, spatial=spatial, nearest=nearest, **rows)


_ROWS = ("numbers", "vectors", "probabilities", "labels")


@torch.no_grad()
def gather(
    samples: Samples,
    features: Features,
    *,
    batch_size: int = 256,
    keep: int = 50_000,
    rounding: bool = True,
    probes: Sequence[Tensor] = (),
) -> Statistics:
    """The statistics of samples, gone through once; the memory it takes does not grow with their
    number beyond `keep` rows of features.

    With `rounding` values are first clipped and rounded to 8 bits, as pictures in files are. `probes`
    (P, D) are features whose distance to the nearest of the samples is wanted. Under torchrun every
    process sees its share, and all of them get the statistics of the whole.

    Raises ValueError for images that are not finite.
    """
    share: Statistics | None = None
    seen = Seen(
        features.name, features.fingerprint, features.resize, "8 bits" if rounding else "none"
    )
    for block in _blocks(samples, features, batch_size, rounding):
        numbers, vectors, spatial, probabilities, labels = block
        kept = numbers < keep

        def of_kept(rows: Tensor | None, kept: Tensor = kept) -> Tensor | None:
            return None if rows is None else rows[kept.to(rows.device)].cpu()

        found = Statistics(
            samples.subject,
            seen,
            Moments.of(vectors),
            None if spatial is None else Moments.of(spatial),
            *(numbers[kept], of_kept(vectors), of_kept(probabilities), of_kept(labels)),
            tuple(nearest_distances(probe.to(vectors), vectors).distance.cpu() for probe in probes),
            samples.shape,
        )
        share = found if share is None else share.merge(found)
    if place()[1] == 1:
        assert share is not None  # no set is empty
        return share
    shares: list[Statistics | None] = [None] * place()[1]
    distributed.all_gather_object(shares, share)
    return reduce(lambda a, b: a.merge(b), [each for each in shares if each is not None])


def _blocks(
    samples: Samples, features: Features, batch_size: int, rounding: bool
) -> Iterator[tuple[Tensor, Tensor, Tensor | None, Tensor | None, Tensor | None]]:
    """Numbers, vectors, spatial activations, probabilities and labels, many rows at a time."""
    waiting: list[tuple[Tensor | None, ...]] = []
    rows = 0

    def together() -> Any:
        columns = zip(*waiting, strict=True)
        return tuple(
            None if parts[0] is None else torch.cat([part for part in parts if part is not None])
            for parts in columns
        )

    for images, labels, numbers in samples.batches(batch_size):
        if not bool(images.isfinite().all()):
            bad = numbers[~images.isfinite().flatten(1).all(1).cpu()].tolist()
            raise ValueError(
                f"{samples.subject.name}: {len(bad)} images hold NaN or infinity, the first is "
                f"number {bad[0]}: remove them"
            )
        waiting.append((numbers, *features(to_8_bits(images) if rounding else images), labels))
        rows += len(numbers)
        if rows >= _AT_ONCE:
            yield together()
            waiting, rows = [], 0
    if waiting:
        yield together()


def to_8_bits(images: Tensor) -> Tensor:
    """Images in -1..1 with the values that they have once stored as bytes.

    >>> to_8_bits(torch.tensor([-2.0, 0.999]))
    tensor([-1.,  1.])
    """
    return images.add(1).mul(127.5).round_().clamp_(0, 255).div_(127.5).sub_(1)


def save_statistics(path: Path | str, statistics: Statistics) -> None:
    """Returns nothing; writes moments to an .npz, whose `mu`, `sigma`, `mu_s` and `sigma_s` other
    programs read too, or a .safetensors, with what they are the moments of.

    Raises ValueError for another suffix, and OSError where it cannot be written.
    """
    path = Path(path)
    _require_suffix(path)
    assert statistics.seen is not None
    about = json.dumps(
        {
            "subject": asdict(statistics.subject),
            "seen": asdict(statistics.seen),
            "shape": statistics.shape,
        }
    )
    moments = {"": statistics.moments, "_s": statistics.spatial}
    tensors = {
        f"{name}{suffix}": value
        for suffix, moment in moments.items()
        if moment is not None
        for name, value in (("mu", moment.mean), ("sigma", moment.covariance))
    }
    with replacing(path) as temporary:
        if path.suffix == ".safetensors":
            save_file({k: v.contiguous() for k, v in tensors.items()}, temporary, {"about": about})
        else:
            arrays: dict[str, Any] = {name: tensor.numpy() for name, tensor in tensors.items()}
            with temporary.open("wb") as file:
                np.savez(file, about=np.array(about), **arrays)


def open_statistics(path: Path | str) -> Statistics:
    """The moments in an .npz or .safetensors that `save_statistics` wrote, or an .npz of `mu` and
    `sigma`, maybe with `mu_s` and `sigma_s`, as ADM and pytorch-fid write them.

    The latter do not tell their count or features: that those fit is for the caller to know, but for
    their number. Raises ValueError for another file.
    """
    path = Path(path)
    _require_suffix(path)
    if path.suffix == ".npz":
        arrays = read_npz(path)
        about = str(arrays.pop("about", ""))
        tensors = {
            name: torch.from_numpy(value) for name, value in arrays.items() if name in _ARRAYS
        }
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
    subject, seen, shape = Subject(path.stem, None, "unknown", "unknown"), None, None
    if about:
        told = json.loads(about)
        subject, seen = Subject(**told["subject"]), Seen(**told["seen"])
        shape = told["shape"] and tuple(told["shape"])
    # Where the count is unknown 2 stands for it: a distance asks only that there be a covariance.
    count = subject.count or 2
    spatial = None
    if "mu_s" in tensors:
        spatial = Moments(tensors["mu_s"], tensors["sigma_s"], count)
    moments = Moments(tensors["mu"], tensors["sigma"], count)
    return Statistics(subject, seen, moments, spatial, shape=shape)


def _require_suffix(path: Path) -> None:
    if path.suffix not in (".npz", ".safetensors"):
        raise ValueError(f"statistics are .npz or .safetensors files; got {path}")
