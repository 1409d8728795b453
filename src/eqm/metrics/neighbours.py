"""Distances to the nearest reference: are the samples copies of the training data?"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

# At most 2048 x 4096 products are held at a time, 64 MiB, beside one block of either set.
_SAMPLES_AT_ONCE = 2048
_REFERENCES_AT_ONCE = 4096


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
    if samples.ndim < 2 or samples.shape[1:] != references.shape[1:]:
        raise ValueError(
            f"samples and references must have shapes (N, ...) and (M, ...) alike after the first "
            f"axis; got {tuple(samples.shape)} and {tuple(references.shape)}: resize one of them"
        )
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
    samples = _finite_rows(samples, "samples").to(given)  # (N, D)
    references = _finite_rows(references, "references").to(given)  # (M, D)
    distance = samples.new_empty(len(samples))
    index = torch.empty(len(samples), dtype=torch.long, device=samples.device)
    # In float32 the expanded square would cancel, and under TF32 name the wrong neighbour.
    dtype = torch.float32 if samples.device.type == "mps" else torch.float64
    centre = references.mean(0, dtype=dtype)
    for row in range(0, len(samples), _SAMPLES_AT_ONCE):
        rows = slice(row, row + _SAMPLES_AT_ONCE)
        centred = samples[rows].to(dtype) - centre
        smallest = centred.new_full((len(centred),), torch.inf)
        for first in range(0, len(references), _REFERENCES_AT_ONCE):
            block = references[first : first + _REFERENCES_AT_ONCE].to(dtype) - centre
            # |s - r|^2 less |s|^2, which does not change the order.
            square = torch.addmm(block.square().sum(1), centred, block.mT, alpha=-2)
            if exclude_self:
                square.diagonal(row - first).fill_(torch.inf)
            nearest = square.min(1)
            closer = nearest.values < smallest
            smallest = torch.where(closer, nearest.values, smallest)
            index[rows] = torch.where(closer, nearest.indices + first, index[rows])
        distance[rows] = (samples[rows] - references[index[rows]]).norm(dim=1)
    return Nearest(distance, index)


def _finite_rows(values: Tensor, name: str) -> Tensor:
    flat = values.detach().flatten(1)
    bad = int((~flat.isfinite()).any(1).sum())
    if bad:
        raise ValueError(
            f"{name} must be finite; got NaN or infinity in {bad} of {len(flat)}: drop them first"
        )
    return flat
