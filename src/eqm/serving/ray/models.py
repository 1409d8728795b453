"""`Models` whose requests are computed by replicas.

The process that answers HTTP computes nothing. It sends each request to the replica that has the least to do,
and to another one if that replica dies. A request is a function and its settings, seeds among them, so the
second run gives the same samples.
"""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections.abc import Callable, Coroutine, Mapping, Sequence
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import astuple, replace
from typing import Any, TypeVar

from eqm.checks import check_callable
from eqm.serving.engine import Engine, Load
from eqm.serving.models import Models, Served
from eqm.serving.ray.cluster import PER_REPLICA, Count, deploy
from eqm.serving.ray.pickles import from_bytes, to_bytes
from eqm.serving.ray.replica import Failure, Result, parts_of
from eqm.serving.request import ClosedError, DeadlineError, FullError, Progress, Request

LOG = logging.getLogger(__name__)
R = TypeVar("R")

TRIES = 3
"""Replicas that may die while they work on one request."""
NONE = Load(0, 0, 0, 0, 0, 0)


class ReplicatedModels(Models):
    """`Models` whose requests are computed by replicas.

    With the environment variable RAY_ADDRESS they run in that cluster of Ray, otherwise in processes of
    this machine that listen on the loopback address alone. `app` tells the servers of one cluster apart:
    a new one replaces the replicas of an old one of the same name. `settings` are those of `Models`.
    This process loads the models too, on the CPU, to know their shapes and classes.

    Raises ValueError as `Models` does, and if Ray is not installed or its cluster does not answer;
    RuntimeError if the replicas cannot start.
    """

    def __init__(
        self, names: Sequence[str], count: Count, *, app: str = "eqm", **settings: Any
    ) -> None:
        super().__init__(names, **settings | {"device": "cpu"})
        self._replicas = Replicas(names, count, app, settings)

    def close(self, *, drain: bool = True) -> None:
        """As `Models.close`; ends the replicas, too."""
        super().close(drain=drain)
        self._replicas.close(drain=drain)

    def loads(self) -> dict[str, Load]:
        """As `Models.loads`, of all replicas together and at most three seconds old."""
        return {name: self._replicas.load(name) for name in self.names}

    def _load(self, name: str, entry: Any) -> Served:
        served = super()._load(name, entry)
        for engine in served.engines():
            engine.close()
        parts = parts_of(served)
        engine, detecting = (
            _RemoteEngine(self._replicas, name, kind, parts) for kind in ("engine", "detecting")
        )
        return replace(served, engine=engine, detecting=detecting)


class _RemoteEngine(Engine):
    """The engines of all replicas for one model."""

    def __init__(
        self, replicas: Replicas, name: str, kind: str, parts: Mapping[str, object]
    ) -> None:
        self._replicas, self._name, self._kind, self._parts = replicas, name, kind, parts

    def submit(
        self,
        use: Callable[..., R],
        *args: Any,
        preview_every: int = 0,
        deadline: float | None = None,
        listener: Callable[[Progress], None] | None = None,
        **settings: Any,
    ) -> Request[R]:
        check_callable(use=use)
        job = to_bytes((use, args, settings), self._parts)
        request: Request[R] = Request(
            preview_every=preview_every, deadline=deadline, listener=listener
        )
        self._replicas.submit(request, self._name, self._kind, job, self._parts)
        return request

    def load(self) -> Load:
        return NONE  # `ReplicatedModels.loads` tells it

    def close(self, *, drain: bool = True) -> None:
        pass  # the engines end with the replicas


class Replicas:
    """The processes of Ray, and the requests on their way there."""

    def __init__(
        self, names: Sequence[str], count: Count, app: str, settings: Mapping[str, Any]
    ) -> None:
        self._most = settings.get("max_waiting", 1024) + count.most * PER_REPLICA
        self._app, self._closed = app, False
        self._requests: dict[Request[Any], str] = {}
        self._dead: set[str] = set()
        self._loads: dict[str, Load] = {}
        self._handle = deploy(names, count, app, settings)
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(
            target=self._loop.run_forever, name="eqm-replicas", daemon=True
        )
        self._thread.start()
        self._watching = self._begin(self._watch())

    def submit(
        self,
        request: Request[Any],
        name: str,
        kind: str,
        job: bytes,
        parts: Mapping[str, object],
    ) -> None:
        """Has a `job` computed by the engine of this kind of a model, for `request`."""
        if self._closed:
            raise ClosedError("the replicas are closed")
        if len(self._requests) >= self._most:
            raise FullError(
                f"the queue is full, with {len(self._requests):,} requests: ask again later"
            )
        self._requests[request] = name
        request.add_done_callback(lambda _: self._requests.pop(request))
        call = (name, kind, job, request.preview_every)
        following = self._begin(self._follow(request, call, parts))
        request.add_done_callback(lambda _: following.cancel())

    def load(self, name: str) -> Load:
        """How busy the replicas are with a model. Requests that wait in this process count, too."""
        found, given = self._loads.get(name, NONE), list(self._requests.values()).count(name)
        return replace(found, waiting=max(0, given - found.running))

    def close(self, *, drain: bool) -> None:
        """Takes no more requests, and ends the processes: after the requests so far with `drain`, otherwise
        at once, cancelling them."""
        import ray
        from ray import serve

        if self._closed:
            return
        self._closed = True
        while drain and self._requests:
            time.sleep(0.05)
        for request in list(self._requests):
            request.cancel()
        self._watching.cancel()
        serve.delete(self._app)
        ray.shutdown()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()

    def _begin(self, work: Coroutine[Any, Any, None]) -> Future[None]:
        return asyncio.run_coroutine_threadsafe(work, self._loop)

    async def _follow(
        self,
        request: Request[Any],
        call: tuple[str, str, bytes, int],
        parts: Mapping[str, object],
    ) -> None:
        """Has a request computed and gives it the result, whatever replicas die meanwhile."""
        from ray.exceptions import RayActorError

        ended: set[int] = set()  # samples whose end was reported; a second run ends them alike
        try:
            async with asyncio.timeout_at(request.deadline):  # the clocks are the same
                for _ in range(TRIES):
                    answers = self._handle.options(stream=True).compute.remote(*call)
                    try:
                        async for answer in answers:
                            _pass_on(request, from_bytes(answer, parts), ended)
                            if request.done():
                                return
                    except RayActorError as error:
                        self._say_dead(error.actor_id)
                    finally:
                        answers.cancel()
            raise RuntimeError(f"{TRIES} replicas died while they worked on this request")
        except TimeoutError:
            request.fail(DeadlineError("the deadline passed before the result was there"))
        except Exception as error:
            request.fail(error)

    def _say_dead(self, replica: str) -> None:
        if replica not in self._dead:
            self._dead.add(replica)
            LOG.warning("a replica died: its requests run again on another one")

    async def _watch(self) -> None:
        """Asks the replicas every second how busy they are."""
        while True:
            answers = self._handle.broadcast("loads").results_async(
                timeout_s=2, return_exceptions=True
            )
            with suppress(TimeoutError):
                found = [one for one in await answers if isinstance(one, dict)]
                self._loads = {
                    name: Load(*map(sum, zip(*(astuple(one[name]) for one in found), strict=True)))
                    for name in set().union(*found)
                }
            await asyncio.sleep(1)


def _pass_on(request: Request[Any], answer: Progress | Result | Failure, ended: set[int]) -> None:
    match answer:
        case Result(value):
            request.succeed(value)
        case Failure(error):
            request.fail(error)
        case Progress() if answer.index not in ended:
            if answer.finished is not None:
                ended.add(answer.index)
            request.report(answer)
