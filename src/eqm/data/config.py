"""The settings of a data set; imports no torch."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class DataConfig:
    """What to train on."""

    path: str = "digits"
    """`digits`, or the path of an .npz with `images` and, if there are any, `labels`."""
    held_out: float = 0.2
    """Share of each class that training never sees."""

    def __post_init__(self) -> None:
        if not 0 <= self.held_out < 1:
            raise ValueError(f"data.held_out must lie in [0, 1); got {self.held_out}")
