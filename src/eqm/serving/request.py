"""What a request is, from the side of who asks: a future that reports progress."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from dataclasses import dataclass
from queue import SimpleQueue
from typing import TypeVar

from torch import Tensor

from eqm.checks import check_count, check_positive
from eqm.descent import FinishedSample

R = TypeVar("R")


class FullError(Exception):
    """The queue of an engine is full; `retry_after` says in how many seconds to ask again."""

    def __init__(self, message: str, retry_after: float = 1.0) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class DeadlineError(TimeoutError):
    """The deadline of a request passed before its result was there."""


class ClosedError(RuntimeError):
    """The engine takes no more requests."""


@dataclass(frozen=True)
class Progress:
    """A sample of a request on its way, or at its end."""

    index: int
    """Its index in the request."""
    x: Tensor
    """The sample now, with the shape of one sample."""
    steps: int
    """Its number of steps so far."""
    max_steps: int
    """It makes no more steps than these."""
    gradient_norm: float
    """The norm of its last gradient."""
    energy: float
    """The change of the energy since its start: the sum of <gradient, move> over its steps."""
    finished: FinishedSample | None = None
    """How it ended, at its end."""


class Request(Future[R]):
    """The result of a use that an engine computes: a `concurrent.futures.Future`.

    `result(timeout)` waits for what the function returned and raises what it raised, DeadlineError if
    the deadline passed, and CancelledError after `cancel`, which works also while it is computed.
    `asyncio.wrap_future` makes it awaitable. `deadline` is in seconds from now.

    Raises ValueError for a negative `preview_every` and a `deadline` that is not positive.
    """

    def __init__(
        self,
        *,
        preview_every: int = 0,
        deadline: float | None = None,
        listener: Callable[[Progress], None] | None = None,
    ) -> None:
        super().__init__()
        if preview_every != 0:
            check_count("step, or 0 for no previews", preview_every=preview_every)
        if deadline is not None:
            check_positive(deadline=deadline)
        self.preview_every = preview_every
        """Steps between two reports of a sample; 0 reports only its end."""
        self.deadline = math.inf if deadline is None else time.monotonic() + deadline
        """When it must be complete, on the clock of `time.monotonic`."""
        self._listeners = [] if listener is None else [listener]

    def listen(self, listener: Callable[[Progress], None]) -> None:
        """Calls `listener` with the progress of each sample, in the thread of the engine: it must be
        quick. An error in it ends the request."""
        self._listeners.append(listener)

    def progress(self) -> Iterator[Progress]:
        """The progress of the samples from now on, until the request ends."""
        found: SimpleQueue[Progress | None] = SimpleQueue()
        self.listen(found.put)
        self.add_done_callback(lambda _: found.put(None))
        return iter(found.get, None)

    def report(self, progress: Progress) -> None:
        """Tells the listeners."""
        try:
            for listener in self._listeners:
                listener(progress)
        except Exception as error:
            self.fail(error)

    def succeed(self, result: R) -> None:
        """Ends it with its result, unless it has ended."""
        # Until here it is pending, so that `cancel` works while it is computed.
        if not self.done() and self.set_running_or_notify_cancel():
            self.set_result(result)

    def fail(self, error: BaseException) -> None:
        """Ends it with an error, unless it has ended."""
        if not self.done() and self.set_running_or_notify_cancel():
            self.set_exception(error)
