"""A replica: a process of Ray with its own models and engines."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from eqm.sampling.model import describe
from eqm.serving.engine import Engine, Load
from eqm.serving.models import Models, Served
from eqm.serving.ray.pickles import from_bytes, to_bytes
from eqm.serving.request import ClosedError, Progress


class Replica:
    """What runs in each process of Ray: the models, each with its own engine."""

    def __init__(self, names: Sequence[str], settings: Mapping[str, Any], local: bool) -> None:
        if local:
            _listen_on_loopback()
        self.models = Models(names, **settings)
        self.models.get(self.models.names[0])  # the others when they are first asked for

    async def compute(
        self, name: str, kind: str, job: bytes, preview_every: int
    ) -> AsyncIterator[bytes]:
        """The progress of a request, and at last `Result` or `Failure`, as bytes.

        `kind` is the engine of the model that computes it: "engine" or "detecting"."""
        loop = asyncio.get_running_loop()
        news: asyncio.Queue[Progress | None] = asyncio.Queue()

        def tell(progress: Progress | None) -> None:
            loop.call_soon_threadsafe(news.put_nowait, progress)

        try:
            while True:
                served = await asyncio.to_thread(self.models.get, name)
                engine: Engine = getattr(served, kind)
                device = describe(engine.model).device
                use, args, settings = from_bytes(job, parts_of(served), device=device)
                with suppress(ClosedError):  # it left the memory a moment ago
                    request = engine.submit(
                        use, *args, preview_every=preview_every, listener=tell, **settings
                    )
                    break
        except Exception as error:
            yield to_bytes(Failure(error), {})
            return
        parts = parts_of(served)
        request.add_done_callback(lambda _: tell(None))
        try:
            while (progress := await news.get()) is not None:
                yield to_bytes(progress, parts)
            failure = request.exception()
            end = Result(request.result()) if failure is None else Failure(failure)
            yield to_bytes(end, parts)
        finally:
            request.cancel()  # has no effect but where nobody waits any more

    async def loads(self) -> dict[str, Load]:
        """How busy the models are."""
        return self.models.loads()

    async def process(self) -> int:
        """The number of this process."""
        return os.getpid()


@dataclass(frozen=True)
class Result:
    """What a request returned."""

    value: Any


@dataclass(frozen=True)
class Failure:
    """What a request raised."""

    error: BaseException


def parts_of(served: Served) -> dict[str, object]:
    """What every process has of a model, so that it is never sent."""
    return {
        "model": served.model,
        "encoder": served.encoder,
        "detector": served.detector,
        "network": served.detector and served.detector.field,
        "calibration": served.detector and served.detector.calibration,
    }


def _listen_on_loopback() -> None:
    """Keeps Ray Serve from listening on all addresses, which it does for calls between deployments."""
    from ray.serve._private import replica

    bind = replica.add_port_to_grpc_server
    replica.add_port_to_grpc_server = lambda server, address: bind(
        server, address.replace("[::]", "127.0.0.1")
    )
