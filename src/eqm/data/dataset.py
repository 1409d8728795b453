"""To and from PyTorch's Dataset and DataLoader."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import (
    BatchSampler,
    DataLoader,
    Dataset,
    IterableDataset,
    RandomSampler,
    SequentialSampler,
    TensorDataset,
    default_collate,
)

from eqm.data.images import Images, Tensors, int_labels, warn_of_range
from eqm.data.source import Source, digest
from eqm.randomness import SampleRandom


def as_dataset(source: Source) -> Dataset[Any]:
    """A map-style PyTorch Dataset of a source: sample k is a tensor, or (tensor, label).

    A DataLoader may read it in worker processes, forked or spawned. Flips and the like come from
    torch's global random numbers, as in other Datasets.

    >>> from eqm.data import digits
    >>> loader = torch.utils.data.DataLoader(as_dataset(digits()), batch_size=64, shuffle=True)
    >>> [tuple(x.shape) for x in next(iter(loader))]
    [(64, 1, 8, 8), (64,)]
    """
    return _SourceDataset(source)


@dataclass(frozen=True, eq=False)
class _SourceDataset(Dataset[Any]):
    source: Source

    def __len__(self) -> int:
        return len(self.source)

    def __getitem__(self, row: int) -> Any:
        if not 0 <= row < len(self):
            raise IndexError(f"{self.source.name} has samples 0 to {len(self) - 1}; got {row}")
        return self.__getitems__([row])[0]

    def __getitems__(self, rows: list[int]) -> list[Any]:
        """Several samples; a DataLoader asks for a batch at once."""
        at = torch.tensor(rows)
        seed = int(torch.randint(2**62, ()))
        samples = self.source.batch(at, SampleRandom(seed, at)).unbind()
        labels = self.source.labels
        return list(samples if labels is None else zip(samples, labels[at], strict=True))


def as_source(data: Any, *, name: str = "data") -> Source:
    """`data` as a source that `train` takes.

    * A tensor or array (N, ...), or a pair (x, y) with whole numbers y (N,). Images are
      (N, C, H, W), floating point in -1..1 or uint8. Other shapes may have any finite values.
    * A map-style Dataset, or a list, of tensors or (tensor, label) pairs of one shape. Samples are
      read when training needs them, so the fingerprint covers only labels and length.
    * A DataLoader: its Dataset, read by as many worker processes. Training has its own batch size
      and order.
    * A source, which comes back unchanged.

    Raises ValueError for anything else.

    >>> as_source((torch.zeros(4, 1, 8, 8), torch.tensor([0, 1, 1, 0]))).num_classes
    2
    """
    if isinstance(data, DataLoader):
        source = as_source(data.dataset, name=name)
        _check_loader(data)
        return replace(source, processes=data.num_workers) if isinstance(source, _Read) else source
    if isinstance(data, _SourceDataset):
        return data.source
    if isinstance(data, TensorDataset):
        data = data.tensors
    if isinstance(data, Tensor | np.ndarray):
        data = (data,)
    if isinstance(data, tuple) and 1 <= len(data) <= 2:
        tensors = _tensors(name, *data)
        warn_of_range(name, tensors.data)
        return tensors
    if hasattr(data, "batch") and hasattr(data, "fingerprint"):
        return data
    numbered = hasattr(data, "__getitem__") and hasattr(data, "__len__")
    if not numbered or isinstance(data, str | dict):
        kind = "an IterableDataset" if isinstance(data, IterableDataset) else type(data).__name__
        raise ValueError(
            "data must be a tensor, a pair (x, y), a Dataset with [] and len(), its DataLoader, or a "
            f"source; got {kind}: use open_source(DataConfig(path)) for a path or name; a stream cannot "
            "be trained on, as a run could not resume in it"
        )
    return _read(name, data)


def _tensors(name: str, x: Any, y: Any = None) -> Tensors:
    """Samples in memory, checked."""
    x = torch.as_tensor(x).detach().cpu()
    if x.is_floating_point():
        x = x.float()
    labels, classes = int_labels(name, None if y is None else torch.as_tensor(y).cpu().numpy())
    if x.ndim != 4:
        return Tensors(name, x, labels, classes)
    if x.shape[3] in (1, 3, 4) and x.shape[1] > 4:
        raise ValueError(
            f"{name}: images must have shape (N, C, H, W); got {tuple(x.shape)}: pass "
            "x.permute(0, 3, 1, 2)"
        )
    return Images(name, x, labels, classes)


def _check_loader(loader: DataLoader[Any]) -> None:
    sampler, batch_sampler = loader.sampler, loader.batch_sampler
    plain = isinstance(sampler, SequentialSampler | RandomSampler)
    drawn_twice = isinstance(sampler, RandomSampler) and sampler.replacement
    own = type(batch_sampler) is not BatchSampler or loader.collate_fn is not default_collate
    if not plain or drawn_twice or own:
        raise ValueError(
            "a DataLoader must have no sampler, batch_sampler or collate_fn of its own, as training "
            "makes its own batches: pass its Dataset"
        )


def _read(name: str, dataset: Any) -> Source:
    """A map-style Dataset as a source."""
    length = len(dataset)
    if not length:
        raise ValueError(f"{name}: the Dataset is empty")
    first = [_pair(name, dataset[row]) for row in range(min(length, 8))]
    labels = None
    if first[0][1] is not None:
        told = getattr(dataset, "targets", None)  # as torchvision's have it
        if told is None or len(told) != length or int(told[0]) != first[0][1]:
            told = [_pair(name, dataset[row])[1] for row in range(length)]
        labels = torch.as_tensor(told)
    sample = _tensors(name, _stacked(name, [x for x, _ in first], tuple(first[0][0].shape)))
    warn_of_range(name, sample.data)
    checked = sample if labels is None else _tensors(name, torch.zeros(length, 1), labels)
    names = tuple(map(str, getattr(dataset, "classes", ())))
    return _Read(
        dataset,
        name,
        sample.shape,
        checked.labels,
        checked.num_classes,
        names if len(names) == checked.num_classes else (),
        digest(type(dataset).__name__, length, sample.shape, checked.labels),
    )


@dataclass(frozen=True, eq=False)
class _Read:
    """A map-style Dataset as a source, read as training goes on."""

    dataset: Any
    name: str
    shape: tuple[int, ...]
    labels: Tensor | None
    num_classes: int
    class_names: tuple[str, ...]
    fingerprint: str
    processes: int = 0

    def __len__(self) -> int:
        return len(self.dataset)

    def batch(self, rows: Tensor, random: SampleRandom) -> Tensor:
        """The samples at `rows` (B,), (B, *shape), float32. Random choices are the Dataset's own."""
        found = [_pair(self.name, self.dataset[row])[0] for row in rows.tolist()]
        data = _tensors(self.name, _stacked(self.name, found, self.shape))
        return data.batch(torch.arange(len(rows)), random)


def _pair(name: str, item: Any) -> tuple[Tensor, int | None]:
    x, y = (*item, None)[:2] if isinstance(item, tuple | list) else (item, None)
    if not isinstance(x, Tensor | np.ndarray):
        raise ValueError(
            f"{name}: a Dataset must give tensors or (tensor, label) pairs; got {type(x).__name__}: "
            "add a transform"
        )
    return torch.as_tensor(x), None if y is None else int(y)


def _stacked(name: str, samples: list[Tensor], shape: tuple[int, ...]) -> Tensor:
    other = [tuple(x.shape) for x in samples if x.shape != shape]
    if other:
        raise ValueError(f"{name}: all samples must have one shape; got {shape} and {other[0]}")
    return torch.stack(samples)
