"""The kernel distance: the squared maximum mean discrepancy under a cubic kernel; KID in Inception features."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from eqm.checks import check_count, seeded
from eqm.metrics.distances import ROWS_AT_ONCE, finite_rows


class Spread(NamedTuple):
    """The mean of a metric over subsets, and its standard deviation."""

    value: float
    deviation: float

    def __str__(self) -> str:
        return f"{self.value:.4g} ± {self.deviation:.2g}"


def kernel_distance(
    samples: Tensor,
    references: Tensor,
    *,
    subsets: int = 100,
    subset_size: int | None = None,
    seed: int = 0,
) -> Spread:
    """Returns the kernel distance of features (N, D) and (M, D), the mean over random subsets.

    mean_{i≠j} k(s_i, s_j) + mean_{i≠j} k(r_i, r_j) - 2 mean_{ij} k(s_i, r_j),
    k(x, y) = (x·y / D + 1)^3,  Section 4 of arXiv 1801.01401

    Unlike a Frechet distance it is unbiased: its mean does not depend on the counts, and is 0 for two
    sets of one distribution, so it can be negative. Subsets are drawn without replacement. By default
    they have 1000 rows, but at most half of the smaller set, so that subsets differ. The deviation is
    that of one subset, as in the literature.

    Raises ValueError for shapes that do not match, values that are not finite, and subsets of fewer
    than 2 rows or more rows than a set has.

    >>> kernel_distance(torch.zeros(4, 2), torch.ones(4, 2)).value
    7.0
    """
    check_count(subsets=subsets)
    if subset_size is not None:
        check_count(subset_size=subset_size)
    samples, references = finite_rows(samples, references)
    fewest = min(len(samples), len(references))
    size = min(1000, fewest // 2) if subset_size is None else subset_size
    if not 2 <= size <= fewest:
        raise ValueError(
            f"subsets must have 2 rows or more, and at most the rows of each set; got {subsets} subsets of "
            f"{size} from {len(samples)} samples and {len(references)} references: pass more samples"
        )
    generator = seeded(seed)

    def subset(of: Tensor) -> Tensor:
        return of[torch.randperm(len(of), generator=generator)[:size].to(of.device)]

    found = torch.tensor(
        [_unbiased(subset(samples), subset(references)) for _ in range(subsets)],
        dtype=torch.float64,
    )
    return Spread(float(found.mean()), float(found.std(correction=0)))


def kernel_influence(samples: Tensor, references: Tensor) -> Tensor:
    """Returns the contribution of each sample (N, D) to the kernel distance from references, (N,), mean 0.

    2 (mean_j k(s_i, s_j) - mean_j k(s_i, r_j)), centred: if the samples are resampled, the distance
    changes to first order by the mean over the resampled rows.
    """
    samples, references = finite_rows(samples, references)
    if not len(samples) or not len(references):
        raise ValueError(
            f"both sets must have rows; got {len(samples)} samples and {len(references)} references"
        )
    rows = [
        _kernel(block, samples).mean(1) - _kernel(block, references).mean(1)
        for block in samples.split(ROWS_AT_ONCE)
    ]
    influence = 2 * torch.cat(rows)
    return influence - influence.mean()


def _unbiased(a: Tensor, b: Tensor) -> Tensor:
    within = [
        (kernel.sum() - kernel.trace()) / (len(kernel) * (len(kernel) - 1))
        for kernel in (_kernel(a, a), _kernel(b, b))
    ]
    return within[0] + within[1] - 2 * _kernel(a, b).mean()


def _kernel(a: Tensor, b: Tensor) -> Tensor:
    dtype = torch.float32 if a.device.type == "mps" else torch.float64
    return (a.to(dtype) @ b.to(dtype).mT / a.shape[1] + 1) ** 3
