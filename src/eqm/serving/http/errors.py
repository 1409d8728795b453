"""Errors as answers: one sentence in OpenAI's form, with the status that fits."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import msgspec
import torch
from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Match, Mount
from starlette.types import Scope

from eqm.serving.models import UnknownModelError
from eqm.serving.request import ClosedError, DeadlineError, FullError

KINDS = {
    400: "invalid_request_error",
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    405: "invalid_request_error",
    408: "timeout_error",
    413: "invalid_request_error",
    429: "rate_limit_error",
    500: "server_error",
    503: "unavailable_error",
    504: "timeout_error",
}
"""The `type` of the error of each status."""


class ApiError(Exception):
    """A request that is refused with a status and a sentence."""

    def __init__(
        self,
        status: int,
        message: str,
        *,
        param: str | None = None,
        code: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.status, self.param, self.code, self.headers = status, param, code, headers


class JSON(Response):
    """An answer in JSON. A number that is not finite becomes null."""

    media_type = "application/json"

    def render(self, content: Any) -> bytes:
        return content if isinstance(content, bytes) else msgspec.json.encode(content)


def error_body(error: ApiError) -> dict[str, Any]:
    """The error in OpenAI's form."""
    return {
        "error": {
            "message": str(error),
            "type": KINDS.get(error.status, "invalid_request_error"),
            "param": error.param,
            "code": error.code,
        }
    }


def error_response(error: ApiError) -> JSON:
    """The answer that says an error."""
    return JSON(error_body(error), error.status, dict(error.headers or {}))


def as_api_error(error: Exception) -> ApiError | None:
    """The refusal that an error of eqm means; None for an error that nobody foresaw."""
    match error:
        case ApiError():
            return error
        case FullError():
            wait = max(1, round(error.retry_after + 0.5))
            return ApiError(429, str(error), code="full", headers={"Retry-After": str(wait)})
        case DeadlineError():
            advice = "" if ":" in str(error) else ": ask for less, or give a later deadline"
            return ApiError(504, f"{error}{advice}", param="deadline", code="deadline")
        case ClosedError():
            return ApiError(
                503, "the server is closing: ask again later", code="closing", headers=AGAIN
            )
        case UnknownModelError():
            return ApiError(404, str(error), param="model", code="model_not_found")
        case ValueError():
            return ApiError(400, " ".join(str(error).split()), param=_param(str(error)))
        case MemoryError() | torch.OutOfMemoryError():
            return ApiError(429, "there is too little memory now: ask for less", headers=AGAIN)
    return None


AGAIN = {"Retry-After": "5", "Connection": "close"}
_UNFORESEEN = ApiError(500, "the server failed: its log says why", code="failed")


def install(app: FastAPI) -> None:
    """Returns nothing; makes the app answer every error in OpenAI's form."""

    async def foreseen(request: Request, error: Exception) -> Response:
        found = as_api_error(error)
        return error_response(_UNFORESEEN if found is None else found)

    async def of_framework(request: Request, error: Exception) -> Response:
        assert isinstance(error, HTTPException)
        path, allowed = request.url.path[:100], _methods(app, request.scope)
        if request.method in allowed or error.status_code not in (404, 405):  # an endpoint said it
            unread = isinstance(error.__cause__, ValueError | RecursionError)  # it is no JSON
            said = "the body must be JSON" if unread else str(error.detail)
            return error_response(ApiError(error.status_code, said, headers=error.headers))
        if allowed:  # the page takes all requests that no endpoint takes
            sentence = f"{request.method} is not for {path}: /docs says what is"
            return error_response(ApiError(405, sentence, headers={"Allow": ", ".join(allowed)}))
        return error_response(ApiError(404, f"there is no {path}: /docs lists what there is"))

    async def of_validation(request: Request, error: Exception) -> Response:
        assert isinstance(error, RequestValidationError)
        first = error.errors()[0]
        name = ".".join(str(part) for part in first["loc"][1:]) or "the request"
        said = str(first["msg"])
        if first["type"] == "json_invalid":
            return error_response(ApiError(400, "the body must be JSON"))
        if first["loc"] == ("body",):
            return error_response(ApiError(400, "the body must be a JSON object"))
        if first["type"] == "missing":
            message = f"{name} is missing"
        elif said.startswith("Input should "):
            message = f"{name} must {said.removeprefix('Input should ')}"
        else:
            message = f"{name} is wrong: {said[:1].lower()}{said[1:]}"
        return error_response(ApiError(400, message, param=name))

    async def gone(request: Request, error: Exception) -> Response:
        return Response(status_code=499)  # nobody reads it

    for kind in (ApiError, FullError, DeadlineError, ClosedError, ValueError, MemoryError):
        app.add_exception_handler(kind, foreseen)
    app.add_exception_handler(HTTPException, of_framework)
    app.add_exception_handler(RequestValidationError, of_validation)
    app.add_exception_handler(ClientDisconnect, gone)
    app.add_exception_handler(Exception, foreseen)


def _methods(app: FastAPI, scope: Scope) -> list[str]:
    """The methods of the endpoints at the path of a request."""
    endpoints = [route for route in app.routes if not isinstance(route, Mount)]

    def taken(method: str) -> bool:
        asked = {**scope, "method": method}
        return any(route.matches(asked)[0] is Match.FULL for route in endpoints)

    return [method for method in ("GET", "POST", "PUT", "DELETE") if taken(method)]


def _param(message: str) -> str | None:
    """The name that a sentence such as `count must be ...` begins with."""
    found = re.match(r"([a-z_]+(?:\.\w+|\[\d+\])*) (?:must|is|cannot) ", message)
    return found[1] if found and found[1] not in ("there", "a", "an", "the") else None
