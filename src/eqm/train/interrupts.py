"""Ctrl-C and SIGTERM, handled at the end of a step."""

from __future__ import annotations

import math
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

ECHO = 1.0
"""Seconds within which a second signal counts as the same: torchrun repeats the terminal's signal."""


class Interrupted(KeyboardInterrupt):
    """Ctrl-C or SIGTERM ended the run. The message says whether it was saved."""


class Interrupts:
    """Call it to know whether Ctrl-C or SIGTERM came. A second, later signal interrupts at once."""

    def __init__(self) -> None:
        self.immediate = False
        """Whether the first signal interrupts at once, too."""
        self._first = math.inf

    def __call__(self) -> bool:
        return self._first < math.inf

    def receive(self, number: int, frame: FrameType | None) -> None:
        """Returns nothing; notes a signal, or raises Interrupted."""
        now = time.monotonic()
        if self.immediate or now - self._first > ECHO:
            raise Interrupted(
                "interrupted before the step was complete: run the same command again"
            )
        self._first = min(now, self._first)


@contextmanager
def interrupts_deferred() -> Iterator[Interrupts]:
    """Holds Ctrl-C and SIGTERM back; the result tells whether one came.

    Signals can only be caught in the main thread. In other threads nothing changes.
    """
    interrupts = Interrupts()
    if threading.current_thread() is not threading.main_thread():
        yield interrupts
        return
    signals = (signal.SIGINT, signal.SIGTERM)
    previous = {number: signal.signal(number, interrupts.receive) for number in signals}
    try:
        yield interrupts
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
