"""The settings of a data set; imports no torch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class DataConfig:
    """What to train on."""

    path: str = "digits"
    """A known data set such as `digits`, `mnist-5k`, `fashion-mnist`, `openmoji-32`, `elpv` or
    `points:moons`; else a folder, zip or tar of pictures, an .npz or .npy, an IDX or parquet file, a
    folder that `datasets` saved, or `hf:OWNER/NAME` on the Hugging Face hub."""
    val_fraction: float = 0.2
    """Share of each class that training never sees."""
    size: int = 0
    """Side of the square that pictures are cropped and resized to; 0 takes them as they are, -1
    picks one that suits what is found (the recipe `folder`)."""
    channels: int = 0
    """Turn pictures into 1 (grey), 3 (colour, on white) or 4 (colour and opacity) channels; 0 takes
    them as they are, -1 picks grey or colour by what is found (the recipe `folder`)."""
    flip: bool = False
    """Mirror pictures left to right, at random, half of them each time."""
    labels: bool = True
    """Whether classes are used, where there are any."""
    classes: tuple[str, ...] = ()
    """Train on these classes alone, by name or number; all of them by default."""
    broken: Literal["skip", "fail"] = "skip"
    """A picture that cannot be read is replaced by the next of its class, and named; or ends the
    run."""
    workers: int = 0
    """Threads that decode pictures; 0 takes one a processor core, at most 16."""
    memory: int = 1024
    """MiB of decoded 8-bit pictures to keep in memory, where all of them fit; 0 decodes each time."""

    def __post_init__(self) -> None:
        if not 0 <= self.val_fraction < 1:
            raise ValueError(f"data.val_fraction must lie in [0, 1); got {self.val_fraction}")
        if self.size < -1:
            raise ValueError(
                f"data.size must be a side in pixels, 0 (as they are) or -1 (picked); got {self.size}"
            )
        if self.channels not in (-1, 0, 1, 3, 4):
            raise ValueError(
                "data.channels must be 1, 3, 4, 0 (as they are) or -1 (picked); "
                f"got {self.channels}"
            )
        for name in ("workers", "memory"):
            if getattr(self, name) < 0:
                raise ValueError(f"data.{name} must not be negative; got {getattr(self, name)}")
