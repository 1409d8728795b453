"""The Fréchet distance between two sets of features, from their means and covariances."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True, eq=False)
class Moments:
    """The mean (D,), unbiased covariance (D, D) and count of a set of features, float64 on the CPU.

    The moments of one feature have covariance zero, so that batches of any size can be merged.

    Raises ValueError where the shapes disagree or a value is not finite.

    >>> Moments.of(torch.tensor([[0.0], [2.0]])).covariance
    tensor([[2.]], dtype=torch.float64)
    """

    mean: Tensor
    covariance: Tensor
    count: int

    def __post_init__(self) -> None:
        for name in ("mean", "covariance"):
            value = getattr(self, name).detach().to("cpu", torch.float64)
            object.__setattr__(self, name, value)
            if not value.isfinite().all():
                raise ValueError(
                    f"{name} must be finite; got NaN or infinity: drop the samples that diverged"
                )
        size = self.mean.numel()
        if self.mean.shape != (size,) or self.covariance.shape != (size, size):
            raise ValueError(
                f"mean and covariance must have shapes (D,) and (D, D); got "
                f"{tuple(self.mean.shape)} and {tuple(self.covariance.shape)}: use Moments.of"
            )
        if self.count < 1:
            raise ValueError(f"count must be at least 1; got {self.count}: pass the sample count")

    @classmethod
    def of(cls, features: Tensor) -> Moments:
        """Returns the moments of features of shape (N, D), N at least 1."""
        if features.ndim != 2 or len(features) == 0:
            raise ValueError(
                f"features must have shape (N, D) with N at least 1; got {tuple(features.shape)}: "
                "pass one row a sample"
            )
        features = features.detach().to("cpu", torch.float64)
        count = len(features)
        mean = features.mean(0)
        centred = features - mean
        return cls(mean, centred.mT @ centred / max(count - 1, 1), count)

    def merge(self, other: Moments) -> Moments:
        """Returns the moments of both sets together (Chan, Golub and LeVeque 1979)."""
        _require_same_size(self, other)
        count = self.count + other.count
        shift = other.mean - self.mean
        scatter = (
            (self.count - 1) * self.covariance
            + (other.count - 1) * other.covariance
            + torch.outer(shift, shift) * (self.count * other.count / count)
        )
        return Moments(self.mean + shift * (other.count / count), scatter / (count - 1), count)


def frechet_distance(a: Moments, b: Moments) -> float:
    """Returns the squared Fréchet (2-Wasserstein) distance between the Gaussians of two sets.

    |mean_a - mean_b|^2 + tr(A + B - 2 (A^1/2 B A^1/2)^1/2),  Eq. 6 of arXiv 1706.08500

    The trace of the last root is the sum of the singular values of A^1/2 B^1/2. The factors come
    from symmetric eigenvalues without the null directions, so rank-deficient covariances (fewer
    samples than features) are as exact as others.

    The estimate is biased upwards, by an amount that falls like 1 / count and depends on the
    samples (arXiv 1911.07023): two sets of one distribution are not at 0. Compare only distances
    with the same features, the same counts and the same reference.

    Raises ValueError where the sizes differ or a set has fewer than two features.

    >>> one = Moments(torch.zeros(2), torch.eye(2), 100)
    >>> round(frechet_distance(one, Moments(torch.ones(2), 4 * torch.eye(2), 100)), 6)
    4.0
    """
    _require_same_size(a, b)
    if min(a.count, b.count) < 2:
        raise ValueError(
            f"both sets must hold at least 2 features; got {a.count} and {b.count}: "
            "a covariance needs more samples"
        )
    overlap = torch.linalg.svdvals(_factor(a.covariance).mT @ _factor(b.covariance)).sum()
    spread = a.covariance.trace() + b.covariance.trace() - 2 * overlap
    return max(0.0, float((a.mean - b.mean).square().sum() + spread))


def _factor(covariance: Tensor) -> Tensor:
    """Returns F of shape (D, rank) with F F^T = covariance and orthogonal columns."""
    values, vectors = torch.linalg.eigh(covariance)
    # Rounding leaves null directions at +-eps; their square roots, 1e-8, would not be rounding.
    kept = values > values.abs().amax() * len(values) * torch.finfo(values.dtype).eps
    return vectors[:, kept] * values[kept].sqrt()


def _require_same_size(a: Moments, b: Moments) -> None:
    if a.mean.shape != b.mean.shape:
        raise ValueError(
            f"both moments must be of features of one size; got {len(a.mean)} and {len(b.mean)}: "
            "use the same feature network for both"
        )
