"""What a field gets wrong on maps of features: a Gaussian at each place, and distances to it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor

SHRUNK = 0.01
"""The share of a round covariance in that of the residuals at a place."""


@dataclass(frozen=True, eq=False)
class ResidualGaussian:
    """The residuals of a field on training images, at each of G gammas and P = h w places.

    A residual is the field's output less the target of the training loss (Eq. 3 of arXiv 2510.02300).
    Features by place are modelled so in PaDiM (Defard et al., arXiv 2011.08785).
    """

    mean: Tensor
    """(G, P, K)"""
    root: Tensor
    """The inverses of the lower triangular roots of the covariances, (G, P, K, K)."""

    @classmethod
    def of(cls, residuals: Iterable[Sequence[Tensor]]) -> Self:
        """Fitted on batches, each of G residuals (B, K, h, w)."""
        count, total, squares = 0, [], []
        for batch in residuals:
            rows = [residual.float().flatten(2).permute(2, 0, 1).cpu() for residual in batch]
            if not count:
                total = [r.new_zeros(len(r), r.shape[2]) for r in rows]
                squares = [r.new_zeros(len(r), r.shape[2], r.shape[2]) for r in rows]
            count += rows[0].shape[1]
            for k, r in enumerate(rows):
                total[k] += r.sum(1)
                squares[k].baddbmm_(r.transpose(1, 2), r)
        means = [each / count for each in total]
        roots = []
        for mean, square in zip(means, squares, strict=True):
            covariance = square / count - mean[:, :, None] * mean[:, None]
            level = covariance.diagonal(dim1=1, dim2=2).mean(1).clamp(min=1e-6)
            size = covariance.shape[1]
            covariance = (1 - SHRUNK) * covariance
            covariance.diagonal(dim1=1, dim2=2).add_(SHRUNK * level[:, None])
            whole = torch.eye(size).expand_as(covariance)
            factor = torch.linalg.cholesky(covariance)
            roots.append(torch.linalg.solve_triangular(factor, whole, upper=False))
        return cls(torch.stack(means), torch.stack(roots))

    @classmethod
    def load(cls, tensors: Mapping[str, Tensor]) -> Self:
        """The statistics of stored tensors. Raises ValueError for tensors that do not fit together."""
        mean, root = tensors["mean"], tensors["root"]
        if mean.ndim != 3 or root.shape != (*mean.shape, mean.shape[-1]):
            raise ValueError(
                f"mean and root must have shapes that fit; got {tuple(mean.shape)}, {tuple(root.shape)}"
            )
        return cls(mean, root)

    def tensors(self) -> dict[str, Tensor]:
        """The statistics by name, to be stored."""
        return {"mean": self.mean, "root": self.root}

    def distances(self, residuals: Iterable[Tensor]) -> Tensor:
        """The squared Mahalanobis distances of G residuals (B, K, h, w), the mean over gammas, (B, h, w).

        They are divided by K: their mean on training images is about 1."""
        found: Iterator[Tensor] = (
            self._distance(k, residual) for k, residual in enumerate(residuals)
        )
        return torch.stack(list(found)).mean(0)

    def _distance(self, k: int, residual: Tensor) -> Tensor:
        rows = residual.float().cpu().flatten(2).permute(2, 1, 0)  # (P, K, B)
        away = self.root[k] @ (rows - self.mean[k][:, :, None])
        return away.square().mean(1).T.unflatten(1, residual.shape[2:])
