"""Ctrl-C and SIGTERM, held back until a step is whole."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

ECHO = 1.0
"""Seconds within which a further signal is the same one: torchrun passes on what a terminal has sent
to every process already."""


class Interrupted(KeyboardInterrupt):
    """Ctrl-C or SIGTERM came; the run was saved first. The message says where."""


@contextmanager
def interrupts_deferred() -> Iterator[Callable[[], bool]]:
    """A function that tells whether Ctrl-C or SIGTERM came; another, later one interrupts at once.

    Signals can only be caught in the main thread; elsewhere the function is always False and
    nothing changes.
    """
    came: list[float] = []

    def note(number: int, frame: FrameType | None) -> None:
        now = time.monotonic()
        if came and now - came[0] > ECHO:
            raise KeyboardInterrupt
        came.append(now)

    if threading.current_thread() is not threading.main_thread():
        yield lambda: False
        return
    previous = {number: signal.signal(number, note) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield lambda: bool(came)
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
