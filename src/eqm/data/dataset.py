"""To and from PyTorch's Dataset and DataLoader."""

from __future__ import annotations

from collections.abc import Mapping
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

from eqm.data.axes import arranged, find_layout, told_layout
from eqm.data.classes import class_labels
from eqm.data.config import DataConfig
from eqm.data.source import Source, digest, say
from eqm.data.tensors import Images, Tensors
from eqm.data.values import plain, scaled, standardised
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


def as_source(data: Any, *, name: str = "data", config: DataConfig = DataConfig()) -> Source:
    """`data` as a source that `train` takes.

    * A tensor or array (N, ...), or a pair (x, y) with a class y (N,) for each: whole numbers, words,
      or rows with a single 1. Images are (N, C, H, W) with floats in -1..1, 0..1 or 0..255, or
      integers 0..255; all become -1..1. Other shapes may have any finite floats.
    * A map-style Dataset, or a list, of tensors or (tensor, label) pairs of one shape. Samples are
      read when training needs them, so the fingerprint covers only labels and length. The values of
      black and white follow from eight samples.
    * A DataLoader: its Dataset, read by as many worker processes. Training has its own batch size
      and order.
    * A source, which comes back unchanged.

    `config.layout`, `config.range` and `config.standardise` say how an array is read, where it is
    not certain. How it was read is logged as information under `eqm.data`.

    Raises ValueError for anything else.

    >>> as_source((torch.rand(4, 1, 8, 8), torch.tensor([0, 1, 1, 0]))).num_classes
    2
    """
    if isinstance(data, DataLoader):
        source = as_source(data.dataset, name=name, config=config)
        _check_loader(data)
        return replace(source, processes=data.num_workers) if isinstance(source, _Read) else source
    if isinstance(data, _SourceDataset):
        return data.source
    if isinstance(data, TensorDataset):
        data = data.tensors
    if isinstance(data, Tensor | np.ndarray):
        data = (data,)
    if isinstance(data, tuple) and 1 <= len(data) <= 2:
        tensors = _tensors(name, config, *data)
        say(tensors.notes)
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
    return _read(name, data, config)


def _tensors(name: str, config: DataConfig, x: Any, y: Any = None) -> Tensors:
    """Samples in memory, checked."""
    array = plain(name, x)
    layout = told_layout(name, array.shape, config.layout)
    if layout:
        array = arranged(array, layout)
    elif array.ndim == 4:
        _check_channels_first(name, array)
    labels, classes, names, more = class_labels(name, y, len(array))
    if array.ndim != 4:
        data = torch.from_numpy(array)
        data = data.float() if data.is_floating_point() else data
        samples = Tensors(name, data, labels, classes, names)  # checks them
        if array.ndim > 3:
            return replace(samples, notes=more)
        data, about, notes = standardised(name, data, config.standardise)
        return replace(samples, data=data, notes=more + notes, metadata=about)
    data, about, notes = scaled(name, array, config.range)
    return Images(name, data, labels, classes, names, more + notes, about)


def _check_channels_first(name: str, array: np.ndarray) -> None:
    try:
        layout = find_layout(name, array, labels=len(array))
    except ValueError:  # not certain: as documented
        return
    if layout == "NHWC" and array.shape[1] > 4:
        raise ValueError(
            f"{name}: images must have shape (N, C, H, W); got {array.shape}: pass "
            "x.permute(0, 3, 1, 2), or set data.layout NHWC"
        )


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


def _read(name: str, dataset: Any, config: DataConfig) -> Source:
    """A map-style Dataset as a source."""
    length = len(dataset)
    if not length:
        raise ValueError(f"{name}: the Dataset is empty: it must have at least one sample")
    rows = sorted({k * (length - 1) // 7 for k in range(8)})
    looked_at = [_pair(name, dataset[row]) for row in rows]
    y = looked_at[0][1]
    labels = None
    if y is not None:
        told = getattr(dataset, "targets", None)  # as torchvision's have it
        if told is None or len(told) != length or not np.array_equal(np.asarray(told[0]), y):
            told = [_pair(name, dataset[row])[1] for row in range(length)]
        labels = _label_array(name, told)
    sample = _tensors(name, config, _stacked(name, [x for x, _ in looked_at]))
    say(sample.notes)
    numbers, classes, words, more = class_labels(name, labels, length)
    say(more)
    names = tuple(map(str, getattr(dataset, "classes", ()))) or words
    values = sample.metadata.get("values")
    return _Read(
        dataset,
        name,
        sample.shape,
        numbers,
        classes,
        names if len(names) == classes else (),
        digest(type(dataset).__name__, length, sample.shape, numbers),
        config=replace(config, range=tuple(values["range"])) if values else config,
        metadata=sample.metadata,
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
    config: DataConfig
    metadata: Mapping[str, Any]
    processes: int = 0

    def __len__(self) -> int:
        return len(self.dataset)

    def batch(self, rows: Tensor, random: SampleRandom) -> Tensor:
        """The samples at `rows` (B,), (B, *shape), float32. Random choices are the Dataset's own."""
        found = [_pair(self.name, self.dataset[row])[0] for row in rows.tolist()]
        data = _tensors(self.name, self.config, _stacked(self.name, found))
        if data.shape != self.shape:
            raise ValueError(
                f"{self.name}: all samples must have one shape; got {self.shape} and {data.shape}: resize them"
            )
        return data.batch(torch.arange(len(rows)), random)


def _pair(name: str, item: Any) -> tuple[np.ndarray, np.ndarray | None]:
    x, y = (*item, None)[:2] if isinstance(item, tuple | list) else (item, None)
    if not isinstance(x, Tensor | np.ndarray):
        raise ValueError(
            f"{name}: a Dataset must give tensors or (tensor, label) pairs; got {type(x).__name__}: "
            "add a transform"
        )
    return plain(name, x), None if y is None else np.asarray(y)


def _label_array(name: str, labels: Any) -> np.ndarray:
    try:
        return np.asarray([np.asarray(label) for label in labels])
    except ValueError as error:
        raise ValueError(
            f"{name}: labels must be alike for all samples ({error}): give each a class number"
        ) from error


def _stacked(name: str, samples: list[np.ndarray]) -> np.ndarray:
    shapes = list(dict.fromkeys(x.shape for x in samples))
    if len(shapes) > 1:
        raise ValueError(
            f"{name}: all samples must have one shape; got {shapes[0]} and {shapes[1]}: resize them"
        )
    return np.stack(samples)
