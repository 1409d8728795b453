"""The process that serves: its socket, its drain at the end, and its patience with connections."""

from __future__ import annotations

import asyncio
import errno
import math
import os
import signal
import socket
import threading
import time
from collections.abc import Callable
from types import FrameType
from typing import Any

import uvicorn
from fastapi import FastAPI
from starlette.concurrency import run_in_threadpool
from uvicorn.protocols.http.h11_impl import H11Protocol

from eqm.serving.http.guard import Traffic

IDLE_SECONDS = 20.0
"""A connection without a whole request, or whose client takes nothing, ends after once or twice this time."""
CUT_SECONDS = 2.0
"""Time for the answers of requests that were cancelled at the end."""
CONNECTIONS = 900
"""More connections at once are answered with 503, as a process has few file descriptors."""


def listen(host: str, port: int) -> socket.socket:
    """A socket that listens at this address; port 0 takes a free one.

    Raises ValueError for a port in use and for an address that this machine does not have."""
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        found = socket.socket(family, kind, protocol)
        try:
            if os.name == "posix":  # a port of a server that ended a moment ago is free
                found.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            found.bind(address)
            found.listen(2048)
        except BaseException:
            found.close()
            raise
    except (OSError, OverflowError, UnicodeError) as error:
        number = getattr(error, "errno", None)
        if number == errno.EADDRINUSE:
            raise ValueError(
                f"port {port} of {host} is in use: take another one, such as --port {port + 1}, or 0 for any"
            ) from None
        if number == errno.EACCES:
            raise ValueError(f"port {port} needs more rights: take one above 1023") from None
        raise ValueError(f"cannot listen at {host}, port {port}: {error}") from None
    return found


def address_of(listener: socket.socket) -> str:
    """The address of a listening socket for a browser on this machine."""
    host, port = listener.getsockname()[:2]
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)
    return f"http://{f'[{host}]' if ':' in host else host}:{port}"


def run(
    app: FastAPI,
    listener: socket.socket,
    *,
    drain_seconds: float = 30.0,
    ready: Callable[[], None] = lambda: None,
) -> bool:
    """Serves `app` until SIGTERM or Ctrl-C; whether all requests had their whole answer.

    The first signal drains: requests that run have `drain_seconds` to end, and new ones are answered with
    503. After that time, or after a second signal, they are cancelled. `ready` is called when requests are
    answered.
    """
    config = uvicorn.Config(
        app,
        http=_Protocol,
        loop="asyncio",
        ws="none",
        lifespan="off",
        log_level="error",
        access_log=False,
        server_header=False,
        proxy_headers=False,
        limit_concurrency=CONNECTIONS,
        timeout_keep_alive=15,
        timeout_graceful_shutdown=1,
    )
    server = _Server(app, config, drain_seconds, ready)
    server.run([listener])
    return server.drained


class _Server(uvicorn.Server):
    """Uvicorn's server, which goes on answering while it drains."""

    def __init__(
        self, app: FastAPI, config: uvicorn.Config, drain_seconds: float, ready: Callable[[], None]
    ) -> None:
        super().__init__(config)
        self._app, self._drain_seconds, self._ready = app, drain_seconds, ready
        self._traffic: Traffic = app.state.traffic
        self._until = math.inf
        self.drained = True

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self._ready()

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        again = self._traffic.draining
        self._traffic.draining = True
        self._until = time.monotonic() + (0 if again else self._drain_seconds)

    async def on_tick(self, counter: int) -> bool:
        if self._traffic.draining:
            if self._traffic.active and self.drained and time.monotonic() > self._until:
                self.drained = False
                await run_in_threadpool(self._app.state.models.close, drain=False)
                self._until += CUT_SECONDS  # for the answers that say so
            late = not self.drained and time.monotonic() > self._until
            self.should_exit = late or not self._traffic.active
        return await super().on_tick(counter)

    def capture_signals(self) -> Any:
        """The handlers of signals while it serves; unlike uvicorn's, they do not raise the signals again."""
        return _Signals(self.handle_exit)


class _Signals:
    """A block in which `handler` gets SIGTERM and Ctrl-C."""

    def __init__(self, handler: Callable[[int, FrameType | None], None]) -> None:
        self._handler = handler
        self._before: dict[int, Any] = {}

    def __enter__(self) -> None:
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                self._before[number] = signal.signal(number, self._handler)

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)


class _Protocol(H11Protocol):
    """A connection that ends where no request comes, or where nobody takes the answer."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._watch()

    def connection_lost(self, exc: Exception | None) -> None:
        self._watcher.cancel()
        super().connection_lost(exc)

    def _watch(self) -> None:
        """Looks again later whether something has happened since now."""
        self._before = self._state()
        self._watcher = self.loop.call_later(IDLE_SECONDS, self._look)

    def _state(self) -> tuple[int, bool, object]:
        """How many bytes wait for the client, whether a request is worked on, and the last request."""
        working = self.cycle is not None and not self.cycle.response_complete
        return self.transport.get_write_buffer_size(), working, self.cycle

    def _look(self) -> None:
        (unsent, working, last), (before, worked, earlier) = self._state(), self._before
        stuck = unsent >= before > 0
        idle = not (unsent or working or worked) and last is earlier
        if stuck or idle:
            self.transport.abort()
        else:
            self._watch()
