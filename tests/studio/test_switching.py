"""Another model is chosen while a panel works for the first one."""

import asyncio
import base64
import io

import pytest

pytest.importorskip("fastapi", reason="fastapi is not installed: pip install 'eqm[serve]'")

from fastapi import FastAPI
from fastapi.responses import StreamingResponse
from PIL import Image

from eqm.studio.routes import add_studio

SAMPLING = {
    "rule": "gradient-descent",
    "step_size": 0.1,
    "path_length": 1.0,
    "momentum": 0.0,
    "guidance": 1.0,
    "multistep_coefficients": [],
}


@pytest.fixture(scope="module")
def studio(serve):
    """A server of two models whose streams begin and never end."""
    app = FastAPI()

    @app.get("/v1/models")
    def models():
        about = {"shape": [1, 8, 8], "num_classes": 2, "classes": ["a", "b"], "sampling": SAMPLING}
        return {"object": "list", "data": [{"id": name, "eqm": about} for name in ("one", "two")]}

    async def parts():
        yield ": begun\n\n"
        await asyncio.sleep(60)

    async def answer(body: dict):
        if body.get("stream"):
            return StreamingResponse(parts(), media_type="text/event-stream")
        file = io.BytesIO()
        Image.new("L", (8, 8)).save(file, format="png")
        text = base64.b64encode(file.getvalue()).decode()
        return {"samples": [{"index": 0, "seed": 0, "label": "a", "b64_json": text}]}

    for use in ("sample", "compose", "restore", "denoise"):
        app.post(f"/v1/{use}")(answer)
    add_studio(app)
    return serve(app)


@pytest.mark.parametrize(("name", "kind"), [("Draw", None), ("Compose", None), ("Repair", "Blur")])
def test_a_panel_begins_anew_with_another_model(studio, page, name, kind):
    page.goto(f"{studio}/#{name.lower()}")
    panel = page.get_by_role("tabpanel", name=name)
    if kind:
        panel.get_by_text("A sample of one").wait_for()
        panel.get_by_role("button", name=kind, exact=True).click()
    panel.get_by_role("button", name=name, exact=True).click()
    cancel = panel.get_by_role("button", name="Cancel", disabled=False).first
    cancel.wait_for()
    page.get_by_label("Model", exact=True).select_option("two")
    panel.get_by_text(f"Press {name}").wait_for()
    page.wait_for_timeout(200)  # the request that was ended has its say
    assert panel.get_by_text(f"Press {name}").is_visible()
    assert panel.get_by_role("button", name="Cancel", disabled=False).count() == 0
    assert not panel.get_by_role("group", name="Path from noise to picture").first.is_visible()
