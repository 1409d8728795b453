"""A browser without a window, and a server for it. Where either is missing, these tests are skipped."""

import shutil
import socket
import threading
from contextlib import ExitStack, contextmanager
from urllib.parse import urlsplit

import pytest

BROWSERS = ("chromium", "chromium-browser", "google-chrome")


@contextmanager
def _served(app):
    """The address of an app, on a free port of this machine."""
    import uvicorn

    with socket.create_server(("127.0.0.1", 0)) as listener:
        server = uvicorn.Server(uvicorn.Config(app, log_level="error", ws="none"))
        thread = threading.Thread(target=server.run, args=([listener],), daemon=True)
        thread.start()
        try:
            yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        finally:
            server.should_exit = True
            thread.join(10)


@pytest.fixture(scope="module")
def serve():
    """A function that serves an app and returns its address."""
    with ExitStack() as stack:
        yield lambda app: stack.enter_context(_served(app))


@pytest.fixture(scope="session")
def clothes():
    """The address of a server of the model fashion-mnist."""
    pytest.importorskip("fastapi", reason="fastapi is not installed: pip install 'eqm[serve]'")
    from eqm.serving.http.app import create_app
    from eqm.serving.models import Models

    with Models(["fashion-mnist"]) as models, _served(create_app(models)) as address:
        yield address


@pytest.fixture(scope="session")
def pixels():
    """A function of canvases on a page: their pixels, (N, H, W, 3) uint8."""
    import numpy as np

    def read(canvases):
        found = canvases.evaluate_all(
            "canvases => canvases.map(c => [c.height, c.width, "
            "[...c.getContext('2d').getImageData(0, 0, c.width, c.height).data]])"
        )
        return np.stack([np.array(v, np.uint8).reshape(h, w, 4)[..., :3] for h, w, v in found])

    return read


@pytest.fixture(scope="module")  # while it is open, an event loop runs in this thread
def browser():
    sync_api = pytest.importorskip(
        "playwright.sync_api", reason="playwright is not installed: pip install playwright"
    )
    path = next(filter(None, map(shutil.which, BROWSERS)), None)
    if path is None:
        pytest.skip("no browser is installed: apt-get install chromium")
    with sync_api.sync_playwright() as playwright:
        try:
            browser = playwright.chromium.launch(executable_path=path, args=["--no-sandbox"])
        except sync_api.Error as error:  # on Ubuntu the package may be a stub of snap
            pytest.skip(f"{path} does not start: {str(error).splitlines()[0]}")
        yield browser
        browser.close()


@pytest.fixture
def page(browser):
    """A page; the test fails if the console shows an error, or if a request goes to another host.

    `page.expected` holds parts of the messages that a test provokes, such as "429".
    """
    context = browser.new_context(viewport={"width": 1200, "height": 900}, reduced_motion="reduce")
    page = context.new_page()
    page.set_default_timeout(10_000)
    page.expected, wrong = [], []

    def log(text):
        if not any(part in text for part in page.expected):
            wrong.append(text)

    def watch(request):
        if urlsplit(request.url).hostname not in ("127.0.0.1", None, ""):
            wrong.append(f"a request went to {request.url}")

    page.on("console", lambda message: message.type in ("error", "warning") and log(message.text))
    page.on("pageerror", lambda error: log(str(error)))
    page.on("request", watch)
    yield page
    context.close()
    assert wrong == []
