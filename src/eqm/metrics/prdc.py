"""Precision, recall, density and coverage: fidelity and diversity as separate numbers."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from eqm.metrics.distances import blocks, finite_rows, require_alike


class Overlap(NamedTuple):
    """Which rows lie in whose balls; the ball of a row reaches to its k-th neighbour in the same set."""

    balls: Tensor
    """The number of reference balls that hold each sample, (N,)."""
    recalled: Tensor
    """Whether the ball of any sample holds each reference, (M,)."""
    covered: Tensor
    """Whether the ball of each reference holds any sample, (M,)."""


class PrecisionRecall(NamedTuple):
    """The fraction of samples within the references, and of references within the samples."""

    precision: float
    recall: float


class DensityCoverage(NamedTuple):
    """How densely references surround samples, and the fraction of references near a sample."""

    density: float
    coverage: float


def precision_recall(
    samples: Tensor, references: Tensor, *, neighbours: int = 3
) -> PrecisionRecall:
    """Returns the precision and the recall of samples (N, D) against references (M, D).

    Precision is the fraction of samples in the ball of any reference; recall is the fraction of
    references in the ball of any sample: Eq. 1 and 2 of arXiv 1904.06991. Both depend on the counts, so
    compare only equal counts. An outlier has a large ball, which may hold bad samples;
    `density_coverage` is more robust.

    Raises ValueError as `overlap` does.

    >>> precision_recall(torch.tensor([[0.0], [1.0], [9.0]]), torch.arange(4.0)[:, None], neighbours=1)
    PrecisionRecall(precision=0.666..., recall=1.0)
    """
    found = overlap(samples, references, neighbours=neighbours)
    return PrecisionRecall(_mean(found.balls > 0), _mean(found.recalled))


def density_coverage(
    samples: Tensor, references: Tensor, *, neighbours: int = 5
) -> DensityCoverage:
    """Returns the density and the coverage of samples (N, D) against references (M, D).

    Density is the mean number of reference balls that hold a sample, divided by k; coverage is the
    fraction of references whose ball holds a sample: Eq. 4 and 5 of arXiv 2002.09797. Two sets of one
    distribution and size have density 1 and coverage near 1 - 2^-k. Density exceeds 1 if samples
    concentrate in modes.

    Raises ValueError as `overlap` does.
    """
    found = overlap(samples, references, neighbours=neighbours)
    return DensityCoverage(_mean(found.balls) / neighbours, _mean(found.covered))


def overlap(samples: Tensor, references: Tensor, *, neighbours: int) -> Overlap:
    """Returns which rows of samples (N, D) and references (M, D) lie in whose balls.

    Distances are Euclidean, in float64, computed in blocks. A row exactly as far as the k-th neighbour,
    such as a copy of it, counts as inside, however the distances are rounded. Raises ValueError for
    shapes that do not match, values that are not finite, and sets with at most `neighbours` rows.
    """
    require_alike(samples, references)
    fewest = min(len(samples), len(references))
    if not 1 <= neighbours < fewest:
        raise ValueError(
            f"neighbours must be at least 1 and less than the rows of the smaller set, {fewest}; got "
            f"{neighbours}: pass more samples"
        )
    samples, references = finite_rows(samples, "samples"), finite_rows(references, "references")
    sample_radii, reference_radii = _radii(samples, neighbours), _radii(references, neighbours)
    balls = torch.zeros(len(samples), dtype=torch.long, device=samples.device)
    recalled = torch.zeros(len(references), dtype=torch.bool, device=samples.device)
    covered = recalled.clone()
    for rows, columns, square in blocks(samples, references):
        inside = square <= reference_radii[columns]
        balls[rows] += inside.sum(1)
        covered[columns] |= inside.any(0)
        recalled[columns] |= (square <= sample_radii[rows, None]).any(0)
    return Overlap(balls, recalled, covered)


def _radii(rows: Tensor, neighbours: int) -> Tensor:
    """The squared distance of each row to its k-th neighbour plus a margin for rounding, (N,)."""
    radii, nearest = [], rows
    for _, columns, square in blocks(rows, rows, exclude_self=True):
        if columns.start:
            square = torch.cat([nearest, square], 1)
        nearest = square.topk(min(neighbours, square.shape[1]), largest=False).values
        if columns.stop >= len(rows):
            radii.append(nearest[:, -1])
    square = torch.cat(radii)
    # The squares in `blocks` are expanded around the mean of the rows.
    sizes = (rows - rows.mean(0, dtype=square.dtype)).square().sum(1)
    return square + 256 * torch.finfo(square.dtype).eps * (square + sizes)


def _mean(values: Tensor) -> float:
    return float(values.double().mean())
