"""What stands before every endpoint: hosts, tokens, sizes, times, safe headers, and the count of requests."""

from __future__ import annotations

import asyncio
import hmac
import ipaddress
import re
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from urllib.parse import urlsplit

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from eqm.serving.http.errors import AGAIN, ApiError, error_response
from eqm.serving.http.limits import Limits
from eqm.serving.http.metrics import Metrics

HEADERS = {
    "Content-Security-Policy": "default-src 'self'; img-src 'self' data: blob:; connect-src 'self' data: blob:; "
    "object-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
}
GUARDED = ("/v1/", "/studio/", "/metrics", "/openapi.json")
"""Paths that need the token, if there is one. The files of the pages are no secret; a browser cannot send a
token for them, so the studio asks for it."""


@dataclass
class Traffic:
    """What passes the guard."""

    active: int = 0
    """Requests without a whole answer."""
    draining: bool = False
    """Whether new requests are refused, because the server is closing."""


class Guard:
    """The application behind these checks, as ASGI."""

    def __init__(
        self,
        app: ASGIApp,
        *,
        token: str | None,
        limits: Limits,
        metrics: Metrics,
        traffic: Traffic,
    ) -> None:
        self.app, self.limits, self.metrics, self.traffic = app, limits, metrics, traffic
        self._token = None if token is None else token.encode()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        began, status = time.monotonic(), 499  # if the client goes
        started = False

        async def timed(message: Message) -> None:
            nonlocal status, started
            if message["type"] == "http.response.start":
                status, started = message["status"], True
                _add_headers(message, scope["path"])
            await send(message)

        self.traffic.active += 1
        self.metrics.active.inc()
        try:
            self._check(scope)
            if scope["method"] == "HEAD":  # the server leaves the body out
                scope = {**scope, "method": "GET"}
            await self.app(scope, self._bounded(scope, receive), timed)
        except ApiError as error:
            if not started:
                await error_response(error)(scope, receive, timed)
        finally:
            self.traffic.active -= 1
            self.metrics.active.dec()
            endpoint = _endpoint(scope)
            self.metrics.requests.labels(endpoint, str(status)).inc()
            self.metrics.seconds.labels(endpoint).observe(time.monotonic() - began)

    def _check(self, scope: Scope) -> None:
        """Raises ApiError for a request that must not pass."""
        headers, path = Headers(scope=scope), scope["path"]
        if self.traffic.draining:
            raise ApiError(
                503, "the server is closing: ask again later", code="closing", headers=AGAIN
            )
        host = headers.get("host", "")
        if self._token is None and not is_loopback(_name(host)):
            raise ApiError(
                403, "host must be localhost or 127.0.0.1: this server answers only its own machine"
            )
        origin = headers.get("origin", "")  # a page of another site does not know the token
        if self._token is None and origin and urlsplit(origin).netloc.lower() != host.lower():
            raise ApiError(403, "the page of another site must not call this server")
        if self._token is not None and path.startswith(GUARDED):
            kind, _, given = headers.get("authorization", "").partition(" ")
            right = hmac.compare_digest(given.strip().encode(), self._token)
            if kind.lower() != "bearer" or not right:
                raise ApiError(
                    401,
                    "this server needs its token: send the header `Authorization: Bearer TOKEN`",
                    code="invalid_api_key",
                    headers={"WWW-Authenticate": "Bearer"},
                )
        length = headers.get("content-length", "")
        if re.fullmatch(r"\d+", length) and int(length[:20]) > self.limits.body_bytes:
            raise self._too_large()

    def _too_large(self) -> ApiError:
        return ApiError(
            413,
            f"a request has at most {self.limits.body_bytes:,} bytes: send fewer or smaller pictures",
            headers={"Connection": "close"},
        )

    def _bounded(self, scope: Scope, receive: Receive) -> Callable[[], Awaitable[Message]]:
        """`receive` that raises ApiError for a body that is too large or comes too slowly."""
        taken, whole = 0, False
        until = time.monotonic() + self.limits.body_seconds

        async def bounded() -> Message:
            nonlocal taken, whole
            if whole:
                return await receive()  # it waits for the client to go
            try:
                async with asyncio.timeout(max(0.0, until - time.monotonic())):
                    message = await receive()
            except TimeoutError:
                raise ApiError(
                    408,
                    f"the request was not there within {self.limits.body_seconds:g} s: send it at once",
                    headers={"Connection": "close"},
                ) from None
            taken += len(message.get("body", b""))
            whole = not message.get("more_body", False)
            if taken > self.limits.body_bytes:
                raise self._too_large()
            return message

        return bounded


def is_loopback(host: str) -> bool:
    """Whether a host is this machine, by its name or address."""
    if host.lower() == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


def _name(host: str) -> str:
    """A host without its port."""
    return re.sub(r":\d+$", "", host)


def _endpoint(scope: Scope) -> str:
    """The route of a request, such as `/v1/sample`; `other` for the page and for unknown paths."""
    path = getattr(scope.get("route"), "path", "")
    return path if isinstance(path, str) and path.startswith("/") and len(path) > 1 else "other"


def _add_headers(message: Message, path: str) -> None:
    headers = list(message["headers"])
    there = {name.lower() for name, _ in headers}
    cache = "no-store" if path.startswith((*GUARDED, "/health")) else "no-cache"
    for name, value in {**HEADERS, "Cache-Control": cache}.items():
        if name.lower().encode() not in there:
            headers.append((name.lower().encode(), value.encode()))
    message["headers"] = headers
