"""Confidence intervals from resampled rows."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from eqm.checks import as_floats, check_callable, check_count, check_range, kind_of, seeded


class Interval(NamedTuple):
    """A value and the bounds of its confidence interval."""

    low: float
    value: float
    high: float

    def __str__(self) -> str:
        return f"{self.value:.4g} [{self.low:.4g}, {self.high:.4g}]"


def bootstrap(
    statistic: Callable[..., Tensor | float],
    *samples: Tensor,
    resamples: int = 1000,
    level: float = 0.95,
    seed: int = 0,
) -> Interval:
    """Returns the value of a statistic of samples, each (N, ...), and its percentile interval.

    `statistic(*samples)` must return one number. It is computed again on `resamples` draws of N rows
    with replacement; the bounds are the quantiles (1 - level) / 2 and (1 + level) / 2 of the results
    (Efron 1979). Rows are drawn from each sample independently, so pass pairs as one sample with two
    columns. The draws depend only on the seed.

    Distances between sets are biased in small samples, and resampling adds that bias again. For them,
    bootstrap the difference of two sets of equal size: the bias cancels.

    Raises ValueError for no rows, and settings out of range.

    >>> bootstrap(torch.mean, torch.tensor([0.0, 1.0, 0.0, 1.0]).repeat(25))
    Interval(low=0.4..., value=0.5, high=0.6...)
    """
    check_callable(statistic=statistic)
    check_range(-math.inf, math.inf, level=level)
    check_count(resamples=resamples)
    named = {f"samples[{k}]": sample for k, sample in enumerate(samples)}
    samples = tuple(as_floats(**{name: sample}) for name, sample in named.items())
    lengths = [len(sample) if sample.ndim else 0 for sample in samples]
    if not lengths or min(lengths) == 0:
        raise ValueError(
            "samples must have at least one row; "
            f"got shapes {[tuple(sample.shape) for sample in samples]}: pass one row per observation"
        )
    if not 0 < level < 1:
        raise ValueError(f"level must lie between 0 and 1; got {level}: 0.95 is usual")
    generator = seeded(seed)
    values = torch.empty(resamples, dtype=torch.float64)
    for k in range(resamples):
        rows = [torch.randint(n, (n,), generator=generator) for n in lengths]
        drawn = [x[chosen.to(x.device)] for x, chosen in zip(samples, rows, strict=True)]
        values[k] = _one(statistic(*drawn))
    tail = (1 - level) / 2
    low, high = values.quantile(torch.tensor([tail, 1 - tail], dtype=torch.float64)).tolist()
    return Interval(low, _one(statistic(*samples)), high)


def _one(value: Tensor | float) -> float:
    try:
        return float(value)
    except (TypeError, ValueError, RuntimeError):
        raise ValueError(
            f"statistic must return one number; got {kind_of(value)}: take a mean, or one column"
        ) from None
