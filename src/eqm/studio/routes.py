"""The page, and the endpoints that only the page needs."""

from __future__ import annotations

from pathlib import Path

from fastapi import FastAPI
from fastapi.staticfiles import StaticFiles

from eqm.studio.run_routes import run_router

STATIC = Path(__file__).parent / "static"
"""The files of the page."""


def add_studio(app: FastAPI) -> None:
    """Returns nothing; adds the page at `/`, and the endpoints for the runs below `app.state.runs`, if set.

    Call it last: the page takes every path that has no endpoint.
    """
    app.include_router(run_router(getattr(app.state, "runs", None)))
    app.mount("/", StaticFiles(directory=STATIC, html=True), name="studio")
