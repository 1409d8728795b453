"""The frame of the page, with a server that knows no models but their names."""

import httpx
import pytest

pytest.importorskip("fastapi", reason="fastapi is not installed: pip install 'eqm[serve]'")

from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse, StreamingResponse

from eqm.studio.routes import add_studio

MODELS = {
    "object": "list",
    "data": [
        {"id": "clothes", "eqm": {"shape": [1, 28, 28], "num_classes": 10}},
        {"id": "faces", "eqm": {"shape": [3, 64, 64], "num_classes": 0}},
    ],
}


@pytest.fixture(scope="module")
def studio(serve):
    app = FastAPI()

    @app.get("/v1/models")
    def models():
        return MODELS

    @app.get("/secret")
    def secret(request: Request):
        if request.headers.get("Authorization") != "Bearer swordfish":
            return JSONResponse({"error": {"message": "no token"}}, 401)
        return {"secret": 42}

    @app.post("/full")
    def full():
        error = {"error": {"message": "3 requests wait: ask again later"}}
        return JSONResponse(error, 429, {"Retry-After": "2"})

    @app.post("/events")
    def events():
        def parts():
            yield 'event: progress\ndata: {"samples": ['
            yield '1]}\n\nevent: sample\ndata: {"index": 0}\n\n'
            yield ': a comment\n\nevent: done\ndata: {"seconds": 1}\n\n'

        return StreamingResponse(parts(), media_type="text/event-stream")

    @app.post("/broken")
    def broken():
        def parts():
            yield 'event: error\ndata: {"error": {"message": "the deadline passed"}}\n\n'

        return StreamingResponse(parts(), media_type="text/event-stream")

    @app.post("/cut")
    def cut():
        def parts():
            yield "event: progress\ndata: {}\n\n"
            raise ConnectionResetError

        return StreamingResponse(parts(), media_type="text/event-stream")

    add_studio(app)
    return serve(app)


def test_tabs_follow_the_keyboard_and_the_address(studio, page):
    page.goto(studio)
    tab = page.get_by_role("tab", selected=True)
    assert tab.inner_text() == "Landscape"
    tab.focus()
    page.keyboard.press("ArrowLeft")
    page.get_by_role("tab", name="Train", selected=True).wait_for()
    page.get_by_role("heading", name="Train", level=1).wait_for()
    assert page.url.endswith("#train")
    assert page.evaluate("document.activeElement.id") == "tab-train"
    assert page.locator('[role=tab][tabindex="0"]').count() == 1
    page.go_back()
    page.get_by_role("tab", name="Landscape", selected=True).wait_for()


def test_the_choice_of_a_model_reaches_panels_and_is_kept(studio, page):
    page.goto(studio)
    page.get_by_text("grey pictures of 28 × 28 pixels, 10 classes").wait_for()
    page.get_by_label("Model").select_option("faces")
    page.get_by_text("colour pictures of 64 × 64 pixels").wait_for()
    page.reload()
    page.get_by_text("colour pictures of 64 × 64 pixels").wait_for()


def test_light_and_dark_are_the_choice_of_the_reader(studio, page):
    background = "getComputedStyle(document.body).backgroundColor"
    page.goto(studio)
    light = page.evaluate(background)
    page.get_by_role("button", name="Switch to dark colours").click()
    assert page.evaluate(background) != light
    page.reload()
    assert page.evaluate(background) != light


def test_the_token_is_asked_for_once_and_kept(studio, page):
    page.expected.append("401")
    page.goto(studio)
    page.evaluate(
        "import('./api.js').then(async ({get}) => "
        "{ window.both = Promise.all([get('/secret'), get('/secret')]); })"
    )
    for token in ("herring", "swordfish"):
        page.get_by_role("textbox", name="Token").fill(token)
        page.get_by_role("button", name="Go on").click()
        if token == "herring":
            page.get_by_text("The server does not take this token.").wait_for()
    assert page.evaluate("window.both") == [{"secret": 42}] * 2
    page.expected.clear()
    page.reload()
    assert page.evaluate("import('./api.js').then(({get}) => get('/secret'))") == {"secret": 42}


def test_events_are_parsed_across_pieces(studio, page):
    page.goto(studio)
    heard = page.evaluate("""async () => {
        const {stream} = await import('./api.js'), heard = [];
        const listen = (name) => (data) => heard.push([name, data]);
        await stream('/events', {}, {
            onProgress: listen('progress'), onSample: listen('sample'), onDone: listen('done'),
        });
        return heard;
    }""")
    assert heard == [
        ["progress", {"samples": [1]}],
        ["sample", {"index": 0}],
        ["done", {"seconds": 1}],
    ]


@pytest.mark.parametrize(
    ("call", "sentence"),
    [
        ("post('/full', {})", "3 requests wait: ask again later. Please try again in 2 s."),
        ("stream('/broken', {})", "The deadline passed."),
        ("stream('/cut', {})", "The connection to the server broke. Please try again."),
        (
            "post('http://127.0.0.1:1/', {})",
            "The server does not answer. Is it still running?",
        ),
    ],
)
def test_an_error_is_one_sentence(studio, page, call, sentence):
    page.expected += [
        "429",
        "127.0.0.1:1",
        "ERR_CONNECTION_REFUSED",
        "ERR_INCOMPLETE_CHUNKED_ENCODING",
    ]
    page.goto(studio)
    message = page.evaluate(f"import('./api.js').then((api) => api.{call}).catch((e) => e.message)")
    assert message == sentence


def test_a_file_that_is_dropped_anywhere_does_not_replace_the_page(studio, page):
    page.goto(studio)
    page.get_by_role("heading", name="Landscape", level=1).wait_for()
    prevented = page.evaluate("""() => ["dragover", "drop"].map((kind) => {
        const event = new DragEvent(kind, { bubbles: true, cancelable: true, dataTransfer: new DataTransfer() });
        document.querySelector("h1").dispatchEvent(event);
        return event.defaultPrevented;
    })""")
    assert prevented == [True, True]


def test_a_panel_that_cannot_be_loaded_is_loaded_at_a_reload(studio, page):
    page.expected += ["ERR_FAILED", "dynamically imported module"]
    page.goto(studio)
    page.route("**/train.js", lambda route: route.abort())
    page.get_by_role("tab", name="Train").click()
    page.get_by_text("This panel could not be loaded.").wait_for()
    page.unroute("**/train.js")
    page.reload()
    page.get_by_role("heading", name="Train", level=1).wait_for()


def test_a_browser_asks_for_newer_files_after_an_update(studio):
    first = httpx.get(f"{studio}/shell.js")
    assert first.headers["Cache-Control"] == "no-cache"
    again = httpx.get(f"{studio}/shell.js", headers={"If-None-Match": first.headers["ETag"]})
    assert again.status_code == 304
    assert again.headers["Cache-Control"] == "no-cache"


def test_the_page_is_no_wider_than_a_phone(studio, page):
    page.set_viewport_size({"width": 400, "height": 800})
    page.goto(studio)
    page.get_by_role("heading", name="Landscape", level=1).wait_for()
    assert page.evaluate("document.documentElement.scrollWidth") <= 400
