"""What a classifier makes of samples: how sure and how varied its answers are, and how right."""

from __future__ import annotations

import torch
from torch import Generator, Tensor

from eqm.metrics.kid import Spread


def inception_score(probabilities: Tensor, *, splits: int = 10, seed: int = 0) -> Spread:
    """Returns the Inception Score of samples whose classes have probabilities (N, K).

    exp(mean_i KL(p_i || mean_j p_j)) in each of `splits` equal parts, 1 to K: Section 4 of arXiv
    1606.03498. It knows no real images: a generator of one perfect image a class has the best score.
    Rows are shuffled first, as samples in the order of their classes would make every part uniform;
    what is over when N is divided is left out of the parts. The deviation is that over parts.

    Raises ValueError for rows that are no probabilities, and fewer rows than splits.

    >>> inception_score(torch.eye(4).repeat(5, 1), splits=1).value
    4.0...
    """
    _require_probabilities(probabilities)
    if not 1 <= splits <= len(probabilities):
        raise ValueError(
            f"splits must lie in 1..{len(probabilities)}, the number of samples; got {splits}"
        )
    order = torch.randperm(len(probabilities), generator=Generator().manual_seed(seed))
    size = len(probabilities) // splits
    parts = probabilities.double()[order.to(probabilities.device)][: size * splits].split(size)
    found = torch.stack([_divergences(part).mean().exp() for part in parts])
    return Spread(float(found.mean()), float(found.std(correction=0)))


def inception_influence(probabilities: Tensor) -> Tensor:
    """Returns how much each sample adds to the Inception Score of all, (N,), centred.

    exp(mean KL) (KL_i - mean KL): the mean of resampled rows is, to first order, how the score
    changes when the samples are resampled.
    """
    _require_probabilities(probabilities)
    divergence = _divergences(probabilities.double())
    return divergence.mean().exp() * (divergence - divergence.mean())


def _divergences(probabilities: Tensor) -> Tensor:
    """KL(p_i || mean p) of each row, (N,)."""
    mean = probabilities.mean(0)
    return (probabilities.xlogy(probabilities) - probabilities.xlogy(mean)).sum(1)


def _require_probabilities(probabilities: Tensor) -> None:
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
