"""Values for each sample of a batch, whatever the shape of a sample; imports no torch."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor


def per_sample(values: Tensor, x: Tensor) -> Tensor:
    """Values (B,) reshaped to (B, 1, ...), to broadcast with x (B, ...).

    >>> import torch
    >>> per_sample(torch.tensor([1.0, 2.0]), torch.ones(2, 3)) * torch.ones(2, 3)
    tensor([[1., 1., 1.],
            [2., 2., 2.]])
    """
    return values.view(-1, *[1] * (x.ndim - 1))


def norms(x: Tensor) -> Tensor:
    """The Euclidean norm of each sample of x (B, ...), (B,)."""
    return x.flatten(1).norm(2, dim=1)


def all_finite(x: Tensor) -> Tensor:
    """True (B,) for the samples of x (B, ...) without NaN and infinity."""
    return x.isfinite().flatten(1).all(1)
