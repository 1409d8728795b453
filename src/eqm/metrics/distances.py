"""Distances between the rows of two sets, and to the nearest reference."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from eqm.checks import as_floats

# At most 2048 x 4096 distances, 64 MiB, are in memory at once.
ROWS_AT_ONCE = 2048
COLUMNS_AT_ONCE = 4096


def blocks(
    a: Tensor, b: Tensor, *, exclude_self: bool = False
) -> Iterator[tuple[slice, slice, Tensor]]:
    """Yields (rows, columns, block) with |a_i - b_j|^2 for the rows of a (N, D) and b (M, D).

    All columns of some rows come before the next rows. The squares are expanded around the mean of b,
    in float64 (float32 on MPS, which has no float64), and are never negative. With `exclude_self`, a
    and b are the same rows, and each row is infinitely far from itself.
    """
    # In float32 the expanded square cancels, and TF32 finds wrong neighbours.
    dtype = torch.float32 if a.device.type == "mps" else torch.float64
    centre = b.mean(0, dtype=dtype)
    for row in range(0, len(a), ROWS_AT_ONCE):
        rows = slice(row, row + ROWS_AT_ONCE)
        left = a[rows].to(dtype) - centre
        for first in range(0, len(b), COLUMNS_AT_ONCE):
            columns = slice(first, first + COLUMNS_AT_ONCE)
            right = b[columns].to(dtype) - centre
            square = torch.addmm(right.square().sum(1), left, right.mT, alpha=-2)
            square.add_(left.square().sum(1, keepdim=True)).clamp_(min=0)
            if exclude_self:
                square.diagonal(row - first).fill_(torch.inf)
            yield rows, columns, square


class Nearest(NamedTuple):
    """The distance of each sample to its nearest reference, (N,), and the reference's index, (N,)."""

    distance: Tensor
    index: Tensor  # type: ignore[assignment]  # hides tuple.index


def nearest_distances(
    samples: Tensor, references: Tensor, *, exclude_self: bool = False
) -> Nearest:
    """Returns the Euclidean distance of each sample (N, ...) to the nearest reference (M, ...).

    distance_i = min_j |samples_i - references_j|, over all values of a sample. The expanded square in
    float64 finds the neighbour; its distance comes from the difference, so a copy has distance exactly
    0. Among equally near references, any index may be returned. With `exclude_self`, samples and
    references are the same rows, and a row is not its own neighbour; a copy of it is.

    Raises ValueError for shapes that do not match, no references, or values that are not finite.

    >>> nearest_distances(torch.tensor([[0.0], [3.0]]), torch.tensor([[1.0], [3.0]])).distance
    tensor([1., 0.])
    """
    samples, references = finite_rows(samples, references)  # (N, D), (M, D)
    if exclude_self and len(samples) != len(references):
        raise ValueError(
            f"exclude_self needs samples and references to be equal; got {len(samples)} samples and "
            f"{len(references)} references: pass the same tensor twice"
        )
    if len(references) <= exclude_self:
        raise ValueError(
            f"each sample needs a reference; got {len(references)} references with "
            f"exclude_self={exclude_self}: pass more"
        )
    given = torch.promote_types(torch.promote_types(samples.dtype, references.dtype), torch.float32)
    samples, references = samples.to(given), references.to(given)
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


def finite_rows(samples: Tensor, references: Tensor) -> tuple[Tensor, Tensor]:
    """Both sets, (N, ...) and (M, ...), as rows (N, D) and (M, D).

    Raises ValueError for shapes that do not match and values that are not finite.
    """
    samples, references = as_floats(samples=samples, references=references)
    if samples.ndim < 2 or samples.shape[1:] != references.shape[1:]:
        raise ValueError(
            "samples and references must have shapes (N, ...) and (M, ...) that agree after the first "
            f"axis; got {tuple(samples.shape)} and {tuple(references.shape)}: resize one of them"
        )
    if not math.prod(samples.shape[1:]):
        raise ValueError(f"samples must have values; got {tuple(samples.shape)}")
    rows = {"samples": samples.detach().flatten(1), "references": references.detach().flatten(1)}
    for name, flat in rows.items():
        if bad := int((~flat.isfinite()).any(1).sum()):
            raise ValueError(
                f"{name} must be finite; got NaN or infinity in {bad} of {len(flat)}: drop them first"
            )
    return rows["samples"], rows["references"]
