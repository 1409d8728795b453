"""What a calibration promises: thresholds at several false-alarm rates, and how certain the rates are."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from eqm.checks import check_fraction

RATES = (0.1, 0.05, 0.02, 0.01, 0.005, 0.001)
"""False-alarm rates of a report."""


@dataclass(frozen=True)
class Promise:
    """A threshold for a false-alarm rate, from N held-out good parts."""

    rate: float
    """The rate that was asked for."""
    threshold: float | None
    """Parts that score higher are anomalous; None if N is too small for the rate."""
    low: float = math.nan
    """The true rate lies between `low` and `high` with a probability of 95 %, for new good parts like these."""
    high: float = math.nan
    needed: int = 0
    """The held-out good parts that the rate needs at least."""


def promises(scores: Tensor, rates: Sequence[float] = RATES) -> list[Promise]:
    """The thresholds of sorted scores (N,) of held-out good parts, one for each rate.

    The threshold is the k-th largest score, k = floor(rate (N + 1)). Over calibrations with other N good parts
    the true rate of false alarms has the distribution Beta(k, N + 1 - k) (Vovk, Conditional validity of inductive
    conformal predictors, 2012, Proposition 2a)."""
    count, found = len(scores), []
    for rate in rates:
        rank = math.floor(round(rate * (count + 1), 9))
        needed = math.ceil(round(1 / rate, 9)) - 1
        if rank < 1 or rank > count:
            found.append(Promise(rate, None, needed=needed))
            continue
        low, high = (beta_quantile(level, rank, count + 1 - rank) for level in (0.025, 0.975))
        found.append(Promise(rate, float(scores[-rank]), low, high, needed))
    return found


def binomial_interval(hits: int, count: int, level: float = 0.95) -> tuple[float, float]:
    """The interval of Clopper and Pearson (1934) for a share of which `hits` of `count` were seen.

    >>> binomial_interval(0, 10)[0]
    0.0
    """
    check_fraction(1, level=level)
    if not 0 <= hits <= count or not count:
        raise ValueError(f"hits must lie between 0 and count; got {hits} of {count}")
    tail = (1 - level) / 2
    low = beta_quantile(tail, hits, count - hits + 1) if hits else 0.0
    high = beta_quantile(1 - tail, hits + 1, count - hits) if hits < count else 1.0
    return low, high


def beta_quantile(level: float, a: int, b: int) -> float:
    """The quantile of the beta distribution with whole parameters a and b of at least 1, to about 1e-12.

    It halves an interval, with P(Beta(a, b) <= x) = P(Binomial(a + b - 1, x) >= a)."""
    count = a + b - 1
    # the shorter tail of the binomial distribution is summed
    upper = b <= a
    hits = torch.arange(a, count + 1) if upper else torch.arange(a)
    hits = hits.double()
    whole = torch.tensor(count + 1.0, dtype=torch.float64)
    ways = torch.lgamma(whole) - torch.lgamma(hits + 1) - torch.lgamma(count - hits + 1)
    low, high = 0.0, 1.0
    for _ in range(50):
        middle = (low + high) / 2
        logs = ways + hits * math.log(middle) + (count - hits) * math.log1p(-middle)
        tail = float(logs.exp().sum())
        low, high = (low, middle) if (tail if upper else 1 - tail) > level else (middle, high)
    return (low + high) / 2
