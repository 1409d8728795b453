"""The engine: one thread owns a model and works for all requests."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, Self, TypeVar

import torch

from eqm.checks import check_callable, check_count, check_field
from eqm.sampling.model import Model, describe
from eqm.serving.conditions import Kind
from eqm.serving.fibers import Fiber, GroupFiber, RequestFiber
from eqm.serving.passes import Passes
from eqm.serving.request import ClosedError, DeadlineError, FullError, Progress, Request
from eqm.serving.slots import Sample, Slots

R = TypeVar("R")
CPU_SLOTS, ACCELERATOR_SLOTS = 8, 64
REQUESTS_PER_SLOT = 4
"""Requests that run at a time, for each slot; those without a sample in the batch come next."""
ROWS_PER_SLOT = 4
"""Most rows of a pass, for each slot: guidance needs two, and other uses need some."""
SWEEP_SECONDS = 0.1
"""So often the deadlines of waiting requests are looked at."""
MOST_RETRY_SECONDS = 60.0


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
    """Slots that hold a sample; it may be up to a quarter more than there are."""
    evaluations: int
    """Evaluations of one sample since the start of the engine."""
    passes: int
    """Passes through the model since the start of the engine."""


class Engine:
    """Runs functions of `eqm.tasks` for many requests in one full batch.

    One thread owns the model. Each request is a function of the model, and runs until it needs a
    gradient. The evaluations that all requests wait for are one pass through the model. Samples that
    descend share `slots`, whatever their labels, seeds, guidance, step sizes and progress: when one
    ends, the next one takes its slot. The result of a request is that of the function alone, up to
    rounding.

    Each request has a sample in the batch at once; the other slots go to the requests with the least
    work left. At most four requests for each slot run at a time, and `max_waiting` more may wait. By
    default there are 8 slots on a CPU, where more samples in a pass gain nothing, and 64 on an
    accelerator.

    Raises ValueError for what is no model and for counts below 1.

    >>> from eqm.tasks import generate
    >>> with Engine(lambda x, labels: x - 1) as engine:
    ...     request = engine.submit(generate, shape=(2,), count=3)
    ...     request.result().x.shape
    torch.Size([3, 2])
    """

    def __init__(self, model: Model, *, slots: int | None = None, max_waiting: int = 1024) -> None:
        check_field(model)
        if slots is None:
            slots = CPU_SLOTS if describe(model).device.type == "cpu" else ACCELERATOR_SLOTS
        check_count(slots=slots, max_waiting=max_waiting)
        self.model, self.max_waiting = model, max_waiting
        self._slots = Slots(slots)
        self._passes = Passes(model, rows=ROWS_PER_SLOT * slots)
        self._groups: dict[Kind, GroupFiber] = {}
        self._running: list[RequestFiber] = []
        self._waiting: deque[tuple[Request[Any], Callable[[Model], Any]]] = deque()
        self._changed = threading.Condition()
        self._closed = False
        self._ends: deque[float] = deque(maxlen=64)
        self._swept = 0.0
        self._thread = threading.Thread(target=self._work, name="eqm-engine", daemon=True)
        self._thread.start()

    def submit(
        self,
        use: Callable[..., R],
        *args: Any,
        preview_every: int = 0,
        deadline: float | None = None,
        listener: Callable[[Progress], None] | None = None,
        **settings: Any,
    ) -> Request[R]:
        """The request to compute `use(model, *args, **settings)`.

        `use` is a function of `eqm.tasks` or any function of a model; it must call the model in the
        thread in which it runs. `preview_every` is the number of steps between two reports of
        `Request.progress`; 0 reports only finished samples. `deadline` is in seconds from now. `listener`
        is that of `Request.listen`, and misses nothing.

        Raises FullError if `max_waiting` requests wait, ClosedError after `close`, and ValueError for a
        `use` that cannot be called, a negative `preview_every` and a `deadline` that is not positive.
        """
        check_callable(use=use)
        request: Request[R] = Request(
            preview_every=preview_every, deadline=deadline, listener=listener
        )
        with self._changed:
            if self._closed:
                raise ClosedError("the engine is closed: it takes no more requests")
            if len(self._waiting) >= self.max_waiting:
                self._sweep()
            if len(self._waiting) >= self.max_waiting:
                raise FullError(
                    f"the queue is full, with {len(self._waiting):,} requests: ask again later",
                    self._retry_after(),
                )
            self._waiting.append((request, partial(_called, use, args, settings)))
            self._changed.notify()
        return request

    def load(self) -> Load:
        """How busy the engine is now."""
        return Load(
            len(self._waiting),
            len(self._running),
            self._slots.count,
            sum(len(fiber.group) for fiber in list(self._groups.values())),
            self._passes.evaluations,
            self._passes.passes,
        )

    def close(self, *, drain: bool = True) -> None:
        """Takes no more requests, and ends the thread: after the requests so far with `drain`, otherwise
        at once, cancelling them."""
        with self._changed:
            self._closed = True
            if not drain:
                for request in [
                    *(r for r, _ in self._waiting),
                    *(f.request for f in self._running),
                ]:
                    request.cancel()
            self._changed.notify()
        self._thread.join()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _work(self) -> None:
        # Fibers take turns within one thread, so none of them may find gradients on or off as another
        # one left it.
        torch.set_grad_enabled(False)
        while self._admit():
            self._turn()
        for fiber in self._groups.values():
            fiber.stop()

    def _admit(self) -> bool:
        """Begins waiting requests; waits for one if there is nothing to do. False if all is done."""
        begun: list[tuple[Request[Any], Callable[[Model], Any]]] = []
        with self._changed:
            while not self._running and not self._waiting:
                if self._closed:
                    return False
                self._changed.wait()
            if time.monotonic() > self._swept + SWEEP_SECONDS:
                self._sweep()
            most = REQUESTS_PER_SLOT * self._slots.count
            while self._waiting and len(self._running) + len(begun) < most:
                begun.append(self._waiting.popleft())
        for request, use in begun:
            if not request.done():
                fiber = RequestFiber(request, use, self.model, self._slots)
                self._running.append(fiber)
                fiber.go()
        return True

    def _turn(self) -> None:
        """One pass through the model, and all that it makes possible."""
        self._end_requests()
        filled = sum(len(fiber.group) for fiber in self._groups.values())
        self._slots.fill(filled, self._enter)
        for kind, group in list(self._groups.items()):
            if group.ask is None and len(group.group):
                self._step(kind)
        fibers: list[Fiber] = [*self._groups.values(), *self._running]
        asking = [fiber for fiber in fibers if fiber.ask is not None]
        if asking:
            self._passes.run([fiber.ask for fiber in asking if fiber.ask is not None])
        for kind, group in list(self._groups.items()):
            if group.ask is not None and not group.ask.left:
                self._step(kind)
        for fiber in self._running:
            waits = fiber.waits if fiber.ask is None else fiber.ask.left > 0
            if not waits and not fiber.request.done():
                fiber.go()

    def _enter(self, sample: Sample) -> None:
        if sample.kind not in self._groups:
            self._groups[sample.kind] = GroupFiber(sample.kind)
        self._groups[sample.kind].group.entering.append(sample)

    def _step(self, kind: Kind) -> None:
        try:
            self._groups[kind].go()
        except Exception as error:  # the requests raise it
            self._groups.pop(kind).group.fail(error)

    def _end_requests(self) -> None:
        """Drops requests that ended or are too late, and groups without samples."""
        now = time.monotonic()
        for fiber in self._running:
            if now > fiber.request.deadline:
                fiber.request.fail(DeadlineError("the deadline passed before the result was there"))
            if fiber.request.done():
                fiber.stop()
                self._ends.append(now)
        self._running = [fiber for fiber in self._running if not fiber.request.done()]
        for kind, group in list(self._groups.items()):
            if not len(group.group) and group.ask is None:
                group.stop()
                del self._groups[kind]

    def _sweep(self) -> None:
        """Drops waiting requests that were cancelled or are too late."""
        self._swept = now = time.monotonic()
        for request, _ in self._waiting:
            if now > request.deadline:
                request.fail(DeadlineError("the deadline passed before the request began"))
        self._waiting = deque(pair for pair in self._waiting if not pair[0].done())

    def _retry_after(self) -> float:
        """The seconds in which half of the waiting requests will have begun, as the last ones ended."""
        if len(self._ends) < 2 or self._ends[-1] == self._ends[0]:
            return 1.0
        rate = (len(self._ends) - 1) / (self._ends[-1] - self._ends[0])
        return min(max(1.0, len(self._waiting) / 2 / rate), MOST_RETRY_SECONDS)


def _called(use: Callable[..., R], args: Any, settings: Any, model: Model) -> R:
    return use(model, *args, **settings)
