"""The batches of training."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import count
from time import perf_counter

import torch
from torch import Tensor

from eqm.data.order import batch_indices
from eqm.data.source import Source
from eqm.randomness import Draws


@dataclass(frozen=True)
class Share:
    """The part of one global batch that falls to one process."""

    data: Tensor
    """Samples (B, ...), float32."""
    labels: Tensor | None
    """Their classes (B,), or None."""
    draws: Draws
    """The random numbers of these samples, wherever they are in the run."""
    waited: float
    """Seconds that training waited for it."""


def shares(
    source: Source,
    *,
    seed: int,
    position: int,
    batch_size: int,
    device: torch.device,
    rank: int = 0,
    world_size: int = 1,
) -> Iterator[Share]:
    """This process's part of every global batch, without end, after `position` samples were seen.

    Raises ValueError when the batch cannot be shared equally.
    """
    if batch_size % world_size:
        raise ValueError(
            f"batch_size must be a multiple of the number of processes, {world_size}; got "
            f"{batch_size}: take {max(batch_size // world_size, 1) * world_size}"
        )
    each = batch_size // world_size
    return _shares(source, seed, position + rank * each, batch_size, each, device)


def _shares(
    source: Source, seed: int, start: int, stride: int, each: int, device: torch.device
) -> Iterator[Share]:
    for first in count(start, stride):
        since = perf_counter()
        rows = batch_indices(len(source), position=first, count=each, seed=seed)
        positions = torch.arange(first, first + each)
        data = source.batch(rows, Draws(seed, positions)).to(device)
        labels = None if source.labels is None else source.labels[rows].to(device)
        waited = perf_counter() - since
        yield Share(data, labels, Draws(seed, positions.to(device)), waited)
