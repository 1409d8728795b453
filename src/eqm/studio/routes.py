"""The page, and the endpoints that only the page needs."""

from __future__ import annotations

import json
import threading
from base64 import b64encode
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Annotated, Any, Literal

import torch
from anyio import to_thread
from fastapi import APIRouter, FastAPI, HTTPException, Request
from fastapi.responses import Response, StreamingResponse
from fastapi.staticfiles import StaticFiles
from pydantic import BaseModel, ConfigDict, Field
from starlette.types import Receive, Scope, Send

from eqm.corruption import Decay
from eqm.registry import make
from eqm.studio.landscape import LearnedField, learn
from eqm.studio.run_routes import run_router

STATIC = Path(__file__).parent / "static"
"""The files of the page."""
MOST_POINTS = 400
Coordinate = Annotated[float, Field(ge=-10, le=10)]


def add_studio(app: FastAPI) -> None:
    """Returns nothing; adds the page at `/`, and the endpoints for the runs below `app.state.runs`, if set.

    Call it last: the page takes every path that has no endpoint.
    """
    app.include_router(run_router(getattr(app.state, "runs", None)))
    app.include_router(landscape_router())
    app.mount("/", _Page(directory=STATIC, html=True), name="studio")


class _Page(StaticFiles):
    """The files, which a browser keeps but asks for each time, so that all are of one version."""

    def file_response(self, *args: Any, **settings: Any) -> Response:
        response = super().file_response(*args, **settings)
        response.headers["Cache-Control"] = "no-cache"
        return response


class DecaySettings(BaseModel):
    """A decay c(gamma) by its name, with the settings it has."""

    model_config = ConfigDict(extra="forbid")
    name: Literal["truncated", "linear", "constant", "piecewise"] = "truncated"
    scale: float = Field(default=4.0, gt=0, le=100)
    start: float = Field(default=0.8, ge=0, lt=1)
    initial: float = Field(default=1.4, gt=0, le=100)


class LandscapeRequest(BaseModel):
    """The points whose field a small network learns, and the grid on which the field is returned."""

    model_config = ConfigDict(extra="forbid")
    points: list[tuple[Coordinate, Coordinate]] = Field(min_length=1, max_length=MOST_POINTS)
    decay: DecaySettings = Field(default_factory=DecaySettings)
    extent: float = Field(3.4, gt=0, le=10)
    side: int = Field(65, ge=2, le=129)
    stream: Literal[True] = True


def landscape_router() -> APIRouter:
    """The endpoint that trains a field in the plane: one training at a time."""
    router = APIRouter(tags=["studio"])
    busy = threading.Lock()

    @router.post("/studio/landscape", response_class=_Events)
    async def train_landscape(asked: LandscapeRequest, request: Request) -> StreamingResponse:
        """Trains a small network on the points, for some seconds.

        The events `progress` and `done` hold the field on the grid as float32 in base64, row by row. 429 while
        another training runs.
        """
        decay: Decay = make("decay", asked.decay.name, asked.decay.model_dump())
        points = torch.tensor(asked.points, dtype=torch.float32)
        if not busy.acquire(blocking=False):
            raise HTTPException(
                429, "another landscape is being trained: wait some seconds", {"Retry-After": "5"}
            )
        fields = learn(points, decay, extent=asked.extent, side=asked.side)
        return _Training(_events(fields, request), busy)

    return router


class _Events(StreamingResponse):
    media_type = "text/event-stream"


class _Training(_Events):
    """The events of a training. It frees the lock however it ends, also if the client left before its start."""

    def __init__(self, events: AsyncIterator[str], busy: threading.Lock) -> None:
        super().__init__(events)
        self._busy = busy

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await super().__call__(scope, receive, send)
        finally:
            self._busy.release()


async def _events(fields: Iterator[LearnedField], request: Request) -> AsyncIterator[str]:
    """Each field as an event. Training goes on only while the client reads."""
    while not await request.is_disconnected():
        found = await to_thread.run_sync(next, fields, None)
        if found is None:
            return
        yield _event("progress" if found.images < found.total else "done", found)


def _event(name: str, field: LearnedField) -> str:
    data: dict[str, Any] = {
        "images": field.images,
        "total": field.total,
        "loss": field.loss,
        "seconds": field.seconds,
        "gradient": b64encode(field.gradient.numpy().astype("<f4").tobytes()).decode(),
    }
    return f"event: {name}\ndata: {json.dumps(data)}\n\n"
