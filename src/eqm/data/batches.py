"""The batches of training."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from itertools import count
from time import perf_counter
from typing import TypeVar

import torch
from torch import Tensor

from eqm.data.order import batch_indices
from eqm.data.source import Source
from eqm.randomness import SampleRandom

AHEAD = 3
"""Batches that are loaded while training works; what they take bounds the memory."""

T = TypeVar("T")


@dataclass(frozen=True)
class Batch:
    """The part of one global batch that falls to one process."""

    data: Tensor
    """Samples (B, ...), float32."""
    labels: Tensor | None
    """Their classes (B,), or None."""
    draws: SampleRandom
    """The random numbers of these samples, wherever they are in the run."""
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
    # What lies in memory is at hand sooner than a thread wakes; a GPU wants it copied meanwhile.
    at_hand = device.type == "cpu" and getattr(source, "in_memory", False)

    def load(first: int) -> tuple[Tensor, Tensor | None, Tensor]:
        rows = batch_indices(len(source), position=first, count=each, seed=seed)
        positions = torch.arange(first, first + each)
        data = source.batch(rows, SampleRandom(seed, positions))
        labels = None if source.labels is None else source.labels[rows]
        if device.type == "cuda":
            return data.pin_memory(), labels if labels is None else labels.pin_memory(), positions
        return data, labels, positions

    starts = count(position + rank * each, batch_size)
    return _shares(map(load, starts) if at_hand else _ahead(load, starts), seed, device)


def _shares(
    batches: Iterator[tuple[Tensor, Tensor | None, Tensor]], seed: int, device: torch.device
) -> Iterator[Batch]:
    # From pinned memory, the copy to a GPU does not hold up the thread that asks for it.
    copy = partial(torch.Tensor.to, device=device, non_blocking=device.type == "cuda")
    while True:
        since = perf_counter()
        data, labels, positions = next(batches)
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
