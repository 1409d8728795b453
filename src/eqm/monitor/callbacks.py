"""What can be watched while a run trains, and who is told: watchers and trackers."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import NamedTuple, Protocol

from eqm.train.loop import Progress


class Metrics(NamedTuple):
    """What a callback measured."""

    numbers: Mapping[str, float] = {}
    """By name, `val_loss/0.05` for one of a row."""
    pictures: Mapping[str, Path] = {}
    """PNG files by name."""


Callback = Callable[[Progress], Metrics]
"""Looks at a run between two steps. It leaves the run, and the global random state, as they are."""


class Tracker(Protocol):
    """Somewhere that the numbers of a run go. What it raises is said once and ends nothing."""

    def start(self, images: int) -> None:
        """The run goes on from here: what was told of later positions is void."""

    def log(self, numbers: Mapping[str, float], images: int) -> None:
        """Takes the numbers of one position; positions rise until the next start."""

    def picture(self, name: str, path: Path, images: int) -> None:
        """Takes a PNG file; called after `log` for the same position."""

    def finish(self) -> None:
        """The run ends, or is left; called once, also when it never started."""
