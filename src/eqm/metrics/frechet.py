"""The Fréchet distance between two sets of features, from their means and covariances."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import torch
from torch import Tensor

from eqm.checks import as_floats, check_count, kind_of, seeded


@dataclass(frozen=True, eq=False)
class Moments:
    """The mean (D,), unbiased covariance (D, D) and count of a set of features, float64 on the CPU.

    One feature vector has covariance zero, so batches of any size can be merged.

    Raises ValueError for shapes that do not match and values that are not finite.

    >>> Moments.of(torch.tensor([[0.0], [2.0]])).covariance
    tensor([[2.]], dtype=torch.float64)
    """

    mean: Tensor
    covariance: Tensor
    count: int

    def __post_init__(self) -> None:
        for name in ("mean", "covariance"):
            value = as_floats("(D,) and (D, D)", **{name: getattr(self, name)})
            value = value.to("cpu", torch.float64)
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
        check_count(count=self.count)

    @classmethod
    def of(cls, features: Tensor) -> Moments:
        """Returns the moments of features of shape (N, D), N at least 1."""
        features = as_floats("(N, D)", features=features)
        if features.ndim != 2 or features.numel() == 0:
            raise ValueError(
                f"features must have shape (N, D) with N at least 1; got {tuple(features.shape)}: "
                "pass one row per sample"
            )
        if features.device.type == "mps":  # it has no float64
            features = features.cpu()
        features = features.double()
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

    @cached_property
    def factor(self) -> Tensor:
        """F (D, rank) with F F^T = covariance and orthogonal columns, by symmetric eigenvalues."""
        values, vectors = torch.linalg.eigh(self.covariance)
        # Rounding gives null directions an eigenvalue of +-eps; its root, 1e-8, would be too large.
        kept = values > values.abs().amax() * len(values) * torch.finfo(values.dtype).eps
        return vectors[:, kept] * values[kept].sqrt()


def frechet_distance(a: Moments, b: Moments) -> float:
    """Returns the squared Fréchet (2-Wasserstein) distance between the Gaussians of two sets.

    |mean_a - mean_b|^2 + tr(A + B - 2 (A^1/2 B A^1/2)^1/2),  Eq. 6 of arXiv 1706.08500

    The trace of the last root is the sum of the singular values of A^1/2 B^1/2. The factors come from
    symmetric eigenvalues without null directions, so covariances of low rank (fewer samples than
    features) are exact too.

    The estimate has an upward bias that falls like 1 / count and depends on the samples (arXiv
    1911.07023): two sets of one distribution do not have distance 0. Compare only distances with the
    same features, counts and reference.

    Raises ValueError if the sizes differ or a set has fewer than two feature vectors.

    >>> one = Moments(torch.zeros(2), torch.eye(2), 100)
    >>> round(frechet_distance(one, Moments(torch.ones(2), 4 * torch.eye(2), 100)), 6)
    4.0
    """
    _require_covariances(a, b)
    overlap = torch.linalg.svdvals(a.factor.mT @ b.factor).sum()
    spread = a.covariance.trace() + b.covariance.trace() - 2 * overlap
    return max(0.0, float((a.mean - b.mean).square().sum() + spread))


def frechet_influence(features: Tensor, reference: Moments) -> Tensor:
    """Returns the contribution of each row of features (N, D) to the Frechet distance, (N,), mean 0.

    2 (mean - mean_r)·y + y^T (I - T) y - tr((I - T) A), y = x - mean; T = A^-1/2 (A^1/2 B A^1/2)^1/2
    A^-1/2, from the derivative of the distance by the mean and covariance A of the features. If the
    features are resampled, the distance changes to first order by the mean over the resampled rows.
    A bootstrap of it gives a confidence interval without further eigenvalues. The interval does not
    include the bias, and is too narrow if the features have the reference's own distribution.

    Raises ValueError as `frechet_distance` does.
    """
    moments = Moments.of(features)
    _require_covariances(moments, reference)
    factor = moments.factor
    left, singular, _ = torch.linalg.svd(factor.mT @ reference.factor, full_matrices=False)
    inverse = factor / factor.square().sum(0)  # A^-1/2 in the basis of the factor
    transport = (inverse @ left * singular) @ (inverse @ left).mT
    centred = as_floats(features=features).to("cpu", torch.float64) - moments.mean
    change = centred - centred @ transport
    influence = 2 * centred @ (moments.mean - reference.mean) + (centred * change).sum(1)
    return influence - influence.mean()


class Extrapolated(NamedTuple):
    """A value extrapolated to infinitely many samples, and its standard error from the fitted line."""

    value: float
    error: float


def frechet_at_infinity(
    features: Tensor, reference: Moments, *, halvings: int = 3, seed: int = 0
) -> Extrapolated:
    """Returns the Frechet distance of features (N, D), extrapolated to infinitely many samples.

    The bias is linear in 1 / N (Chong and Forsyth, arXiv 1911.07023). A line in 1 / N is fitted to the
    distances at N, N / 2, N / 4, ... samples; its value at 0 is returned. The distance at each size is
    the mean over all disjoint subsets of that size, which is less noisy than one random subset. The
    smallest size should be above D. The result may be below 0 by chance. The bias of the reference
    remains.

    Raises ValueError for fewer than 2 halvings or 2 rows per subset, and as `frechet_distance` does.
    """
    check_count(halvings=halvings)
    features = as_floats("(N, D)", features=features)
    smallest = len(features) >> min(halvings, 64)
    if smallest < 2 or halvings < 2:
        raise ValueError(
            "the extrapolation needs at least 2 halvings and 2 rows per subset; got "
            f"{halvings} and {smallest}: use more samples"
        )
    order = torch.randperm(len(features), generator=seeded(seed))
    features = features[order.to(features.device)]
    sizes = [len(features) >> k for k in range(halvings + 1)]
    means = []
    for size in sizes:
        parts = features[: len(features) // size * size].split(size)
        distances = [frechet_distance(Moments.of(part), reference) for part in parts]
        means.append(sum(distances) / len(distances))
    found = torch.tensor(means, dtype=torch.float64)
    design = torch.tensor([[1, 1 / size] for size in sizes], dtype=torch.float64)
    inverse = torch.linalg.pinv(design)
    line = inverse @ found
    noise = (found - design @ line).square().sum() / (len(sizes) - 2)
    return Extrapolated(float(line[0]), float((noise * inverse[0].square().sum()).sqrt()))


def _require_covariances(a: Moments, b: Moments) -> None:
    """Raises ValueError unless both are moments of at least two feature vectors of one size."""
    _require_same_size(a, b)
    if min(a.count, b.count) < 2:
        raise ValueError(
            f"both sets must hold at least 2 feature vectors; got {a.count} and {b.count}: use more "
            "samples"
        )


def _require_same_size(a: Moments, b: Moments) -> None:
    for each in (a, b):
        if not isinstance(each, Moments):
            raise ValueError(f"moments must come from Moments.of; got {kind_of(each)}")
    if a.mean.shape != b.mean.shape:
        raise ValueError(
            f"both moments must be of features of one size; got {len(a.mean)} and {len(b.mean)}: "
            "use the same features for both"
        )
