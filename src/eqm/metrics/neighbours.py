"""Distances to the nearest reference: are the samples copies of the training data?"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from eqm.metrics.distances import ROWS_AT_ONCE, blocks, finite_rows, require_alike


class Nearest(NamedTuple):
    """The distance (N,) of each sample to its nearest reference, and that reference's index."""

    distance: Tensor
    index: Tensor  # type: ignore[assignment]  # hides tuple.index, which nobody needs here


def nearest_distances(
    samples: Tensor, references: Tensor, *, exclude_self: bool = False
) -> Nearest:
    """Returns the Euclidean distance of each sample (N, ...) to the nearest reference (M, ...).

    distance_i = min_j |samples_i - references_j|, over all values of a sample. The neighbour is
    found by the expanded square in float64, its distance by the difference, so that a copy is at
    exactly 0; which of equally near references is named is not defined. With `exclude_self` sample
    i is reference i and is not its own neighbour; another sample with the same values still is.

    Raises ValueError for shapes that disagree, no reference, or values that are not finite.

    >>> nearest_distances(torch.tensor([[0.0], [3.0]]), torch.tensor([[1.0], [3.0]])).distance
    tensor([1., 0.])
    """
    require_alike(samples, references)
    if exclude_self and len(samples) != len(references):
        raise ValueError(
            f"exclude_self needs the samples to be the references; got {len(samples)} samples and "
            f"{len(references)} references: pass the same tensor twice"
        )
    if len(references) <= exclude_self:
        raise ValueError(
            f"each sample must have a reference; got {len(references)} references with "
            f"exclude_self={exclude_self}: pass more"
        )
    given = torch.promote_types(torch.promote_types(samples.dtype, references.dtype), torch.float32)
    samples = finite_rows(samples, "samples").to(given)  # (N, D)
    references = finite_rows(references, "references").to(given)  # (M, D)
    index = torch.zeros(len(samples), dtype=torch.long, device=samples.device)
    for rows, columns, square in blocks(samples, references, exclude_self=exclude_self):
        if columns.start == 0:
            smallest = square.new_full((len(square),), torch.inf)
        nearest = square.min(1)
        closer = nearest.values < smallest
        smallest = torch.where(closer, nearest.values, smallest)
        index[rows] = torch.where(closer, nearest.indices + columns.start, index[rows])
    parts = zip(samples.split(ROWS_AT_ONCE), index.split(ROWS_AT_ONCE), strict=True)
    distances = [(part - references[nearest]).norm(dim=1) for part, nearest in parts]
    return Nearest(torch.cat(distances), index)
