"""From a request to its answer: submit, wait, and make pictures of what an engine found."""

from __future__ import annotations

import asyncio
import math
import time
import uuid
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, TypeVar

import torch
from starlette.concurrency import run_in_threadpool
from starlette.requests import ClientDisconnect, Request
from torch import Tensor

from eqm.descent import FinishedSample, Solution
from eqm.sampling.labels import class_names
from eqm.sampling.model import describe
from eqm.schema import convert, parse_json
from eqm.serving import request as engine
from eqm.serving.http import schemas
from eqm.serving.http.limits import Limits
from eqm.serving.http.pictures import png
from eqm.serving.models import Models, Served
from eqm.serving.request import ClosedError, DeadlineError, Progress

T = TypeVar("T")
A = TypeVar("A")
SHORT = 1 << 14
"""Bytes of a body that is read faster than another thread begins."""


@dataclass(frozen=True, eq=False)
class Work:
    """What a request asks of an engine: `use(model, *args, **settings)`, and what is known of its samples."""

    use: Callable[..., Any]
    args: tuple[Any, ...] = ()
    settings: dict[str, Any] = field(default_factory=dict)
    seeds: Sequence[int | None] = ()
    """The seed of each sample."""
    labels: Sequence[str | None] = ()
    """The class of each sample."""
    max_steps: int = 1
    notes: Sequence[str] = ()
    first: int = 0
    """The number of the first sample that descends."""
    trajectory: list[list[Progress]] | None = None
    """The progress of each sample so far, where it was asked for."""
    moments: int = 10
    """Previews along a whole path."""
    more: Callable[[Tensor], dict[str, Any]] = lambda images: {}
    """Further fields of the answer, from the images of all samples."""
    detecting: bool = False
    """Whether the engine of the detector does it."""


@dataclass(frozen=True, eq=False)
class Running:
    """A request that an engine works on."""

    served: Served
    work: Work
    job: engine.Request[Any]
    began: float
    """Time of the request, by the monotonic clock."""
    seconds: float
    """Until its deadline, from then."""
    id: str = field(default_factory=lambda: f"eqm-{uuid.uuid4().hex}")
    created: int = field(default_factory=lambda: int(time.time()))


async def parse(request: Request, kind: type[A]) -> A:
    """The request in a body of JSON. Raises ValueError, one sentence, for anything else."""

    def parsed(body: bytes) -> A:
        found: A = convert(parse_json(body, dict[str, Any], "the body"), kind)
        return found

    body = await request.body()
    return parsed(body) if len(body) < SHORT else await run_in_threadpool(parsed, body)


def begin(
    models: Models,
    limits: Limits,
    name: str | None,
    plan: Callable[[Served], Work],
    *,
    deadline: float | None,
    preview_every: int | None = 0,
    listener: Callable[[Progress], None] | None = None,
) -> Running:
    """The request that `plan` makes for a model, submitted. Call it outside of the event loop.

    `preview_every` None is a tenth of the path. Raises ValueError as `plan` does, and what `Models.get`
    and `Engine.submit` raise.
    """
    began = time.monotonic()
    seconds = limits.seconds if deadline is None else min(deadline, limits.seconds)
    while True:
        served = models.get(name)
        work = plan(served)
        every = preview_every
        if every is None or work.trajectory is not None:
            every = max(1, math.ceil(work.max_steps / work.moments))
        target = served.detecting if work.detecting else served.engine
        try:
            job = target.submit(
                work.use,
                *work.args,
                preview_every=every,
                deadline=seconds,
                listener=partial(_told, work, listener),
                **work.settings,
            )
        except ClosedError:
            if models.closed:
                raise
            continue  # it left the memory a moment ago
        return Running(served, work, job, began, seconds)


def _told(work: Work, listener: Callable[[Progress], None] | None, progress: Progress) -> None:
    """Keeps and tells the progress of a sample, in the thread of the engine."""
    if work.trajectory is not None and progress.index < len(work.trajectory):
        work.trajectory[progress.index].append(progress)
    if listener is not None:
        listener(progress)


async def result_of(request: Request, running: Running) -> Any:
    """What the engine computed. It is cancelled if the client goes.

    Raises DeadlineError, ClosedError, ClientDisconnect, and what the work raises."""
    future = asyncio.wrap_future(running.job)
    gone = asyncio.ensure_future(_gone(request))
    left = running.began + running.seconds + 1 - time.monotonic()  # the engine may say it better
    try:
        await asyncio.wait({future, gone}, timeout=left, return_when=asyncio.FIRST_COMPLETED)
        if future.done():
            return finished(future)
        if gone.done():
            raise ClientDisconnect
        raise late(running)
    finally:
        gone.cancel()
        future.cancel()


