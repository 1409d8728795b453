"""The Inception Score, from the class probabilities of samples."""

from __future__ import annotations

import torch
from torch import Tensor

from eqm.checks import as_floats, check_count, seeded
from eqm.metrics.kid import Spread


def inception_score(probabilities: Tensor, *, splits: int = 10, seed: int = 0) -> Spread:
    """Returns the Inception Score of samples with class probabilities (N, K), from 1 to K.

    exp(mean_i KL(p_i || mean_j p_j)),  Section 4 of arXiv 1606.03498

    It is the mean over `splits` equal subsets, with their standard deviation. It does not see real
    images: a generator of one perfect image per class gets the best score. Rows are shuffled first,
    because samples may be ordered by class; rows left over after the division are not used.

    Raises ValueError for rows that are not probabilities, and fewer rows than splits.

    >>> inception_score(torch.eye(4).repeat(5, 1), splits=1).value
    4.0...
    """
    probabilities = _as_probabilities(probabilities)
    check_count(splits=splits)
    splits = int(splits)
    if not 1 <= splits <= len(probabilities):
        raise ValueError(
            f"splits must lie in 1..{len(probabilities)}, the number of samples; got {splits}"
        )
    order = torch.randperm(len(probabilities), generator=seeded(seed))
    size = len(probabilities) // splits
    parts = probabilities.double()[order.to(probabilities.device)][: size * splits].split(size)
    found = torch.stack([_divergences(part).mean().exp() for part in parts])
    return Spread(float(found.mean()), float(found.std(correction=0)))


def inception_influence(probabilities: Tensor) -> Tensor:
    """Returns the contribution of each sample to the Inception Score of all, (N,), mean 0.

    exp(mean KL) (KL_i - mean KL): if the samples are resampled, the score changes to first order by
    the mean over the resampled rows.
    """
    probabilities = _as_probabilities(probabilities)
    divergence = _divergences(probabilities.double())
    return divergence.mean().exp() * (divergence - divergence.mean())


def _divergences(probabilities: Tensor) -> Tensor:
    """KL(p_i || mean p) of each row, (N,)."""
    mean = probabilities.mean(0)
    return (probabilities.xlogy(probabilities) - probabilities.xlogy(mean)).sum(1)


def _as_probabilities(probabilities: Tensor) -> Tensor:
    probabilities = as_floats("(N, K)", probabilities=probabilities)
    sums = probabilities.sum(-1)
    if (
        probabilities.ndim != 2
        or len(probabilities) == 0
        or not bool((probabilities >= 0).all() and ((sums - 1).abs() < 1e-3).all())
    ):
        raise ValueError(
            f"probabilities must be rows (N, K) that sum to 1; got {tuple(probabilities.shape)}: "
            "apply softmax to logits first"
        )
    return probabilities
