"""The application: every endpoint, the guard before them, and the page."""

from __future__ import annotations

import asyncio
import time
from functools import partial
from pathlib import Path
from typing import Any

import torch
from fastapi import FastAPI, Request, Response
from starlette.concurrency import run_in_threadpool
from starlette.datastructures import UploadFile
from starlette.exceptions import HTTPException
from starlette.responses import HTMLResponse, PlainTextResponse

import eqm
from eqm.serving.http import answers, detect, docs, errors, events, images, openapi, schemas, uses
from eqm.serving.http.errors import JSON
from eqm.serving.http.guard import Guard, Traffic
from eqm.serving.http.limits import Limits
from eqm.serving.http.metrics import TYPE, Metrics
from eqm.serving.http.pictures import png
from eqm.serving.models import Models
from eqm.studio.routes import add_studio

SUMMARY = """\
One full batch for all requests: samples of every use descend together.

Pictures are base64 PNG, without `data:` before it. An error is one sentence in OpenAI's form. With
`"stream": true` an answer is `text/event-stream` with the events `progress` (previews), `sample` (one that
ended), `done` (the answer without pictures) and `error`. A client that disconnects cancels its request.
"""
EXAMPLE = png(torch.linspace(-1, 1, 28).expand(1, 28, 28))
"""A picture in base64."""
EXAMPLES: dict[str, dict[str, Any]] = {
    "sample": {"labels": "sneaker", "count": 4, "seed": 0, "sampling": {"guidance": 2.0}},
    "vary": {"images": [EXAMPLE], "strength": 0.5, "count": 4},
    "denoise": {"images": [EXAMPLE], "sigma": "estimate", "aim": "sample"},
    "restore": {
        "images": [EXAMPLE],
        "operator": {"name": "inpaint"},
        "mask": EXAMPLE,
        "count": 4,
    },
    "interpolate": {"first": EXAMPLE, "last": EXAMPLE, "count": 9},
    "compose": {"expression": "trouser + 0.5*bag", "count": 4},
    "detect": {"images": [EXAMPLE], "fpr": 0.05, "maps": True},
}


def create_app(
    models: Models,
    *,
    token: str | None = None,
    limits: Limits | None = None,
    runs: Path | None = None,
) -> FastAPI:
    """The application that answers requests for `models`.

    With a `token`, every endpoint but `/health` wants it as a bearer token; without, only requests that
    name this machine as their host are answered. `runs` is the folder whose training runs the page shows.
    The application does not close the models.
    """
    limits = limits or Limits()
    metrics = Metrics(models)
    app = FastAPI(
        title="eqm", version=eqm.__version__, description=SUMMARY, docs_url=None, redoc_url=None
    )
    app.state.models, app.state.limits, app.state.runs = models, limits, runs
    errors.install(app)
    _add_status(app, models, metrics)
    _add_uses(app, models, limits)
    _add_detect(app, models, limits)
    _add_images(app, models, limits)
    described(app)
    _add_docs(app)
    add_studio(app)
    app.state.traffic = traffic = Traffic()
    app.add_middleware(Guard, token=token, limits=limits, metrics=metrics, traffic=traffic)
    return app


def described(app: FastAPI) -> None:
    """Returns nothing; completes the OpenAPI document of the app with the schemas."""
    plain = app.openapi

    def document() -> dict[str, Any]:
        if app.openapi_schema is None:
            found = plain()
            kinds = [use.ask for use in uses.USES]
            others = [
                *(schemas.DetectAsk, schemas.ImageAsk, schemas.Samples, schemas.Verdicts),
                *(schemas.Images, schemas.ModelList, schemas.ModelItem, *openapi.SHAPES),
            ]
            parts = found.setdefault("components", {})
            parts.setdefault("schemas", {}).update(openapi.components([*kinds, *others]))
            openapi.add_refusals(found)
            parts["securitySchemes"] = {"token": {"type": "http", "scheme": "bearer"}}
            found["security"] = [{}, {"token": []}]
            app.openapi_schema = found
        return app.openapi_schema

    app.openapi = document  # type: ignore[method-assign]


def _add_status(app: FastAPI, models: Models, metrics: Metrics) -> None:
    created = int(time.time())

    @app.get(
        "/health",
        tags=["status"],
        summary="Whether the server is there",
    )
    async def health() -> Response:
        return JSON({"status": "ok", "version": eqm.__version__})

    @app.get(
        "/metrics",
        tags=["status"],
        summary="Queue, batch fill, evaluations and latency for Prometheus",
        response_class=PlainTextResponse,
    )
    async def metrics_text() -> Response:
        return Response(metrics.text(), headers={"Content-Type": TYPE})

    def item(name: str) -> schemas.ModelItem:
        about = schemas.About(**models.about(name))
        return schemas.ModelItem(id=name, created=created, owned_by="eqm", eqm=about)

    @app.get(
        "/v1/models",
        tags=["models"],
        summary="The models of this server",
        responses=openapi.answer(schemas.ModelList),
    )
    async def list_models() -> Response:
        return JSON(schemas.ModelList(data=[item(name) for name in models.names]))

    @app.get(
        "/v1/models/{name:path}",
        tags=["models"],
        summary="One model",
        responses=openapi.answer(schemas.ModelItem),
    )
    async def one_model(name: str) -> Response:
        return JSON(item(name))


def _add_docs(app: FastAPI) -> None:
    @app.get("/docs", include_in_schema=False)
    async def reference() -> Response:
        return HTMLResponse(docs.page(app.openapi()))

    @app.get("/docs/style.css", include_in_schema=False)
    async def style() -> Response:
        return Response(docs.STYLE, media_type="text/css")


