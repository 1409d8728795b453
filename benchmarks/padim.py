"""PaDiM: a Gaussian of the features at each place (Defard et al. 2020, arXiv 2011.08785)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

RIDGE = 0.01
"""Added to the diagonal of each covariance, as in the paper."""


@dataclass(frozen=True, eq=False)
class PaDiM:
    """Scores places of feature maps by their Mahalanobis distance to good parts at that place."""

    channels: Tensor
    """The K chosen channels."""
    mean: Tensor
    """(P, K) for P places."""
    inverse: Tensor
    """Whitening matrices (P, K, K), lower triangular."""

    @classmethod
    def fit(cls, maps: Tensor, *, dimensions: int | None = None, seed: int = 0) -> PaDiM:
        """Fits maps (N, K, h, w) of good parts, with `dimensions` random channels or all."""
        order = torch.randperm(maps.shape[1], generator=torch.Generator().manual_seed(seed))
        channels = order[:dimensions].sort().values
        x = maps[:, channels].flatten(2).permute(2, 0, 1)  # (P, N, K)
        mean = x.mean(1)
        inverse = torch.empty(len(x), len(channels), len(channels))
        for place, rows in enumerate(x):
            covariance = torch.cov(rows.T) + RIDGE * torch.eye(len(channels))
            inverse[place] = torch.linalg.inv(torch.linalg.cholesky(covariance))
        return cls(channels, mean, inverse)

    def __call__(self, maps: Tensor) -> Tensor:
        """The distance at each place, (B, h, w)."""
        x = maps[:, self.channels].flatten(2).permute(2, 1, 0) - self.mean[..., None]  # (P, K, B)
        return (self.inverse @ x).norm(dim=1).T.reshape(len(maps), *maps.shape[2:])

    @property
    def tensors(self) -> list[Tensor]:
        """All that it keeps."""
        return [self.channels, self.mean, self.inverse]
