"""Fidelity and diversity apart: which samples lie among the references, and the other way round."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from eqm.metrics.distances import blocks, finite_rows, require_alike


class Overlap(NamedTuple):
    """How the balls around each set's rows, out to the k-th neighbour in it, hold the other's."""

    balls: Tensor
    """In how many references' balls each sample lies, (N,)."""
    recalled: Tensor
    """Whether each reference lies in the ball of a sample, (M,)."""
    covered: Tensor
    """Whether the ball of each reference holds a sample, (M,)."""


class PrecisionRecall(NamedTuple):
    """The share of samples among the references, and of references among the samples."""

    precision: float
    recall: float


class DensityCoverage(NamedTuple):
    """How densely references surround the samples, and the share of references with a sample near."""

    density: float
    coverage: float


def precision_recall(
    samples: Tensor, references: Tensor, *, neighbours: int = 3
) -> PrecisionRecall:
    """Returns the precision and the recall of samples (N, D) against references (M, D).

    A point lies among a set if it is as near to some row of it as that row's k-th neighbour in the
    set is: Eq. 1 and 2 of arXiv 1904.06991. Both depend on the counts: compare only equal ones. One
    outlier among the references makes a ball that takes in bad samples; `density_coverage` minds less.

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

    Density is the number of references' balls a sample lies in, over k; coverage the share of
    references whose ball, out to the k-th neighbour, holds a sample: Eq. 4 and 5 of arXiv 2002.09797.
    Two sets of one distribution and size have density 1 and coverage near 1 - 2^-k; density may
    exceed 1 where samples crowd in modes.

    Raises ValueError as `overlap` does.
    """
    found = overlap(samples, references, neighbours=neighbours)
    return DensityCoverage(_mean(found.balls) / neighbours, _mean(found.covered))


def overlap(samples: Tensor, references: Tensor, *, neighbours: int) -> Overlap:
    """Returns which rows of samples (N, D) and references (M, D) lie in whose balls.

    Distances are Euclidean, in float64, a block at a time. What is as far as the k-th neighbour lies in
    the ball, as a copy of that does, whichever way the two distances are rounded. Raises ValueError for
    shapes that disagree, values that are not finite, and sets of no more rows than `neighbours`.
    """
    require_alike(samples, references)
    fewest = min(len(samples), len(references))
    if not 1 <= neighbours < fewest:
        raise ValueError(
            f"neighbours must be at least 1 and below the rows of either set, {fewest}; got "
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
    """The squared distance of each row to its k-th nearest other, and what rounding may add to one
    that is equal, (N,)."""
    radii, nearest = [], rows
    for _, columns, square in blocks(rows, rows, exclude_self=True):
        if columns.start:
            square = torch.cat([nearest, square], 1)
        nearest = square.topk(min(neighbours, square.shape[1]), largest=False).values
        if columns.stop >= len(rows):
            radii.append(nearest[:, -1])
    square = torch.cat(radii)
    # of what the squares are expanded around, in `blocks`
    sizes = (rows - rows.mean(0, dtype=square.dtype)).square().sum(1)
    return square + 256 * torch.finfo(square.dtype).eps * (square + sizes)


def _mean(values: Tensor) -> float:
    return float(values.double().mean())
