"""The calibration of a detector on normal images: thresholds and p-values."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

FEWEST = 4
"""The fewest normal images of a calibration."""
NONE = torch.zeros(0, dtype=torch.float64)


@dataclass(frozen=True, eq=False)
class Calibration:
    """Statistics of the scores of normal images; all tensors are on the CPU."""

    scores: Tensor
    """The scores of normal images, sorted, (N,)."""
    centre: Tensor
    """The mean of the K numbers of an image, (K,); K is 0 if the score is one number."""
    precision: Tensor
    """The inverse covariance of the numbers, (K, K), for the Mahalanobis distance."""
    expected: Tensor
    """The mean squared error of the field at each gamma, summed over channels, (G, H, W); empty for
    samples that are not images."""

    @classmethod
    def of(cls, groups: Sequence[Tensor], errors: Tensor | None = None) -> Calibration:
        """The calibration on N normal images.

        `groups` hold their numbers, (N, K) for each group that is measured jointly, `errors` the
        squared errors (N, G, H, W) of some of them. If there are several numbers an image, a random
        half of the images gives mean and covariance, the other half the sorted scores.

        Raises ValueError for fewer than FEWEST images, and for numbers that are not finite.
        """
        count = len(groups[0]) if groups else 0
        if count < FEWEST:
            raise ValueError(
                f"calibration needs at least {FEWEST} normal images, better 1,000; got {count}"
            )
        if not all(group.isfinite().all() for group in groups):
            raise ValueError(
                "the scores of normal images must be finite; got NaN or infinity: check the weights, "
                "or use a smaller sampling.step_size"
            )
        numbers, expected = torch.cat(list(groups), 1), NONE if errors is None else errors.mean(0)
        if numbers.shape[1] == 1:
            return cls(numbers[:, 0].sort().values, NONE, NONE[:, None], expected)
        typical, fresh = torch.randperm(count, generator=torch.Generator().manual_seed(0)).chunk(2)
        centre = numbers[typical].mean(0)
        precision = torch.block_diag(*(_precision(g[typical]) / g.shape[1] for g in groups))
        found = cls(NONE, centre, precision, expected)
        return replace(found, scores=found.distance(numbers[fresh]).sort().values)

    def distance(self, numbers: Tensor) -> Tensor:
        """The score of each image (B,) from its numbers (B, K)."""
        away = numbers - self.centre
        return finite(((away @ self.precision) * away).sum(1))

    def p_values(self, scores: Tensor) -> Tensor:
        """The conformal p-value of each score, (N,): (1 + #{calibration scores >= it}) / (n + 1)."""
        at_least = len(self.scores) - torch.searchsorted(self.scores, scores.to(self.scores))
        return (1 + at_least).double() / (len(self.scores) + 1)

    def threshold(self, fpr: float) -> float:
        """The score above which a p-value is `fpr` or less.

        Raises ValueError if there are too few scores for that false positive rate."""
        check_rate(fpr)
        allowed = math.floor(round(fpr * (len(self.scores) + 1), 9))
        if allowed < 1:
            needed = math.ceil(1 / fpr) - 1
            images = needed if self.centre.numel() == 0 else 2 * needed
            raise ValueError(
                f"a false positive rate of {fpr:g} needs {needed:,} ranked scores, from {images:,} normal "
                f"images; got {len(self.scores):,} scores: calibrate on more images, or allow a higher rate"
            )
        return float(self.scores[-allowed])


def check_rate(fpr: float) -> None:
    """Raises ValueError unless `fpr` is a false positive rate."""
    if not 0 < fpr < 1:
        raise ValueError(f"fpr, the false positive rate, must lie between 0 and 1; got {fpr}")


def finite(scores: Tensor) -> Tensor:
    """The scores, with infinity for NaN: NaN is as anomalous as possible."""
    return scores.nan_to_num(math.inf, math.inf, -math.inf)


def _precision(numbers: Tensor) -> Tensor:
    """The inverse covariance (K, K) of numbers (N, K).

    Correlations are shrunk towards 0, more for fewer rows: the OAS estimator of Chen et al. (arXiv
    0907.4698), in scikit-learn's form for large K."""
    count, size = numbers.shape
    scale = numbers.std(0) + 1e-6
    covariance = torch.cov((numbers / scale).T, correction=0).view(size, size)
    squares, trace = covariance.square().sum(), covariance.trace()
    excess = (count + 1) * (squares - trace.square() / size)
    share = ((squares + trace.square()) / excess.clamp(min=1e-12)).clamp(max=1)
    level = share * trace / size + 1e-9  # so that a constant number has a variance
    shrunk = (1 - share) * covariance + level * torch.eye(size, dtype=numbers.dtype)
    return torch.linalg.inv(shrunk) / torch.outer(scale, scale)
