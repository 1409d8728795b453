"""How much memory is free, and the refusal of what cannot fit; imports no torch."""

from __future__ import annotations

import os
import sys
from pathlib import Path


def free_memory() -> int:
    """The bytes of memory that this process can still take; the whole memory where nobody tells."""
    free = []
    try:
        free.append(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"))
        lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
        free += [int(line.split()[1]) << 10 for line in lines if line.startswith("MemAvailable")]
        group = Path("/sys/fs/cgroup")  # the limit of a container
        limit, used = ((group / f"memory.{name}").read_text() for name in ("max", "current"))
        free.append(int(limit) - int(used))
    except (AttributeError, OSError, ValueError):  # not on every system, or no limit
        pass
    return max(min(free, default=sys.maxsize), 0)


def check_memory(what: str, needed: int, advice: str) -> None:
    """Raises ValueError if `what` needs more bytes than are free.

    >>> check_memory("a sheet of 10^12 pictures", 10**15, "write fewer")
    Traceback (most recent call last):
    ValueError: a sheet of 10^12 pictures needs 909.4 TiB of memory; ... is free: write fewer
    """
    if needed > (free := free_memory()):
        raise ValueError(
            f"{what} needs {_bytes(needed)} of memory; {_bytes(free)} is free: {advice}"
        )


def _bytes(number: int) -> str:
    """A number of bytes for people."""
    power = min(max(number.bit_length() - 1, 0) // 10, 8)
    unit = ("bytes", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB", "ZiB", "YiB")[power]
    # whole numbers, as a float cannot hold everything that a user types
    tenths = (number * 10) >> (10 * power)
    return f"{tenths // 10:,}.{tenths % 10} {unit}" if tenths < 10**9 else f"more than 10^8 {unit}"
