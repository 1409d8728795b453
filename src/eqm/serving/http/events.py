"""Server-sent events: previews of samples on their way, each sample as it ends, and the end."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from typing import Any

import msgspec
import torch
from starlette.concurrency import run_in_threadpool
from starlette.responses import StreamingResponse

from eqm.serving.http import answers, schemas
from eqm.serving.http.answers import Running
from eqm.serving.http.errors import as_api_error, error_body
from eqm.serving.request import Progress

QUIET = 10.0
"""Seconds without an event after which a comment shows that the server is there."""
Event = tuple[str, Any]
"""A name and its data."""


class News:
    """The newest progress of each sample. It keeps one preview a sample, however slow its reader is."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop, self._lock, self._there = loop, threading.Lock(), asyncio.Event()
        self._latest: dict[int, Progress] = {}
        self._ended: list[Progress] = []

    def __call__(self, progress: Progress) -> None:
        """Takes the progress of a sample, in the thread of an engine."""
        with self._lock:
            first = not (self._latest or self._ended)
            if progress.finished is None:
                self._latest[progress.index] = progress
            else:
                self._latest.pop(progress.index, None)
                self._ended.append(progress)
        if first:
            self._loop.call_soon_threadsafe(self._there.set)

    async def wait(self) -> None:
        """Returns when there is something."""
        await self._there.wait()

    def take(self) -> tuple[list[Progress], list[Progress]]:
        """The samples on their way, and those that ended, since the last call."""
        with self._lock:
            found = list(self._latest.values()), self._ended
            self._latest, self._ended = {}, []
            self._there.clear()
        return found


async def happenings(running: Running, news: News) -> AsyncIterator[Event]:
    """What happens to a request, until its end: the events `progress`, `sample`, and `done` or `error`.

    The request is cancelled if nobody reads on."""
    future = asyncio.wrap_future(running.job)
    sent: set[int] = set()
    try:
        while not future.done():
            if time.monotonic() > running.began + running.seconds + 1:
                raise answers.late(running)
            waiter = asyncio.ensure_future(news.wait())
            try:
                await asyncio.wait(
                    {future, waiter},
                    timeout=min(QUIET, running.seconds),
                    return_when=asyncio.FIRST_COMPLETED,
                )
            finally:
                waiter.cancel()
            going, ended = news.take()
            if not (going or ended) and not future.done():
                yield "", None
            if going:
                yield "progress", await run_in_threadpool(_previews, running, going)
            if ended:
                for each in await run_in_threadpool(_ended, running, ended):
                    sent.add(each.index)
                    yield "sample", each
        _, ended = news.take()  # what came between the last look and the end
        for each in await run_in_threadpool(_ended, running, ended):
            sent.add(each.index)
            yield "sample", each
        solution = answers.finished(future)
        whole = await run_in_threadpool(answers.samples_of, running, solution, sent=sent)
        for each in whole.samples:
            if each.index not in sent:
                yield "sample", each
        bare = [replace(each, b64_json=None, trajectory=None) for each in whole.samples]
        yield "done", replace(whole, samples=bare)
    except Exception as error:  # the status is sent already, so the error is an event
        if (found := as_api_error(error)) is None:
            raise
        yield "error", error_body(found)
    finally:
        future.cancel()


def event_stream(
    events: AsyncIterator[Event], named: Callable[[Event], Event | None] = lambda event: event
) -> StreamingResponse:
    """The answer that sends events; `named` may change one, or leave it out by None."""

    async def lines() -> AsyncIterator[bytes]:
        yield b": eqm\n\n"
        try:
            async for event in events:
                if not event[0]:
                    yield b": working\n\n"
                elif (told := named(event)) is not None:
                    yield (
                        f"event: {told[0]}\ndata: ".encode()
                        + msgspec.json.encode(told[1])
                        + b"\n\n"
                    )
        finally:
            await events.aclose()  # type: ignore[attr-defined]

    return StreamingResponse(
        lines(), media_type="text/event-stream", headers={"X-Accel-Buffering": "no"}
    )


def _previews(running: Running, going: list[Progress]) -> dict[str, list[schemas.Moment]]:
    found = []
    single = len(running.served.shape)
    for progress in going:
        chain = progress.x.ndim > single  # all pictures of a path descend as one sample
        images = answers.decoded(running.served, progress.x if chain else progress.x[None])
        first = progress.index if chain else progress.index + running.work.first
        found += [answers.moment(progress, first + k, image) for k, image in enumerate(images)]
    return {"samples": found}


def _ended(running: Running, ended: list[Progress]) -> list[schemas.Sample]:
    single = len(running.served.shape)
    ended = [each for each in ended if each.finished is not None and each.x.ndim == single]
    if not ended:
        return []
    xs = torch.stack([each.finished.x for each in ended if each.finished is not None])
    images = answers.decoded(running.served, xs)
    return [
        answers.sample(
            running,
            each.index + running.work.first,
            each.finished,
            image,
            answers.number(each.energy) if running.job.preview_every else None,
        )
        for each, image in zip(ended, images, strict=True)
        if each.finished is not None
    ]
