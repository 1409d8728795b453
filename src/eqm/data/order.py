"""The order of training: an endless stream of shuffled epochs, addressed by position."""

from __future__ import annotations

from functools import lru_cache

import torch
from torch import Tensor

from eqm.randomness import generator_at


def batch_indices(length: int, *, position: int, count: int, seed: int) -> Tensor:
    """The data indices (count,) from `position` on in the stream of shuffled epochs.

    Every epoch holds each index once; it depends on the seed and its own number alone.

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
