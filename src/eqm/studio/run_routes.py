"""The endpoints for training runs: a list, and the settings, log and preview pictures of each."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Annotated, Any

from fastapi import APIRouter, HTTPException, Query

import eqm.studio.runs as runs
from eqm.studio.runs import RunFiles

REFUSALS: dict[int | str, dict[str, Any]] = {
    400: {"description": "A value is wrong; the sentence says which."},
    404: {"description": "There is no such run or picture."},
    413: {"description": "The file is too large to be shown."},
}


@contextmanager
def _reading() -> Iterator[None]:
    """Turns the failures of reading into answers."""
    try:
        yield
    except ValueError as error:
        raise HTTPException(413, str(error)) from None
    except OSError:
        raise HTTPException(404, "The run cannot be read: it may have been removed.") from None


def run_router(folder: Path | None) -> APIRouter:
    """The endpoints for the runs below `folder`. With None there are no runs."""
    router = APIRouter(tags=["runs"], responses=REFUSALS)

    def run_of(name: str) -> RunFiles:
        found = {} if folder is None else runs.find_runs(folder)
        if name not in found:
            raise HTTPException(404, "There is no run with this id: GET /v1/runs lists them.")
        return found[name]

    @router.get("/v1/runs")
    def list_runs() -> dict[str, Any]:
        """The runs, the one that changed last first. `watched` is false if the server watches no folder."""
        found = {} if folder is None else runs.find_runs(folder)
        data = []
        for name, run in found.items():
            with suppress(OSError):  # it was removed meanwhile
                data.append({"id": name, "object": "eqm.run", **runs.describe_run(run)})
        data.sort(key=lambda run: -(run["changed"] or 0))
        return {"object": "list", "data": data, "watched": folder is not None}

    @router.get("/v1/runs/{run}")
    def show_run(run: str) -> dict[str, Any]:
        """The state of a run, and its settings by name, which are there after its first checkpoint."""
        found = run_of(run)
        with _reading():
            about = {"id": run, "object": "eqm.run", **runs.describe_run(found)}
            return about | {"settings": runs.settings_of(found)}

    @router.get("/v1/runs/{run}/log")
    def show_log(run: str, after: Annotated[int, Query(ge=-1, le=2**62)] = -1) -> dict[str, Any]:
        """The lines of the log with more than `after` images, at most 2,000; `more` says if others follow.

        Where `log` is another one than before, the log was cut or begun again: read it from its start.
        """
        found = run_of(run)
        with _reading():
            return runs.log_after(found, after)

    @router.get("/v1/runs/{run}/samples")
    def list_pictures(run: str) -> dict[str, Any]:
        """The preview pictures of a run by name, in order, with the images seen before each."""
        return {"object": "list", "data": runs.pictures(run_of(run))}

    @router.get("/v1/runs/{run}/samples/{picture}")
    def show_picture(run: str, picture: str) -> dict[str, Any]:
        """A preview picture, a sheet of samples: `b64_json` is a PNG file."""
        found = run_of(run)
        with _reading():
            content = runs.picture(found, picture)
        if content is None:
            raise HTTPException(
                404, "There is no preview picture with this name: GET its run's samples lists them."
            )
        return {"name": picture, "b64_json": b64encode(content).decode()}

    return router
