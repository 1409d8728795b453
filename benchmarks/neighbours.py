"""Nearest neighbours in features: of whole pictures, and of patches at the same place."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True, eq=False)
class SamePlace:
    """Scores places of feature maps by the nearest of all good parts at that place."""

    known: Tensor
    """(P, N, K) for P places."""

    @classmethod
    def fit(cls, maps: Tensor) -> SamePlace:
        """Keeps maps (N, K, h, w) of good parts."""
        return cls(maps.flatten(2).permute(2, 0, 1).contiguous())

    def __call__(self, maps: Tensor) -> Tensor:
        """The distance at each place, (B, h, w)."""
        rows = maps.flatten(2).permute(2, 0, 1)
        found = torch.stack(
            [torch.cdist(x, known).amin(1) for x, known in zip(rows, self.known, strict=True)]
        )
        return found.T.reshape(len(maps), *maps.shape[2:])

    @property
    def tensors(self) -> list[Tensor]:
        """All that it keeps."""
        return [self.known]


@dataclass(frozen=True, eq=False)
class WholePictures:
    """Scores pictures by the fifth nearest good part, by the means of the maps."""

    known: Tensor
    """(N, K)."""

    @classmethod
    def fit(cls, maps: Tensor) -> WholePictures:
        """Keeps the means of maps (N, K, h, w) of good parts."""
        return cls(maps.mean((2, 3)))

    def scores(self, maps: Tensor) -> Tensor:
        """The distance of each picture, (B,)."""
        return torch.cdist(maps.mean((2, 3)), self.known).kthvalue(5, dim=1).values

    @property
    def tensors(self) -> list[Tensor]:
        """All that it keeps."""
        return [self.known]
