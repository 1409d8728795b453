"""What a field gets wrong on maps of features: its usual directions at each place, and distances to them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields
from typing import Self

import torch
from torch import Tensor
from torch.nn.functional import avg_pool2d

LARGE = 20
"""At each place so many directions of the largest variance are kept; the others have one variance."""
SMALL = 40
"""At each place so many directions of the smallest variance are kept, of residuals that are smoothed."""
RIDGE = 3e-3
"""This share of the mean variance is added to each variance."""
LEAST = 1e-8


@dataclass(frozen=True, eq=False)
class ResidualGaussian:
    """The residuals of a field on training images, at each of P = h w places.

    A residual is what the field gets wrong there, (B, K, h, w): its output less the target of the training loss
    (Eq. 3 of arXiv 2510.02300). Two distances are measured, both 1 on the mean of the training images:

    * `large`: the Mahalanobis distance to a Gaussian by place with few large directions and one variance for
      the others (probabilistic principal components, Tipping and Bishop 1999);
    * `small`: that in the directions of least variance alone (Rippel et al., arXiv 2005.14140), of residuals
      smoothed over 3x3 places and whitened over all places.

    The distance is their geometric mean. Directions are stored in 8 bits; variances are those along the
    stored directions.
    """

    mean: Tensor
    """(P, K)"""
    large: Tensor
    """(P, K, L) int8"""
    large_variance: Tensor
    """(P, L)"""
    rest_variance: Tensor
    """The variance of the other directions, (P,)."""
    smooth_mean: Tensor
    """(P, K)"""
    whitening: Tensor
    """The inverse square root of the covariance of smoothed residuals over all places, (K, K)."""
    small: Tensor
    """(P, K, S) int8"""
    small_variance: Tensor
    """(P, S)"""

    @classmethod
    def of(cls, residuals: Iterable[Tensor]) -> Self:
        """Fitted on batches of residuals (B, K, h, w)."""
        plain, smoothed = _Moments(), _Moments()
        for batch in residuals:
            plain.add(_rows(batch))
            smoothed.add(_rows(_smooth(batch)))
        mean, covariance = plain.mean(), plain.covariance()
        large = _stored(_directions(covariance)[:, :, -LARGE:])
        variance = _variance(covariance, _unit(large))
        level = covariance.diagonal(dim1=1, dim2=2)
        others = max(covariance.shape[1] - large.shape[2], 1)
        rest = (level.sum(1) - variance.sum(1)).clamp(min=0) / others
        ridge = RIDGE * level.mean(1) + LEAST
        smooth_mean, covariance = smoothed.mean(), smoothed.covariance()
        whitening = _inverse_root(covariance.mean(0))
        covariance = whitening @ covariance @ whitening
        small = _stored(_directions(covariance)[:, :, :SMALL])
        small_variance = _variance(covariance, _unit(small))
        small_ridge = RIDGE * covariance.diagonal(dim1=1, dim2=2).mean(1, keepdim=True) + LEAST
        return cls(
            *(mean, large, variance + ridge[:, None], rest + ridge),
            *(smooth_mean, whitening, small, small_variance + small_ridge),
        )

    @classmethod
    def load(cls, tensors: Mapping[str, Tensor]) -> Self:
        """The statistics of stored tensors. Raises ValueError for tensors that do not fit together."""
        names = [field.name for field in fields(cls)]
        shapes = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
        if sorted(shapes) != sorted(names) or len(shapes["mean"]) != 2:
            raise ValueError(f"the residuals must hold {', '.join(names)}; got {shapes}")
        (places, size), kept = shapes["mean"], (shapes["large"][-1], shapes["small"][-1])
        expected = {
            **dict.fromkeys(("mean", "smooth_mean"), (places, size)),
            **{"large": (places, size, kept[0]), "large_variance": (places, kept[0])},
            **{"rest_variance": (places,), "whitening": (size, size)},
            **{"small": (places, size, kept[1]), "small_variance": (places, kept[1])},
        }
        if shapes != expected:
            raise ValueError(
                f"the tensors of the residuals must have shapes that fit; got {shapes}"
            )
        return cls(**tensors)

    def tensors(self) -> dict[str, Tensor]:
        """The statistics by name, to be stored."""
        return {name: tensor.contiguous() for name, tensor in vars(self).items()}

    def distances(self, residual: Tensor) -> Tensor:
        """The distance of residuals (B, K, h, w) at each place, (B, h, w) on the CPU."""
        rows = _rows(residual) - self.mean[:, None]  # (P, B, K)
        squares = (rows @ _unit(self.large)).square()
        others = (rows.square().sum(2) - squares.sum(2)).clamp(min=0)
        large = (squares / self.large_variance[:, None]).sum(2)
        large = (large + others / self.rest_variance[:, None]) / rows.shape[2]
        rows = (_rows(_smooth(residual)) - self.smooth_mean[:, None]) @ self.whitening
        small = (rows @ _unit(self.small)).square() / self.small_variance[:, None]
        found = ((large + LEAST) * (small.mean(2) + LEAST)).sqrt()  # (P, B)
        return found.T.unflatten(1, residual.shape[2:])


class _Moments:
    """Sums of rows (P, B, K) over batches."""

    def __init__(self) -> None:
        self.count, self.total, self.squares = 0, torch.zeros(0), torch.zeros(0)

    def add(self, rows: Tensor) -> None:
        if not self.count:
            self.total = rows.new_zeros(len(rows), rows.shape[2])
            self.squares = rows.new_zeros(len(rows), rows.shape[2], rows.shape[2])
        self.count += rows.shape[1]
        self.total += rows.sum(1)
        self.squares.baddbmm_(rows.transpose(1, 2), rows)

    def mean(self) -> Tensor:
        return self.total / max(self.count, 1)

    def covariance(self) -> Tensor:
        mean = self.mean()
        return self.squares / max(self.count, 1) - mean[:, :, None] * mean[:, None]


def _rows(maps: Tensor) -> Tensor:
    """Maps (B, K, h, w) as (P, B, K) on the CPU."""
    return maps.float().cpu().flatten(2).permute(2, 0, 1).contiguous()


def _smooth(maps: Tensor) -> Tensor:
    return avg_pool2d(maps, 3, stride=1, padding=1, count_include_pad=False)


def _directions(covariance: Tensor) -> Tensor:
    """The eigenvectors of covariances (P, K, K) as columns, the smallest variance first."""
    return torch.linalg.eigh(covariance)[1]


def _stored(columns: Tensor) -> Tensor:
    """Columns (P, K, L) in 8 bits, each scaled to its largest entry."""
    return (columns * (127 / columns.abs().amax(1, keepdim=True))).round().to(torch.int8)


def _unit(stored: Tensor) -> Tensor:
    """The columns of length 1."""
    columns = stored.float()
    return columns / columns.norm(dim=1, keepdim=True)


def _variance(covariance: Tensor, columns: Tensor) -> Tensor:
    """The variance along each column, (P, L)."""
    return ((covariance @ columns) * columns).sum(1).clamp(min=0)


def _inverse_root(covariance: Tensor) -> Tensor:
    values, vectors = torch.linalg.eigh(covariance)
    values = values.clamp(min=0) + RIDGE * values.mean() + LEAST
    return (vectors * values.rsqrt()) @ vectors.T
