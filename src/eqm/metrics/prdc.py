"""Precision, recall, density and coverage: fidelity and diversity as separate numbers."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from eqm.checks import check_count
from eqm.metrics.distances import blocks, finite_rows


@dataclass(frozen=True, eq=False)
class Overlap:
    """Which rows lie in whose balls; the ball of a row reaches to its k-th neighbour in the same set.

    An outlier has a large ball, which may hold bad samples; density and coverage are more robust than
    precision and recall.
    """

    balls: Tensor
    """The number of reference balls that hold each sample, (N,)."""
    recalled: Tensor
    """Whether the ball of any sample holds each reference, (M,)."""
    covered: Tensor
    """Whether the ball of each reference holds any sample, (M,)."""
    neighbours: int
    """k."""

    @property
    def precision(self) -> float:
        """The fraction of samples in the ball of any reference: Eq. 1 of arXiv 1904.06991."""
        return float((self.balls > 0).double().mean())

    @property
    def recall(self) -> float:
        """The fraction of references in the ball of any sample: Eq. 2 of arXiv 1904.06991."""
        return float(self.recalled.double().mean())

    @property
    def density(self) -> float:
        """The mean number of reference balls that hold a sample, divided by k: Eq. 4 of arXiv 2002.09797.

        It exceeds 1 if samples concentrate in modes.
        """
        return float(self.balls.double().mean()) / self.neighbours

    @property
    def coverage(self) -> float:
        """The fraction of references whose ball holds a sample: Eq. 5 of arXiv 2002.09797."""
        return float(self.covered.double().mean())


def overlap(samples: Tensor, references: Tensor, *, neighbours: int) -> Overlap:
    """Returns which rows of samples (N, D) and references (M, D) lie in whose balls.

    3 neighbours are usual for precision and recall, 5 for density and coverage. Precision and recall
    depend on the counts, so compare only equal counts. Two sets of one distribution and size have
    density 1 and coverage near 1 - 2^-k.

    Distances are Euclidean, in float64, computed in blocks. A row exactly as far as the k-th neighbour,
    such as a copy of it, counts as inside, however the distances are rounded. Raises ValueError for
    shapes that do not match, values that are not finite, and sets with at most `neighbours` rows.

    >>> overlap(torch.tensor([[0.0], [1.0], [9.0]]), torch.arange(4.0)[:, None], neighbours=1).precision
    0.666...
    """
    check_count(neighbours=neighbours)
    samples, references = finite_rows(samples, references)
    fewest = min(len(samples), len(references))
    if not 1 <= neighbours < fewest:
        raise ValueError(
            f"neighbours must be at least 1 and less than the rows of the smaller set, {fewest}; got "
            f"{neighbours}: pass more samples"
        )
    sample_radii, reference_radii = _radii(samples, neighbours), _radii(references, neighbours)
    balls = torch.zeros(len(samples), dtype=torch.long, device=samples.device)
    recalled = torch.zeros(len(references), dtype=torch.bool, device=samples.device)
    covered = recalled.clone()
    for rows, columns, square in blocks(samples, references):
        inside = square <= reference_radii[columns]
        balls[rows] += inside.sum(1)
        covered[columns] |= inside.any(0)
        recalled[columns] |= (square <= sample_radii[rows, None]).any(0)
    return Overlap(balls, recalled, covered, neighbours)


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
