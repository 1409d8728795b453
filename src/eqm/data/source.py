"""What training asks of a data set, and subsets of one."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any, Protocol

import torch
from torch import Tensor

from eqm.files import printable
from eqm.naming import find_class
from eqm.randomness import SampleRandom

LOG = logging.getLogger("eqm.data")


class MissingDataError(ValueError):
    """The data, or the package that carries or reads them, are not installed."""


class Source(Protocol):
    """N samples of one shape, found by their index, with a label each or none.

    A source may have more attributes:

    * `class_names`, a tuple of str;
    * `in_memory`, True where a batch needs no file; then no batch is loaded ahead on a CPU;
    * `processes`, how many worker processes load batches; 0 or none for a thread;
    * `notes`, a tuple of sentences that say how the data were read;
    * `metadata`, a dict that is stored with the weights of a model of this data;
    * `captions`, a tuple of the sentences of each sample, itself a tuple;
    * `labels_at(rows, random)`, the labels of training, where a sample has several to choose from;
    * `subset(rows, labels, num_classes, class_names)`, which `Subset` replaces where there is none;
    * `divided(fraction)`, the two parts that `split` returns, where they cannot be random: windows of time series.
    """

    @property
    def name(self) -> str:
        """Its name."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of one sample: channels, height and width for images and latents."""

    @property
    def labels(self) -> Tensor | None:
        """The classes, (N,) int64 in 0..num_classes-1, or None."""

    @property
    def num_classes(self) -> int:
        """Number of classes; 0 without labels."""

    @property
    def fingerprint(self) -> str:
        """Hexadecimal digest: equal data have equal fingerprints."""

    def __len__(self) -> int:
        """N."""

    def batch(self, rows: Tensor, random: SampleRandom) -> Tensor:
        """The samples at `rows` (B,), ready for training, (B, *shape), float32.

        Random choices, such as flips, come from `random`, which has one entry a row.
        """


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
        """The name of the source."""
        return self.source.name

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of one sample."""
        return self.source.shape

    @property
    def in_memory(self) -> bool:
        """Whether a batch needs no file."""
        return bool(getattr(self.source, "in_memory", False))

    @property
    def processes(self) -> int:
        """How many worker processes load batches."""
        return getattr(self.source, "processes", 0)

    @property
    def metadata(self) -> dict[str, Any]:
        """What is stored with the weights of a model of this data."""
        return getattr(self.source, "metadata", {})

    @property
    def notes(self) -> tuple[str, ...]:
        """Sentences that say how the data were read."""
        return notes_of(self.source)

    @cached_property
    def fingerprint(self) -> str:
        """Hexadecimal digest of the source's fingerprint, the rows and the labels."""
        return digest(self.source.fingerprint, self.rows, self.labels, self.num_classes)

    def __len__(self) -> int:
        return len(self.rows)

    def batch(self, rows: Tensor, random: SampleRandom) -> Tensor:
        """The samples at `rows` (B,) of this subset, (B, *shape)."""
        return self.source.batch(self.rows[rows], random)


def notes_of(source: object) -> tuple[str, ...]:
    """Sentences that say how the data were read, such as which folder was taken; often none."""
    return tuple(getattr(source, "notes", ()))


def say(notes: Iterable[str]) -> None:
    """Returns nothing; logs each sentence, which the command line prints once."""
    for sentence in notes:
        LOG.info("%s", sentence)


def digest(*values: object) -> str:
    """Hexadecimal digest of tensors by their content and of all else by its text."""
    sha = hashlib.sha256()
    for value in values:
        if isinstance(value, Tensor):
            sha.update(str(tuple(value.shape)).encode())
            for piece in value.split(4096):  # bounds the copy that a transposed array needs
                sha.update(piece.contiguous().numpy().data)
        else:
            sha.update(f"{value};".encode(errors="surrogateescape"))  # names need not be UTF-8
    return sha.hexdigest()[:16]


def subset_of(
    source: Source,
    rows: Tensor,
    labels: Tensor | None,
    class_names: Sequence[str] = (),
    num_classes: int = 0,
) -> Source:
    """The samples of `source` at `rows` (N,) with new labels."""
    make = getattr(source, "subset", None) or partial(Subset, source)
    return make(rows, labels, num_classes, tuple(class_names))


def split(source: Source, fraction: float, *, seed: int = 0) -> tuple[Source, Source]:
    """Two disjoint random subsets of a source; the second has `fraction` of each class.

    The same seed gives the same subsets. Time series are divided in time: the second part comes later, and no
    window of one overlaps the other. Raises ValueError where a subset would be empty.
    """
    divided = getattr(source, "divided", None)
    if divided is not None:
        first, second_half = divided(fraction)
        return first, second_half
    second = second_part(source.labels, len(source), fraction, seed=seed, name=source.name)

    def subset(mask: Tensor) -> Source:
        rows = mask.nonzero().flatten()
        labels = None if source.labels is None else source.labels[rows]
        return subset_of(source, rows, labels, class_names(source), source.num_classes)

    return subset(~second), subset(second)


def second_part(
    labels: Tensor | None, length: int, fraction: float, *, seed: int, name: str
) -> Tensor:
    """A mask (length,) of the samples in the second part of a split."""
    kinds = torch.zeros(length) if labels is None or labels.ndim > 1 else labels
    generator = torch.Generator().manual_seed(seed)
    second = torch.zeros(length, dtype=torch.bool)
    order = kinds.argsort(stable=True)
    for rows in order.split(kinds.unique(return_counts=True)[1].tolist()):
        picked = torch.randperm(len(rows), generator=generator)[: round(fraction * len(rows))]
        second[rows[picked]] = True
    if second.all() or not second.any():
        raise ValueError(
            f"{name}: a fraction of {fraction:g} leaves one part of {length} samples empty: choose "
            "another fraction"
        )
    return second


def class_names(source: Source) -> tuple[str, ...]:
    """The names of the classes; their numbers where they have no names."""
    names: tuple[str, ...] = getattr(source, "class_names", ())
    return names or tuple(str(number) for number in range(source.num_classes))


def of_classes(source: Source, wanted: Sequence[str | int]) -> Source:
    """The samples of some classes, numbered anew in the order of `wanted`.

    Names and numbers are those of `find_class`. Raises ValueError for classes that `source` does not have.
    """
    names = class_names(source)
    if source.labels is None:
        raise ValueError(
            f"{source.name} has no classes to choose from: leave data.classes empty; "
            f"got {', '.join(map(str, wanted))}"
        )
    numbers = []
    for name in wanted:
        number = find_class(name, names)
        if number is None:
            known = ", ".join(map(printable, names))
            raise ValueError(f"{source.name} has no class {name!r}: its classes are {known}")
        numbers.append(number)
    if len(set(numbers)) < len(numbers):
        raise ValueError(f"data.classes names a class twice: {', '.join(map(str, wanted))}")
    renumbered = torch.full((source.num_classes,), -1)
    renumbered[numbers] = torch.arange(len(numbers))
    labels = renumbered[source.labels]
    rows = (labels >= 0).nonzero().flatten()
    return subset_of(source, rows, labels[rows], [names[n] for n in numbers], len(numbers))


def without_labels(source: Source) -> Source:
    """All samples, without their labels."""
    return source if source.labels is None else subset_of(source, torch.arange(len(source)), None)
