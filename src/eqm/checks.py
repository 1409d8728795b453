"""Checks of settings, each of which raises ValueError, and of images."""

from __future__ import annotations

import logging
import math
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

LOG = logging.getLogger(__name__)
ENOUGH = 8
"""Of so many images, one has a pixel that is darker than middle grey."""


def check_positive(**values: float) -> None:
    """Each value must be positive and finite."""
    for name, value in values.items():
        if not 0 < value < math.inf:
            raise ValueError(f"{name} must be a positive number; got {value}")


def check_fraction(**values: float) -> None:
    """Each value must lie in [0, 1)."""
    for name, value in values.items():
        if not 0 <= value < 1:
            raise ValueError(f"{name} must lie in [0, 1); got {value}")


def check_ratio(**values: float) -> None:
    """Each value must lie in (0, 1]."""
    for name, value in values.items():
        if not 0 < value <= 1:
            raise ValueError(f"{name} must lie in (0, 1]; got {value}")


def check_count(unit: str = "", /, **values: int) -> None:
    """Each value must be at least 1; `unit` is for the message."""
    for name, value in values.items():
        if not value >= 1:
            raise ValueError(f"{name} must be at least 1{unit and ' ' + unit}; got {value}")


def warn_of_range(images: Tensor) -> None:
    """Warns of images (B, C, H, W) that seem to lie in 0..1, as tasks take -1..1 and cannot know."""
    if images.ndim != 4 or not images.numel():
        return
    low, high = images.min().item(), images.max().item()
    if 0 <= low < high <= 1 and (low == 0 or len(images) >= ENOUGH):
        LOG.warning(
            "images lie in %g..%g, but black is -1 here: if 0 is black in yours, pass 2 * images - 1",
            *(low, high),
        )
