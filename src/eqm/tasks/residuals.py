"""What a field gets wrong on maps of features: its usual directions at each place, and distances to them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor
from torch.nn.functional import avg_pool2d

LARGE = 20
"""At each place so many directions of the largest variance are kept; the others have one variance."""
SMALL = 20
"""At each place so many directions of the smallest variance are kept, of residuals that are smoothed."""
PLENTY = 3
"""Small directions need so many training images a channel: with fewer, their variance is far too low."""
RIDGE = 3e-3
"""This share of the mean variance is added to each variance."""
LEAST = 1e-8
_PREFIX = "small."
"""The stored tensors of small directions have this prefix."""


@dataclass(frozen=True, eq=False)
class SmallDirections:
    """The directions of least variance (Rippel et al., arXiv 2005.14140) of residuals that are smoothed over 3x3
    places and whitened over all places."""

    mean: Tensor
    """(P, K) float16"""
    whitening: Tensor
    """The inverse square root of the covariance over all places, (K, K)."""
    directions: Tensor
    """(P, K, S) int8"""
    variance: Tensor
    """(P, S)"""

    @classmethod
    def of(cls, mean: Tensor, covariance: Tensor) -> Self:
        """Of the mean (P, K) and the covariance (P, K, K) of smoothed residuals."""
        whitening = _inverse_root(covariance.mean(0))
        covariance = whitening @ covariance @ whitening
        directions = _stored(_directions(covariance)[:, :, :SMALL])
        ridge = RIDGE * covariance.diagonal(dim1=1, dim2=2).mean(1, keepdim=True) + LEAST
        variance = _variance(covariance, _unit(directions)) + ridge
        return cls(mean.half(), whitening, directions, variance)

    def distances(self, residual: Tensor) -> Tensor:
        """The mean squared distance along the directions at each place, (P, B)."""
        rows = (_rows(_smooth(residual)) - self.mean.float()[:, None]) @ self.whitening
        squares = (rows @ _unit(self.directions)).square()
        return (squares / self.variance[:, None]).mean(2)


@dataclass(frozen=True, eq=False)
class ResidualGaussian:
    """The residuals of a field on training images, at each of P = h w places.

    A residual is what the field gets wrong there, (B, K, h, w): its output less the target of the training loss
    (Eq. 3 of arXiv 2510.02300). Its distance is the squared Mahalanobis distance to a Gaussian by place with few
    large directions and one variance for the others (probabilistic principal components, Tipping and Bishop
    1999), 1 on the mean of the training images. With at least PLENTY training images a channel it is the
    geometric mean of that and the distance along the small directions. Directions are stored in 8 bits;
    variances are those along the stored directions.
    """

    mean: Tensor
    """(P, K) float16"""
    large: Tensor
    """(P, K, L) int8"""
    large_variance: Tensor
    """(P, L)"""
    rest_variance: Tensor
    """The variance of the other directions, (P,)."""
    small: SmallDirections | None = None

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
        small = None
        if plain.count >= PLENTY * mean.shape[1]:
            small = SmallDirections.of(smoothed.mean(), smoothed.covariance())
        return cls(mean.half(), large, variance + ridge[:, None], rest + ridge, small)

    @classmethod
    def load(cls, tensors: Mapping[str, Tensor]) -> Self:
        """The statistics of stored tensors. Raises ValueError for tensors that do not fit together."""
        shapes = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
        expected = {}
        if len(shapes.get("mean", ())) == 2 and len(shapes.get("large", ())) == 3:
            (places, size), kept = shapes["mean"], shapes["large"][2]
            expected = {"mean": (places, size), "large": (places, size, kept)}
            expected |= {"large_variance": (places, kept), "rest_variance": (places,)}
            if len(shapes.get(_PREFIX + "directions", ())) == 3:
                kept = shapes[_PREFIX + "directions"][2]
                expected |= {_PREFIX + "mean": (places, size), _PREFIX + "whitening": (size, size)}
                expected[_PREFIX + "directions"] = (places, size, kept)
                expected[_PREFIX + "variance"] = (places, kept)
        if shapes != expected:
            raise ValueError(
                f"the tensors of the residuals must have names and shapes that fit; got {shapes}"
            )
        small = {name.removeprefix(_PREFIX): t for name, t in tensors.items() if _PREFIX in name}
        large = {name: tensor for name, tensor in tensors.items() if _PREFIX not in name}
        return cls(**large, small=SmallDirections(**small) if small else None)

    def tensors(self) -> dict[str, Tensor]:
        """The statistics by name, to be stored."""
        found = {name: part for name, part in vars(self).items() if isinstance(part, Tensor)}
        if self.small is not None:
            found |= {_PREFIX + name: part for name, part in vars(self.small).items()}
        return {name: tensor.contiguous() for name, tensor in found.items()}

    def distances(self, residual: Tensor) -> Tensor:
        """The distance of residuals (B, K, h, w) at each place, (B, h, w) on the CPU."""
        rows = _rows(residual) - self.mean.float()[:, None]  # (P, B, K)
        squares = (rows @ _unit(self.large)).square()
        others = (rows.square().sum(2) - squares.sum(2)).clamp(min=0)
        found = (squares / self.large_variance[:, None]).sum(2)
        found = (found + others / self.rest_variance[:, None]) / rows.shape[2]
        if self.small is not None:
            found = ((found + LEAST) * (self.small.distances(residual) + LEAST)).sqrt()
        return found.T.unflatten(1, residual.shape[2:])  # found is (P, B)


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