def finished(future: asyncio.Future[T]) -> T:
    """The result of a future that is done. Raises ClosedError if it was cancelled."""
    if future.cancelled():
        raise ClosedError("the engine was closed")
    return future.result()


def late(running: Running) -> DeadlineError:
    """The error of a request whose deadline passed."""
    return DeadlineError(
        f"the answer was not there within {running.seconds:g} s: ask for less, or give a later deadline"
    )


async def answer(request: Request, running: Running) -> schemas.Samples:
    """The whole answer to a request for samples."""
    solution = await result_of(request, running)
    return await run_in_threadpool(samples_of, running, solution)


def samples_of(
    running: Running, solution: Solution, *, sent: Collection[int] = ()
) -> schemas.Samples:
    """The answer with all samples of a solution, and the pictures of those that were not `sent` already."""
    images = decoded(running.served, solution.x)
    columns = (solution.steps.tolist(), solution.nfe.tolist(), solution.gradient_norm.tolist())
    rows = zip(solution.x, *columns, solution.outcome, strict=True)
    ends = [FinishedSample(k, *row) for k, row in enumerate(rows)]
    return schemas.Samples(
        id=running.id,
        created=running.created,
        model=running.served.name,
        samples=[
            sample(running, k, end, None if k in sent else images[k]) for k, end in enumerate(ends)
        ],
        seconds=round(time.monotonic() - running.began, 4),
        notes=list(running.work.notes),
        **running.work.more(images),
    )


def sample(
    running: Running,
    index: int,
    end: FinishedSample,
    image: Tensor | None,
    energy: float | None = None,
) -> schemas.Sample:
    """A sample that ended, with its picture if `image` is given."""
    work = running.work
    picture = None if image is None else png(image)
    moments = None
    if work.trajectory is not None and image is not None:
        way = work.trajectory[index]
        if way[-1].steps != end.steps:
            way.append(
                Progress(index, end.x, end.steps, work.max_steps, end.gradient_norm, math.nan)
            )
        images = decoded(running.served, torch.stack([each.x.cpu() for each in way]))
        moments = [moment(each, index, one) for each, one in zip(way, images, strict=True)]
    return schemas.Sample(
        index=index,
        seed=work.seeds[index],
        label=work.labels[index],
        b64_json=picture,
        steps=end.steps,
        nfe=end.nfe,
        gradient_norm=number(end.gradient_norm),
        outcome=end.outcome.value,
        sentence=end.outcome.sentence,
        energy=energy,
        trajectory=moments,
    )


def moment(progress: Progress, index: int, image: Tensor) -> schemas.Moment:
    """A sample on its way, with its picture."""
    return schemas.Moment(
        index=index,
        steps=progress.steps,
        max_steps=progress.max_steps,
        gradient_norm=number(progress.gradient_norm),
        energy=number(progress.energy),
        b64_json=png(image),
    )


def decoded(served: Served, x: Tensor) -> Tensor:
    """The images (B, C, H, W) of samples x (B, ...), on the CPU."""
    if not len(x):
        return x
    with torch.no_grad():
        return served.encoder.decode(x.to(describe(served.model).device)).float().cpu()


def number(value: float) -> float | None:
    """The value, or None if it is not finite."""
    return value if math.isfinite(value) else None


def label_names(
    served: Served, labels: Tensor | None, count: int, given: schemas.Labels = None
) -> list[str | None]:
    """The names of labels (B,), or the sentences that were `given` for tokens (B, L); none for each of
    `count` samples without."""
    if labels is None:
        return [None] * count
    if labels.ndim == 2:
        sentences = [str(one) for one in (given if isinstance(given, tuple) else (given,))]
        return [*(sentences * count if len(sentences) == 1 else sentences)]
    names, null = class_names(served.model), describe(served.model).num_classes
    return [
        "none" if label == null else names[label] if label < len(names) else str(label)
        for label in labels.tolist()
    ]


async def _gone(request: Request) -> None:
    """Returns when the client has closed the connection."""
    while (await request.receive())["type"] != "http.disconnect":
        pass
