"""What normal images teach a detector: what is typical, and how untypical is anomalous."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

FEWEST = 4
"""Normal images that a calibration needs."""
NONE = torch.zeros(0, dtype=torch.float64)


@dataclass(frozen=True, eq=False)
class Calibration:
    """What normal images taught a detector; everything on the CPU."""

    scores: Tensor
    """Their scores, rising, (N,): what p-values and thresholds are read from."""
    centre: Tensor
    """The mean of their K numbers, (K,); K is 0 where the score is one number as it is."""
    precision: Tensor
    """What turns the square of the difference to it into the score, (K, K)."""
    expected: Tensor
    """Their mean squared error at each gamma, channels summed, (G, H, W); empty for no images."""

    @classmethod
    def of(cls, groups: Sequence[Tensor], errors: Tensor | None = None) -> Calibration:
        """What normal images teach by their numbers, (N, K) for each group that is measured jointly,
        and by the squared `errors` (N, G, H, W) of some of them.

        Of several numbers an image, one half of the images tells what is typical and the other, at
        random, how typical normal ones are. Raises ValueError for fewer than FEWEST, and for numbers
        that are not finite.
        """
        count = len(groups[0]) if groups else 0
        if count < FEWEST:
            raise ValueError(
                f"calibration needs {FEWEST} normal images at least, and better 1,000; got {count}"
            )
        if not all(group.isfinite().all() for group in groups):
            raise ValueError(
                "a normal image has a score that is not finite: the field is damaged, or its descent "
                "diverges; check the weights, or take a smaller sampling.step_size"
            )
        numbers, expected = torch.cat(list(groups), 1), NONE if errors is None else errors.mean(0)
        if numbers.shape[1] == 1:
            return cls(numbers[:, 0].sort().values, NONE, NONE[:, None], expected)
        typical, fresh = torch.randperm(count, generator=torch.Generator().manual_seed(0)).chunk(2)
        centre = numbers[typical].mean(0)
        precision = torch.block_diag(*(_precision(g[typical]) / g.shape[1] for g in groups))
        scores = _distance(numbers[fresh], centre, precision).sort().values
        return cls(scores, centre, precision, expected)

    def distance(self, numbers: Tensor) -> Tensor:
        """The score of each image (B,) from its numbers (B, K)."""
        return _distance(numbers, self.centre, self.precision)

    def p_values(self, scores: Tensor) -> Tensor:
        """The conformal p-value of each score, (N,): (1 + #{calibration scores >= it}) / (n + 1)."""
        at_least = len(self.scores) - torch.searchsorted(self.scores, scores.to(self.scores))
        return (1 + at_least).double() / (len(self.scores) + 1)

    def threshold(self, fpr: float) -> float:
        """The score above which a p-value is `fpr` or less.

        Raises ValueError where the scores are too few for that rate of false alarms."""
        check_rate(fpr)
        allowed = math.floor(round(fpr * (len(self.scores) + 1), 9))
        if allowed < 1:
            raise ValueError(
                f"a rate of false alarms of {fpr:g} needs scores of {math.ceil(1 / fpr) - 1:,} normal "
                f"images; {len(self.scores):,} are there: calibrate with more, or allow a higher rate"
            )
        return float(self.scores[-allowed])


def check_rate(fpr: float) -> None:
    """Returns nothing; raises ValueError unless `fpr` is a rate of false alarms."""
    if not 0 < fpr < 1:
        raise ValueError(f"fpr, the rate of false alarms, must lie between 0 and 1; got {fpr}")


def finite(scores: Tensor) -> Tensor:
    """The scores, those that are not finite infinite: NaN is as anomalous as can be."""
    return scores.nan_to_num(math.inf, math.inf, -math.inf)


def _distance(numbers: Tensor, centre: Tensor, precision: Tensor) -> Tensor:
    away = numbers - centre
    return finite(((away @ precision) * away).sum(1))


def _precision(numbers: Tensor) -> Tensor:
    """The inverse covariance (K, K) of numbers (N, K), each in units of its own deviation.

    Correlations are shrunk as far as few rows make them uncertain: the estimator OAS of Chen et al.
    (arXiv 0907.4698), in the large-K form of scikit-learn."""
    count, size = numbers.shape
    scale = numbers.std(0) + 1e-6
    covariance = torch.cov((numbers / scale).T, correction=0).view(size, size)
    squares, trace = covariance.square().sum(), covariance.trace()
    excess = (count + 1) * (squares - trace.square() / size)
    share = ((squares + trace.square()) / excess.clamp(min=1e-12)).clamp(max=1)
    level = share * trace / size + 1e-9  # a number that never varies is left with a variance
    shrunk = (1 - share) * covariance + level * torch.eye(size, dtype=numbers.dtype)
    return torch.linalg.inv(shrunk) / torch.outer(scale, scale)
