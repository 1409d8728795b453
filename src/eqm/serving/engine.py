"""The engine: one thread owns a model and works for all requests."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass
from queue import SimpleQueue
from typing import Any, Self, TypeVar

from eqm.sampling.model import Model
from eqm.serving.request import ClosedError, FullError, Request

R = TypeVar("R")


@dataclass(frozen=True)
class Load:
    """How busy an engine is."""

    waiting: int
    """Requests that have not begun."""
    running: int
    """Requests that have begun."""
    slots: int
    """Size of the batch."""
    filled: int
    """Slots that hold a sample."""
    evaluations: int
    """Evaluations of one sample since the start of the engine."""
    passes: int
    """Passes through the model since the start of the engine."""


class Engine:
    """Runs functions of `eqm.tasks` for many requests in one full batch.

    >>> from eqm.tasks import generate
    >>> with Engine(lambda x, labels: x - 1) as engine:
    ...     request = engine.submit(generate, shape=(2,), count=3)
    ...     request.result().x.shape
    torch.Size([3, 2])
    """

    def __init__(self, model: Model, *, slots: int = 64, max_waiting: int = 1024) -> None:
        self.model, self.slots, self.max_waiting = model, slots, max_waiting
        self._queue: SimpleQueue[Any] = SimpleQueue()
        self._waiting = 0
        self._closed = False
        self._thread = threading.Thread(target=self._work, name="eqm-engine", daemon=True)
        self._thread.start()

    def submit(
        self,
        use: Callable[..., R],
        *args: Any,
        preview_every: int = 0,
        deadline: float | None = None,
        **settings: Any,
    ) -> Request[R]:
        """The request to compute `use(model, *args, **settings)`.

        `use` is a function of `eqm.tasks` or any function of a model. `preview_every` is the number of
        steps between two reports of `Request.progress`; 0 reports only finished samples. `deadline` is in
        seconds from now.

        Raises FullError if `max_waiting` requests wait, and ClosedError after `close`.
        """
        if self._closed:
            raise ClosedError("the engine is closed")
        if self._waiting >= self.max_waiting:
            raise FullError(f"{self._waiting} requests wait: ask again later", 1.0)
        request: Request[R] = Request()
        self._waiting += 1
        self._queue.put((request, use, args, settings))
        return request

    def load(self) -> Load:
        """How busy the engine is now."""
        return Load(self._waiting, 0, self.slots, 0, 0, 0)

    def close(self, *, drain: bool = True) -> None:
        """Takes no more requests, and ends the thread: after the requests so far with `drain`, otherwise
        at once, cancelling them."""
        self._closed = True
        self._queue.put(None)
        self._thread.join()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _work(self) -> None:
        while (given := self._queue.get()) is not None:
            request, use, args, settings = given
            self._waiting -= 1
            if not request.set_running_or_notify_cancel():
                continue
            try:
                request.set_result(use(self.model, *args, **settings))
            except Exception as error:
                request.set_exception(error)