def _add_uses(app: FastAPI, models: Models, limits: Limits) -> None:
    def add(use: uses.Use) -> None:
        async def endpoint(request: Request) -> Response:
            ask = await answers.parse(request, use.ask)
            news = events.News(asyncio.get_running_loop()) if ask.stream else None
            running = await run_in_threadpool(
                answers.begin,
                models,
                limits,
                ask.model,
                partial(use.plan, ask, limits),
                deadline=ask.deadline,
                preview_every=ask.preview_every if ask.stream else 0,
                listener=news,
            )
            if news is not None:
                return events.event_stream(events.happenings(running, news))
            return JSON(await answers.answer(request, running))

        app.post(
            f"/v1/{use.name}",
            tags=["uses"],
            name=use.name,
            summary=use.summary,
            description=(use.ask.__doc__ or ""),
            openapi_extra=openapi.body(use.ask, EXAMPLES[use.name]),
            responses=openapi.answer(schemas.Samples, events=True),
        )(endpoint)

    for use in uses.USES:
        add(use)


def _add_detect(app: FastAPI, models: Models, limits: Limits) -> None:
    @app.post(
        "/v1/detect",
        tags=["uses"],
        summary="Find pictures unlike the training data",
        description=schemas.DetectAsk.__doc__ or "",
        openapi_extra=openapi.body(schemas.DetectAsk, EXAMPLES["detect"]),
        responses=openapi.answer(schemas.Verdicts),
    )
    async def detection(request: Request) -> Response:
        ask = await answers.parse(request, schemas.DetectAsk)
        plan = partial(detect.plan_detect, ask, limits)
        running = await run_in_threadpool(
            answers.begin, models, limits, ask.model, plan, deadline=ask.deadline
        )
        judged = await answers.result_of(request, running)
        return JSON(await run_in_threadpool(detect.verdicts_of, running, judged))


def _add_images(app: FastAPI, models: Models, limits: Limits) -> None:
    async def answered(request: Request, ask: schemas.ImageAsk, plan: Any, kind: str) -> Response:
        news = events.News(asyncio.get_running_loop()) if ask.stream else None
        running = await run_in_threadpool(
            answers.begin,
            models,
            limits,
            ask.model,
            plan,
            deadline=ask.deadline,
            preview_every=None if ask.stream and ask.partial_images else 0,
            listener=news,
        )
        if news is not None:
            named = partial(images.openai_events, ask, running, kind)
            return events.event_stream(events.happenings(running, news), named)
        solution = await answers.result_of(request, running)
        return JSON(await run_in_threadpool(images.images_of, ask, running, solution))

    @app.post(
        "/v1/images/generations",
        tags=["OpenAI"],
        summary="Draw pictures, in OpenAI's form",
        description=schemas.ImageAsk.__doc__ or "",
        openapi_extra=openapi.body(
            schemas.ImageAsk, {"prompt": "sneaker", "n": 2, "size": "112x112"}
        ),
        responses=openapi.answer(schemas.Images, events=True),
    )
    async def generations(request: Request) -> Response:
        ask = await answers.parse(request, schemas.ImageAsk)
        plan = partial(images.plan_generation, ask, limits)
        return await answered(request, ask, plan, "image_generation")

    @app.post(
        "/v1/images/edits",
        tags=["OpenAI"],
        summary="Draw a part of a picture anew, in OpenAI's form",
        description="A form with the files `image` and `mask`, a PNG that is transparent where the picture is "
        "to be drawn anew, and the text fields of ImageAsk. Without `mask` the transparent pixels of "
        "`image` are drawn anew.",
        openapi_extra=_form(),
        responses=openapi.answer(schemas.Images, events=True),
    )
    async def edits(request: Request) -> Response:
        texts, files = await _form_of(request)
        ask = images.ask_of_form(texts)
        plan = partial(images.plan_edit, ask, files["image"], files.get("mask"), limits)
        return await answered(request, ask, plan, "image_edit")


async def _form_of(request: Request) -> tuple[dict[str, str], dict[str, bytes]]:
    """The texts and the files of a form with `image` and perhaps `mask`. Raises ValueError for others."""
    if not request.headers.get("content-type", "").startswith("multipart/form-data"):
        raise ValueError("the body must be a form, multipart/form-data, with the file image")
    try:
        form = await request.form(max_files=4, max_fields=40)
    except (HTTPException, ValueError) as error:  # the framework makes the first of errors of forms
        said = " ".join(str(getattr(error, "detail", error)).split()).rstrip(".")
        raise ValueError(
            f"the body must be a form, multipart/form-data, with at most 4 files and 40 texts; {said}"
        ) from None
    try:
        texts: dict[str, str] = {}
        files: dict[str, bytes] = {}
        for key, value in form.multi_items():
            name = key.removesuffix("[]")
            if name in texts or name in files:
                raise ValueError(f"{name} must be given once in one request; it came twice")
            if isinstance(value, UploadFile):
                if name not in ("image", "mask"):
                    raise ValueError(f"a form has the files image and mask; got {name[:60]!r}")
                files[name] = await value.read()
            elif name in ("image", "mask"):
                raise ValueError(f"{name} must be a file; got text")
            else:
                texts[name] = value
    finally:
        await form.close()
    if "image" not in files:
        raise ValueError("image is missing: send a picture file as the field image of the form")
    return texts, files


def _form() -> dict[str, Any]:
    file = {"type": "string", "format": "binary"}
    texts = openapi.components([schemas.ImageAsk])["ImageAsk"]
    properties = {
        "image": file | {"description": "The picture, with the size of the model."},
        "mask": file | {"description": "A PNG, transparent where the picture is to be drawn anew."},
        **texts["properties"],
    }
    schema = {"type": "object", "properties": properties, "required": ["image"]}
    return {
        "requestBody": {"required": True, "content": {"multipart/form-data": {"schema": schema}}}
    }
