"""PatchCore: the distance to a bank of good patches (Roth et al. 2022, arXiv 2106.08265)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import avg_pool2d

PROJECTED = 32
"""Dimensions of the random projection in which the coreset is chosen (128 in the authors' code)."""
NEIGHBOURS = 9
"""The weight of an image's score looks at so many patches of the bank (b of Eq. 7)."""
ROWS = 4096
"""Patches in one block of distances."""


@dataclass(frozen=True, eq=False)
class PatchCore:
    """Scores places of feature maps by their distance to the nearest patch of good parts."""

    bank: Tensor
    """(M, K)."""

    @classmethod
    def fit(cls, maps: Tensor, *, share: float = 0.1, seed: int = 0) -> PatchCore:
        """Keeps a `share` of the patches of maps (N, K, h, w) of good parts, by greedy k-centre."""
        patches = _patches(maps)
        return cls(patches[coreset(patches, int(share * len(patches)), seed)].clone())

    def __call__(self, maps: Tensor) -> Tensor:
        """The distance at each place, (B, h, w)."""
        nearest = _nearest(_patches(maps), self.bank)[0]
        return nearest.view(len(maps), *maps.shape[2:])

    def scores(self, maps: Tensor, distances: Tensor) -> Tensor:
        """The score of each picture (B,): its largest distance, weighted as in Eq. 7."""
        worst, place = distances.flatten(1).max(1)
        patches = _patches(maps).view(len(maps), -1, maps.shape[1])
        patch = patches[torch.arange(len(maps)), place]
        known = self.bank[_nearest(patch, self.bank)[1]]
        near = torch.cdist(known, self.bank).topk(NEIGHBOURS, largest=False).indices
        found = torch.cdist(patch[:, None], self.bank[near])[:, 0]  # (B, NEIGHBOURS)
        return worst * (1 - found.softmax(1)[:, 0])

    @property
    def tensors(self) -> list[Tensor]:
        """All that it keeps."""
        return [self.bank]


def coreset(rows: Tensor, count: int, seed: int) -> Tensor:
    """Indices of rows (N, K), each the farthest from those before it, in a random projection."""
    generator = torch.Generator().manual_seed(seed)
    if rows.shape[1] > PROJECTED:
        rows = rows @ torch.randn(rows.shape[1], PROJECTED, generator=generator) / PROJECTED**0.5
    square = rows.square().sum(1)
    chosen = torch.empty(count, dtype=torch.long)
    chosen[0] = torch.randint(len(rows), (1,), generator=generator)
    distance = torch.full((len(rows),), torch.inf)
    for k in range(1, count):
        centre = int(chosen[k - 1])
        distance = distance.minimum(square - 2 * (rows @ rows[centre]) + square[centre])
        chosen[k] = distance.argmax()
    return chosen


def _patches(maps: Tensor) -> Tensor:
    """Each place with its neighbourhood of 3x3, averaged, (B * h * w, K)."""
    return avg_pool2d(maps, 3, 1, 1, count_include_pad=False).permute(0, 2, 3, 1).flatten(0, 2)


def _nearest(rows: Tensor, bank: Tensor) -> tuple[Tensor, Tensor]:
    """The distance of each row to the nearest of the bank, and its index."""
    square = bank.square().sum(1)
    found = [(square - 2 * part @ bank.T).min(1) for part in rows.split(ROWS)]
    distance = torch.cat([each.values for each in found]) + rows.square().sum(1)
    return distance.clamp(min=0).sqrt(), torch.cat([each.indices for each in found])
