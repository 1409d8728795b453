"""The batches of training, and their order."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import lru_cache, partial
from itertools import count
from time import perf_counter
from typing import TypeVar

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from eqm.data.source import Source
from eqm.randomness import SampleRandom, generator_at

AHEAD = 3
"""Batches that are loaded while training works; they take memory."""

T = TypeVar("T")
Loaded = tuple[Tensor, Tensor | None, Tensor]
"""Samples, labels and positions of a batch."""


@dataclass(frozen=True)
class Batch:
    """The part of one global batch that one process trains on."""

    data: Tensor
    """Samples (B, ...), float32."""
    labels: Tensor | None
    """Their classes (B,), the tokens of their sentences (B, L), or None."""
    random: SampleRandom
    """The random numbers of these samples; they depend on the position in the run."""
    waited: float
    """Seconds that training waited for it."""


def batches(
    source: Source,
    *,
    seed: int,
    position: int,
    batch_size: int,
    device: torch.device,
    rank: int = 0,
    world_size: int = 1,
) -> Iterator[Batch]:
    """This process's part of every global batch, without end, after `position` samples were seen.

    Raises ValueError when the batch cannot be shared equally.
    """
    if batch_size % world_size:
        raise ValueError(
            f"batch_size must be a multiple of the number of processes, {world_size}; got "
            f"{batch_size}: take {max(batch_size // world_size, 1) * world_size}"
        )
    each = batch_size // world_size
    load = _Load(source, seed, each)
    starts = count(position + rank * each, batch_size)
    if processes := getattr(source, "processes", 0):
        own = torch.Generator()  # else the DataLoader would draw from the global one
        loaded: Iterator[Loaded] = iter(
            DataLoader(load, batch_size=None, sampler=starts, num_workers=processes, generator=own)
        )
    # A batch in memory is there sooner than a thread wakes; but a GPU needs it copied meanwhile.
    elif device.type == "cpu" and getattr(source, "in_memory", False):
        loaded = map(load.__getitem__, starts)
    else:
        loaded = _ahead(
            partial(_pinned, load) if device.type == "cuda" else load.__getitem__, starts
        )
    return _on_device(loaded, seed, device)


@dataclass(frozen=True)
class _Load(Dataset[Loaded]):
    """Loads `count` samples from a position in the stream of epochs on."""

    source: Source
    seed: int
    count: int

    def __getitem__(self, first: int) -> Loaded:
        source = self.source
        rows = batch_indices(len(source), position=first, count=self.count, seed=self.seed)
        positions = torch.arange(first, first + self.count)
        random = SampleRandom(self.seed, positions)
        data = source.batch(rows, random)
        if labels_at := getattr(source, "labels_at", None):
            return data, labels_at(rows, random), positions
        return data, None if source.labels is None else source.labels[rows], positions


def _pinned(load: _Load, first: int) -> Loaded:
    data, labels, positions = load[first]
    return data.pin_memory(), labels if labels is None else labels.pin_memory(), positions


def _on_device(loaded: Iterator[Loaded], seed: int, device: torch.device) -> Iterator[Batch]:
    # From pinned memory, the copy to a GPU does not hold up the thread that asks for it.
    copy = partial(torch.Tensor.to, device=device, non_blocking=device.type == "cuda")
    while True:
        since = perf_counter()
        data, labels, positions = next(loaded)
        data, labels = copy(data), None if labels is None else copy(labels)
        # Made on the device: to copy them there would wait for it.
        there = torch.arange(len(positions), device=device) + int(positions[0])
        waited = perf_counter() - since
        yield Batch(data, labels, SampleRandom(seed, there), waited)


def _ahead(load: Callable[[int], T], starts: Iterator[int]) -> Iterator[T]:
    """`load` of each start, made by one thread that is `AHEAD` batches ahead and no further."""
    thread = ThreadPoolExecutor(1, thread_name_prefix="loader")
    try:
        waiting = deque(thread.submit(load, next(starts)) for _ in range(AHEAD))
        while True:
            batch = waiting.popleft().result()
            waiting.append(thread.submit(load, next(starts)))
            yield batch
    finally:
        thread.shutdown(wait=False, cancel_futures=True)


def batch_indices(length: int, *, position: int, count: int, seed: int) -> Tensor:
    """The data indices (count,) from `position` on in the stream of shuffled epochs.

    Each epoch holds each index once. Its order depends on the seed and the number of the epoch.

    >>> batch_indices(4, position=0, count=8, seed=0).reshape(2, 4).sort(dim=1).values.tolist()
    [[0, 1, 2, 3], [0, 1, 2, 3]]
    """
    parts = []
    while count > 0:
        epoch, offset = divmod(position, length)
        part = _epoch(length, epoch, seed)[offset : offset + count]
        parts.append(part)
        position, count = position + len(part), count - len(part)
    return torch.cat(parts)


@lru_cache(maxsize=2)
def _epoch(length: int, epoch: int, seed: int) -> Tensor:
    generator = generator_at("order", seed=seed, position=epoch)
    return torch.randperm(length, generator=generator)
