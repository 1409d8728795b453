"""Where a descent starts: a model and the noise of each seed."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, Protocol

import torch
from torch import Tensor, nn


class Model(Protocol):
    """What can be sampled: a field with its sizes, weights and what was stored with them."""

    @property
    def config(self) -> Any: ...
    @property
    def metadata(self) -> dict[str, Any]: ...
    def parameters(self) -> Iterator[nn.Parameter]: ...
    @property
    def __call__(self) -> Callable[..., Tensor]: ...


def starting_noise(shape: Sequence[int], *, seeds: Sequence[int]) -> Tensor:
    """Normal noise (len(seeds), *shape), each row from its own seed, whatever the others are.

    Raises ValueError for seeds of more than 63 bits.
    """
    check_seeds(seeds)
    rows = [
        torch.randn(tuple(shape), generator=torch.Generator().manual_seed(seed)) for seed in seeds
    ]
    return torch.stack(rows) if rows else torch.empty(0, *shape)


def check_seeds(seeds: Sequence[int]) -> None:
    """Raises ValueError for a seed of more than 63 bits."""
    if any(not -(2**63) <= seed < 2**63 for seed in seeds):
        raise ValueError(f"seed must lie in [-2^63, 2^63); got {seeds[0]}")
