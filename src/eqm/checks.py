"""Checks of settings; each raises ValueError."""

from __future__ import annotations

import math


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
