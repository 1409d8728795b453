"""Parts of a data set: some of its samples, some of its classes, or none of its labels."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from eqm.data.source import Source
from eqm.randomness import SampleRandom


@dataclass(frozen=True, eq=False)
class Subset:
    """The samples of `source` at `rows` (N,), with their own labels, or none."""

    source: Source
    rows: Tensor
    labels: Tensor | None
    num_classes: int
    class_names: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """That of the whole."""
        return self.source.name

    @property
    def shape(self) -> tuple[int, ...]:
        """Of one sample."""
        return self.source.shape

    @property
    def in_memory(self) -> bool:
        """Whether a batch is at hand without reading files."""
        return bool(getattr(self.source, "in_memory", False))

    @cached_property
    def fingerprint(self) -> str:
        """Hexadecimal digest of the whole's, and of which samples and labels this part has."""
        return digest(self.source.fingerprint, self.rows, self.labels, self.num_classes)

    def __len__(self) -> int:
        return len(self.rows)

    def batch(self, rows: Tensor, draws: SampleRandom) -> Tensor:
        """The samples at `rows` (B,) of this part, (B, *shape)."""
        return self.source.batch(self.rows[rows], draws)


def digest(*parts: object) -> str:
    """Hexadecimal digest of tensors by their content and of all else by its text."""
    sha = hashlib.sha256()
    for part in parts:
        if isinstance(part, Tensor):
            sha.update(str(tuple(part.shape)).encode())
            for piece in part.split(4096):  # bounds the copy that a transposed array needs
                sha.update(piece.contiguous().numpy().data)
        else:
            sha.update(f"{part};".encode(errors="surrogateescape"))  # names need not be UTF-8
    return sha.hexdigest()[:16]


def subset_of(
    source: Source,
    rows: Tensor,
    labels: Tensor | None,
    class_names: Sequence[str] = (),
    num_classes: int = 0,
) -> Source:
    """The samples of `source` at `rows` (N,), relabelled; by its own method `part` where it has one."""
    make = getattr(source, "part", None)
    if make is not None:
        return make(rows, labels, num_classes, tuple(class_names))
    return Subset(source, rows, labels, num_classes, tuple(class_names))


def split(source: Source, share: float, *, seed: int = 0) -> tuple[Source, Source]:
    """Two disjoint parts of any source at random, the second with `share` of each class.

    Without labels, all samples are one class. The same seed gives the same parts. Raises ValueError
    where a part would be empty.
    """
    second = chosen(source.labels, len(source), share, seed=seed, name=source.name)

    def part(mask: Tensor) -> Source:
        rows = mask.nonzero().flatten()
        labels = None if source.labels is None else source.labels[rows]
        return subset_of(source, rows, labels, class_names(source), source.num_classes)

    return part(~second), part(second)


def chosen(labels: Tensor | None, length: int, share: float, *, seed: int, name: str) -> Tensor:
    """Which samples fall to the second part of a split, a mask (length,)."""
    kinds = torch.zeros(length) if labels is None else labels
    generator = torch.Generator().manual_seed(seed)
    second = torch.zeros(length, dtype=torch.bool)
    order = kinds.argsort(stable=True)
    for rows in order.split(kinds.unique(return_counts=True)[1].tolist()):
        picked = torch.randperm(len(rows), generator=generator)[: round(share * len(rows))]
        second[rows[picked]] = True
    if second.all() or not second.any():
        raise ValueError(
            f"{name}: a share of {share:g} leaves one part of {length} images empty: take another share"
        )
    return second


def class_names(source: Source) -> tuple[str, ...]:
    """What the classes of a source are called; their numbers where they have no names."""
    names: tuple[str, ...] = getattr(source, "class_names", ())
    return names or tuple(str(number) for number in range(source.num_classes))


def of_classes(source: Source, wanted: Sequence[str]) -> Source:
    """The samples of some classes, which are numbered anew in the order of `wanted`.

    Raises ValueError for classes that `source` does not have.
    """
    names = class_names(source)
    if source.labels is None:
        raise ValueError(
            f"{source.name} has no classes to choose from: leave data.classes empty; "
            f"got {', '.join(wanted)}"
        )
    numbers = []
    for name in wanted:
        if name in names:
            numbers.append(names.index(name))
        elif name.isdecimal() and int(name) < source.num_classes:
            numbers.append(int(name))
        else:
            raise ValueError(
                f"{source.name} has no class {name!r}: its classes are {', '.join(names)}"
            )
    if len(set(numbers)) < len(numbers):
        raise ValueError(f"data.classes names a class twice: {', '.join(wanted)}")
    renumbered = torch.full((source.num_classes,), -1)
    renumbered[numbers] = torch.arange(len(numbers))
    labels = renumbered[source.labels]
    rows = (labels >= 0).nonzero().flatten()
    return subset_of(source, rows, labels[rows], [names[n] for n in numbers], len(numbers))


def without_labels(source: Source) -> Source:
    """All samples, and no classes."""
    return source if source.labels is None else subset_of(source, torch.arange(len(source)), None)
