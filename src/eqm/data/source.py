"""What training asks of a data set."""

from __future__ import annotations

from typing import Protocol

from torch import Tensor

from eqm.randomness import SampleRandom


class MissingDataError(ValueError):
    """Nothing is where the data should be, or what opens them is not installed."""


class Source(Protocol):
    """N samples of one shape, each found by its index, with a label each or none.

    It may also have `class_names`, a tuple; `in_memory`, True where a batch needs no waiting for
    files, so that none is loaded ahead on a CPU; and `part`, if it makes parts of itself.
    """

    @property
    def name(self) -> str:
        """What to call it."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Of one sample: channels, height and width for images and latents."""

    @property
    def labels(self) -> Tensor | None:
        """The classes, (N,) int64 in 0..num_classes-1, or None."""

    @property
    def num_classes(self) -> int:
        """How many there are; 0 without labels."""

    @property
    def fingerprint(self) -> str:
        """Hexadecimal digest: the same data give the same."""

    def __len__(self) -> int:
        """N."""

    def batch(self, rows: Tensor, draws: SampleRandom) -> Tensor:
        """The samples at `rows` (B,) as a field learns them, (B, *shape), float32.

        Chance, as in flips and in latents drawn from their posterior, comes from `draws`, which has
        one entry a row.
        """
