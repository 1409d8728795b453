"""The calibration of a detector on normal images: thresholds and p-values."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace

import torch
from torch import Tensor

from eqm.checks import as_floats, check_range

FEWEST = 4
"""The fewest normal images of a calibration."""
FEWEST_JUDGED = 40
"""Among fewer images no outliers are looked for."""
WIDTHS = {"single": 5.5, "joint": 8.5}
"""A clear outlier lies so many quartile widths above the median: 4 or 6 standard deviations."""
TRIMMED = 0.4
"""The share of images that a robust fit leaves out."""
FLOOR = 1e-3
"""The least standard deviation of a number, as a share of 1 + |mean|."""
COARSE = 4
"""A number that is the same for most images counts only 1/COARSE in the search for outliers."""
NONE = torch.zeros(0, dtype=torch.float64)


class CalibrationWarning(UserWarning):
    """The normal images of a detector are too few, hold copies, or seem to hold anomalies."""


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
    """The mean squared error of the field at each gamma, summed over channels, (G, H, W) for images; for other
    samples (G, ...) with the axes behind their channels, and (G, D) for points. Empty, (0,), without maps."""
    peaks: Tensor = NONE
    """The largest value of the anomaly map of normal images, sorted, (M,); empty without maps."""

    @classmethod
    def of(cls, groups: Sequence[Tensor], errors: Tensor | None = None) -> Calibration:
        """The calibration on N normal images.

        `groups` hold their numbers, (N, K) for each group that is measured jointly, `errors` the
        squared errors (N, G, ...) of some of them. If there are several numbers an image, a random
        half of the images gives mean and covariance, the other half the sorted scores.

        Raises ValueError for fewer than FEWEST images, and for numbers that are not finite.
        """
        check_numbers(groups)
        numbers, expected = torch.cat(list(groups), 1), NONE if errors is None else errors.mean(0)
        if numbers.shape[1] == 1:
            return cls(numbers[:, 0].sort().values, NONE, NONE[:, None], expected)
        typical, fresh = _halves(len(numbers))
        found = replace(cls.fitted([group[typical] for group in groups]), expected=expected)
        return replace(found, scores=found.distance(numbers[fresh]).sort().values)

    @classmethod
    def fitted(cls, groups: Sequence[Tensor]) -> Calibration:
        """The mean and inverse covariance of numbers, (N, K) for each group, without scores."""
        precision = torch.block_diag(*(_precision(group) / group.shape[1] for group in groups))
        return cls(NONE, torch.cat(list(groups), 1).mean(0), precision, NONE)

    @classmethod
    def load(cls, tensors: Mapping[str, Tensor]) -> Calibration:
        """The calibration of stored tensors. Raises ValueError for other tensors."""
        names = [field.name for field in fields(cls)]
        tensors = {"peaks": NONE, **tensors}  # earlier versions had none
        if sorted(tensors) != sorted(names):
            raise ValueError(
                f"it must hold {', '.join(names)}; got {', '.join(tensors) or 'nothing'}"
            )
        found = cls(**tensors)
        shapes = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
        count = found.centre.numel()
        if (
            not all(t.is_floating_point() and t.isfinite().all() for t in tensors.values())
            or not found.scores.numel()
            or found.scores.ndim != 1
            or (found.scores.diff() < 0).any()
            or found.centre.ndim != 1
            or shapes["precision"] not in ((count, count), (count, 1))
            or found.expected.ndim not in (1, 2, 3, 4)
            or found.peaks.ndim != 1
            or (found.peaks.diff() < 0).any()
        ):
            raise ValueError(
                f"its tensors must be finite, sorted and of shapes that fit; got {shapes}"
            )
        return found

    def distance(self, numbers: Tensor) -> Tensor:
        """The score of each image (B,) from its numbers (B, K).

        Raises ValueError for another K than that of the calibration."""
        if numbers.shape[1] != len(self.centre):
            raise ValueError(
                f"the calibration is for {len(self.centre)} numbers an image; this score gives "
                f"{numbers.shape[1]}: calibrate again"
            )
        away = numbers - self.centre
        return finite(((away @ self.precision) * away).sum(1))

    def p_values(self, scores: Tensor) -> Tensor:
        """The conformal p-value of each score, (N,): (1 + #{calibration scores >= it}) / (n + 1)."""
        scores = as_floats("(N,)", 1, scores=scores)
        at_least = len(self.scores) - torch.searchsorted(
            self.scores, finite(scores.to(self.scores))
        )
        return (1 + at_least).double() / (len(self.scores) + 1)

    def threshold(self, fpr: float) -> float:
        """The score above which a p-value is `fpr` or less.

        Raises ValueError if there are too few scores for that false positive rate."""
        return _level(self.scores, fpr, halved=self.centre.numel() > 0)

    def map_threshold(self, fpr: float) -> float:
        """The level that at most a share `fpr` of normal images exceeds anywhere in its anomaly map.

        Raises ValueError as `threshold` does, and for a calibration without maps."""
        if not self.peaks.numel():
            raise ValueError(
                "a threshold for maps needs a calibration with maps, and this one has none: calibrate again"
            )
        return _level(self.peaks, fpr, halved=False)


def _level(scores: Tensor, fpr: float, *, halved: bool) -> float:
    """The score above which the conformal p-value is `fpr` or less; `halved` if only half of the normal
    images are ranked."""
    check_rate(fpr)
    count = len(scores)
    allowed = min(math.floor(round(fpr * (count + 1), 9)), count)
    if allowed < 1:
        needed = math.ceil(min(1 / fpr, 1e18)) - 1
        images = 2 * needed if halved else needed
        raise ValueError(
            f"a false positive rate of {fpr:g} needs {needed:,} ranked scores, from {images:,} normal "
            f"images; got {count:,} scores: calibrate on more images, or allow a higher rate"
        )
    return float(scores[-allowed])


def check_numbers(groups: Sequence[Tensor]) -> None:
    """Raises ValueError for numbers of fewer than FEWEST images, and for numbers that are not finite."""
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


def check_rate(fpr: float) -> None:
    """Raises ValueError unless `fpr` is a false positive rate."""
    check_range(-math.inf, math.inf, fpr=fpr)
    if not 0 < fpr < 1:
        raise ValueError(f"fpr, the false positive rate, must lie between 0 and 1; got {fpr}")


def finite(scores: Tensor) -> Tensor:
    """The scores, with infinity for NaN and minus infinity: what is not finite is most anomalous."""
    return scores.where(scores.isfinite(), math.inf)


def outlyingness(groups: Sequence[Tensor]) -> Tensor:
    """How far the score of each of N normal images lies above the median, (N,); above 1: a clear outlier.

    The groups are those of `Calibration.of`; the largest value over the groups counts. A single number is
    taken as it is. Several numbers become the distance to a fit to the other half of the images. The fit
    leaves out its most distant images until it no longer changes, as the minimum covariance
    determinant of Rousseeuw and Van Driessen (1999) does, and then only the clear outliers.

    The unit is WIDTHS times the width from the lower quartile to the median. It is that of a nearly
    normal number: the cube root of a distance (Wilson and Hilferty 1931), or the logarithm of single
    numbers if all are positive. Anomalies change it little if they are fewer than a quarter of the images.

    Raises ValueError as `check_numbers` does.
    """
    check_numbers(groups)
    if len(groups[0]) < FEWEST_JUDGED:
        return torch.zeros(len(groups[0]), dtype=torch.float64)
    return torch.stack([_outlyingness(group) for group in groups]).amax(0)


def _outlyingness(numbers: Tensor) -> Tensor:
    if numbers.shape[1] == 1:
        alone = numbers[:, 0]
        return _above(alone.log() if (alone > 0).all() else alone, WIDTHS["single"])
    middle = numbers.median(0).values
    apart = (numbers - middle) / torch.where((numbers == middle).double().mean(0) > 0.5, COARSE, 1)
    numbers = middle + apart
    away, halves = numbers.new_zeros(len(numbers)), _halves(len(numbers))
    for rows, others in (halves, halves[::-1]):
        away[rows] = _beyond(_robust_fit(numbers[others]), numbers[rows])
    return away


def _halves(count: int) -> tuple[Tensor, Tensor]:
    first, second = torch.randperm(count, generator=torch.Generator().manual_seed(0)).chunk(2)
    return first, second


def _beyond(fit: Calibration, numbers: Tensor) -> Tensor:
    """The distances of numbers (N, K) to a fit, above their median, in the unit of `outlyingness`."""
    return _above(fit.distance(numbers) ** (1 / 3), WIDTHS["joint"])


def _above(scores: Tensor, widths: float) -> Tensor:
    low, middle = scores.quantile(scores.new_tensor([0.25, 0.5])).tolist()
    width = max(middle - low, 0.05 * max(1.0, abs(middle)))  # scores may all be equal
    return (scores - middle) / (widths * width)


def _robust_fit(numbers: Tensor) -> Calibration:
    """The fit to those rows (N, K) that lie nearest to it, all but TRIMMED of them."""
    kept = math.ceil((1 - TRIMMED) * len(numbers))
    middle = numbers.median(0).values
    away = (numbers - middle).abs()
    scaled = away / away.median(0).values.maximum(FLOOR * (1 + middle.abs()))
    nearest = scaled.mean(1).argsort()[:kept].sort().values
    for _ in range(10):
        fit = Calibration.fitted([numbers[nearest]])
        before, nearest = nearest, fit.distance(numbers).argsort()[:kept].sort().values
        if torch.equal(before, nearest):
            break
    for _ in range(10):
        before, nearest = nearest, (_beyond(fit, numbers) <= 1).nonzero().flatten()
        if torch.equal(before, nearest):
            break
        fit = Calibration.fitted([numbers[nearest]])
    return fit


def _precision(numbers: Tensor) -> Tensor:
    """The inverse covariance (K, K) of numbers (N, K).

    Correlations are shrunk towards 0, more for fewer rows: the OAS estimator of Chen et al. (arXiv
    0907.4698), in scikit-learn's form for large K. Standard deviations are at least FLOOR * (1 + |mean|),
    so that distances stay finite if all images are equal."""
    count, size = numbers.shape
    spread, least = numbers.std(0) + 1e-6, FLOOR * (1 + numbers.mean(0).abs())
    scale = spread.maximum(least)
    covariance = torch.cov((numbers / scale).T, correction=0).view(size, size)
    # a number that hardly varies gets the variance of the floor
    covariance.diagonal().add_((1 - (spread / least).square()).clamp(min=0))
    squares, trace = covariance.square().sum(), covariance.trace()
    excess = (count + 1) * (squares - trace.square() / size)
    share = ((squares + trace.square()) / excess.clamp(min=1e-12)).clamp(max=1)
    level = share * trace / size + 1e-9  # so that a constant number has a variance
    shrunk = (1 - share) * covariance + level * torch.eye(size, dtype=numbers.dtype)
    return torch.linalg.inv(shrunk) / torch.outer(scale, scale)
