"""Distances between all rows of two sets, a block at a time."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

# At most 2048 x 4096 distances are held at a time, 64 MiB, beside one block of either set.
ROWS_AT_ONCE = 2048
COLUMNS_AT_ONCE = 4096


def blocks(
    a: Tensor, b: Tensor, *, exclude_self: bool = False
) -> Iterator[tuple[slice, slice, Tensor]]:
    """Yields |a_i - b_j|^2 for the rows of a (N, D) and b (M, D): which rows, which columns, block.

    All columns of some rows come before the next rows. The squares are expanded in float64 (float32
    on MPS, which has no other) around the mean of b, and never negative. With `exclude_self` row i
    of a is row i of b, and infinitely far from itself.
    """
    # In float32 the expanded square would cancel, and under TF32 name the wrong neighbour.
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


def finite_rows(values: Tensor, name: str) -> Tensor:
    """The values (N, ...) as rows (N, D). Raises ValueError where one is not finite."""
    flat = values.detach().flatten(1)
    bad = int((~flat.isfinite()).any(1).sum())
    if bad:
        raise ValueError(
            f"{name} must be finite; got NaN or infinity in {bad} of {len(flat)}: drop them first"
        )
    return flat


def require_alike(samples: Tensor, references: Tensor) -> None:
    """Returns nothing; raises ValueError unless shapes are (N, ...) and (M, ...), alike after that."""
    if samples.ndim < 2 or samples.shape[1:] != references.shape[1:]:
        raise ValueError(
            f"samples and references must have shapes (N, ...) and (M, ...) alike after the first "
            f"axis; got {tuple(samples.shape)} and {tuple(references.shape)}: resize one of them"
        )
