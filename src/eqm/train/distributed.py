"""Several processes that train as one."""

from __future__ import annotations

from torch import distributed


def is_main() -> bool:
    """Whether this process is the one that writes: the first of all, or the only one."""
    return not _together() or distributed.get_rank() == 0


def world_size() -> int:
    """The number of processes."""
    return distributed.get_world_size() if _together() else 1


def _together() -> bool:
    return distributed.is_available() and distributed.is_initialized()
