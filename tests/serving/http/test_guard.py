"""What stands before the endpoints: hosts, tokens, sizes, safe headers; and errors of one form."""

import base64
import io
import threading
import time
import zlib

import pytest
from PIL import Image

from eqm.serving.http.limits import Limits
from eqm.serving.models import Models


@pytest.fixture
def ask(models):
    """A function that makes a client of an app with these settings."""
    from starlette.testclient import TestClient

    from eqm.serving.http.app import create_app

    def make(host="http://localhost", **settings):
        return TestClient(create_app(models, **settings), base_url=host)

    return make


def grey():
    file = io.BytesIO()
    Image.new("L", (8, 8)).save(file, "png")
    return base64.b64encode(file.getvalue()).decode()


def refusal(answer, status):
    assert answer.status_code == status, answer.text
    error = answer.json()["error"]
    assert set(error) == {"message", "type", "param", "code"}
    assert "\n" not in error["message"]
    return error["message"]


@pytest.mark.parametrize(
    "host", ["http://localhost:80", "http://127.0.0.1:8000", "http://[::1]:8000"]
)
def test_this_machine_is_answered_by_all_its_names(ask, host):
    assert ask(host).get("/health").status_code == 200


@pytest.mark.parametrize(
    "host", ["http://evil.example", "http://localhost.evil.example", "http://10.0.0.1"]
)
def test_another_host_is_refused_without_a_token(ask, host):
    assert "localhost" in refusal(ask(host).get("/v1/models"), 403)
    assert ask(host, token="secret").get("/health").status_code == 200


def test_the_page_of_another_site_is_refused(ask):
    client = ask()
    for origin in ("http://evil.example", "null", "http://localhost:9"):
        refusal(client.get("/v1/models", headers={"Origin": origin}), 403)
    same = client.get("/v1/models", headers={"Origin": "http://localhost"})
    assert same.status_code == 200
    assert "access-control-allow-origin" not in same.headers


@pytest.mark.parametrize("path", ["/v1/models", "/metrics", "/openapi.json", "/v1/nothing"])
def test_a_token_is_wanted_everywhere_but_for_health_and_pages(ask, path):
    client = ask(token="secret")
    for given in ({}, {"Authorization": "Bearer secre"}, {"Authorization": "Basic secret"}):
        assert "Bearer" in refusal(client.get(path, headers=given), 401)
    right = client.get(path, headers={"Authorization": "Bearer secret"})
    assert right.status_code == (404 if path.endswith("nothing") else 200)
    for public in ("/health", "/", "/docs"):
        assert client.get(public).status_code == 200


def test_a_body_is_counted_also_without_a_length(ask):
    client = ask(limits=Limits(body_bytes=1000))
    refusal(client.post("/v1/sample", content=b" " * 1001), 413)
    chunks = client.post("/v1/sample", content=iter([b" " * 600, b" " * 600]))
    assert "1,000 bytes" in refusal(chunks, 413)


def test_a_full_queue_says_when_to_ask_again():
    from starlette.testclient import TestClient

    from eqm.serving.http.app import create_app

    hold = threading.Event()
    field = lambda x, labels=None: 2 * x  # noqa: E731
    field.shape, field.num_classes = (1, 8, 8), 0
    with Models({"one": field}, slots=1, max_waiting=1) as models:
        client = TestClient(create_app(models), base_url="http://localhost")
        engine = models.get().engine
        first = engine.submit(lambda model: hold.wait(30))
        while engine.load().waiting:
            time.sleep(0.01)
        second = engine.submit(lambda model: None)
        answer = client.post("/v1/sample", json={})
        hold.set()
        assert "ask again later" in refusal(answer, 429)
        assert int(answer.headers["retry-after"]) >= 1
        second.result(30)
        assert first.done()
        assert client.post("/v1/sample", json={}).status_code == 200


def test_an_error_that_nobody_foresaw_says_so_in_its_form():
    from starlette.testclient import TestClient

    from eqm.serving.http.app import create_app

    def field(x, labels=None):
        raise KeyError("secret")

    field.shape, field.num_classes = (1, 8, 8), 0
    with Models({"one": field}) as models:
        app = create_app(models)
        client = TestClient(app, base_url="http://localhost", raise_server_exceptions=False)
        said = refusal(client.post("/v1/sample", json={}), 500)
        assert "secret" not in said
        assert client.get("/health").status_code == 200


def test_headers_are_safe(ask):
    found = ask().get("/").headers
    assert "default-src 'self'" in found["content-security-policy"]
    assert found["x-content-type-options"] == "nosniff"
    assert found["x-frame-options"] == "DENY"


def test_a_closing_server_answers_503(ask):
    client = ask()
    assert client.get("/health").status_code == 200
    client.app.state.traffic.draining = True
    answer = client.post("/v1/sample", json={"model": "bowl"})
    assert "closing" in refusal(answer, 503)
    assert "retry-after" in answer.headers


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (b"", "JSON"),
        (b"[]", "object"),
        (b'{"seed": NaN}', "JSON"),
        (b'{"sampling": {"guidance": 1e999}, "model": "bowl"}', "out of range"),
        (b'{"seed": 1, "seed": 2}', "twice"),
        (b'{"seeed": 1}', "did you mean 'seed'"),
        (b'{"model": "bow"}', "did you mean 'bowl'"),
        (b"{}", "bowl, plain"),
        (b'{"model": "bowl", "labels": "black"}', "dark"),
        (b'{"model": "bowl", "labels": ["dark", "light"], "count": 3}', "3"),
        (b'{"model": "bowl", "count": 1001}', "1,000"),
        (b'{"model": "bowl", "sampling": {"step_siz": 1}}', "step_size"),
        (b'{"model": "bowl", "sampling": {"step_size": "x"}}', "step_size"),
        (b'{"model": "bowl", "sampling": {"step_size": 1e-6}}', "larger step_size"),
        (b'{"model": "bowl", "sampling": {"rule": "os.system"}}', "rule"),
        (b'{"model": "bowl", "deadline": 0}', "deadline"),
        (b'{"model": "bowl", "expression": "dark"}', "expression is unknown"),
        (b"\xff", "JSON"),
        (b"[" * 100_000, "nested"),
    ],
)
def test_a_wrong_request_is_refused_with_a_sentence(client, body, said):
    status = 404 if b'"bow"' in body else 400
    assert said in refusal(client.post("/v1/sample", content=body), status)


def test_unknown_paths_and_methods_say_so(client):
    refusal(client.get("/v1/nothing"), 404)
    refusal(client.post("/v1/nothing"), 404)
    answer = client.get("/v1/sample")
    refusal(answer, 405)
    assert answer.headers["allow"] == "POST"
    refusal(client.get("/v1/models/nothing"), 404)


@pytest.mark.parametrize("path", ["/health", "/v1/models", "/metrics", "/docs", "/"])
def test_what_can_be_read_has_a_head(client, path):
    assert client.head(path).status_code == 200


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (b"", "the body must be a JSON object"),
        (b"[]", "the body must be a JSON object"),
        (b"x", "the body must be JSON"),
        (b"[" * 100_000, "the body must be JSON"),
        (b'{"points": [[0, 1]], "side": 1' + b"0" * 5000 + b"}", "the body must be JSON"),
        (b"{}", "points is missing"),
        (b'{"points": [[0, 99]]}', "points.0.1 must be less than or equal to 10"),
    ],
)
def test_the_page_is_refused_with_a_sentence_too(client, body, said):
    answer = client.post(
        "/studio/landscape", content=body, headers={"content-type": "application/json"}
    )
    assert refusal(answer, 400) == said


@pytest.mark.parametrize("wrong", ["first", "last"])
def test_a_wrong_picture_is_called_by_its_field(client, wrong):
    body = {"model": "plain", "first": grey(), "last": grey()} | {wrong: "AAAA"}
    answer = client.post("/v1/interpolate", json=body)
    assert refusal(answer, 400).startswith(f"{wrong} cannot be read")
    assert answer.json()["error"]["param"] == wrong


def test_the_last_seed_must_exist_too(client):
    body = {"model": "plain", "count": 2, "seed": 2**63 - 1}
    said = refusal(client.post("/v1/sample", json=body), 400)
    assert "2^63 - 2], for 2 seeds in a row" in said


def bomb(side):
    """A PNG of few bytes with very many pixels."""

    def chunk(kind, data):
        return len(data).to_bytes(4) + kind + data + zlib.crc32(kind + data).to_bytes(4)

    head = side.to_bytes(4) * 2 + bytes([8, 0, 0, 0, 0])
    rows = zlib.compress(bytes(1000))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"no picture", "no picture"),
        (b"", "no picture"),
        (bomb(5000), "at most 16,777,216 pixels"),
        (bomb(60_000), "pixels"),
        (bomb(9), "8x8 pixels"),
        (bomb(8)[:40], "cannot be read"),
    ],
)
def test_pictures_that_are_none_are_refused(client, content, said):
    text = base64.b64encode(content).decode()
    answer = client.post("/v1/vary", json={"model": "bowl", "images": [text]})
    assert said in refusal(answer, 400)


def test_an_answer_is_not_endless(client, ask):
    wanted = {"model": "bowl", "count": 2, "trajectory": 3}
    assert client.post("/v1/sample", json=wanted).status_code == 200
    answer = ask(limits=Limits(answer_pixels=500)).post("/v1/sample", json=wanted)
    assert "at most 500 pixels" in refusal(answer, 400)


def test_metrics_count_requests_by_endpoint_and_status(ask):
    client = ask()
    for _ in range(3):
        client.post("/v1/sample", json={"model": "bowl"})
    client.post("/v1/sample", json={"model": "bowl", "count": 0})
    client.get("/v1/" + "x" * 50)
    text = client.get("/metrics").text
    assert 'eqm_requests_total{endpoint="/v1/sample",status="200"} 3.0' in text
    assert 'eqm_requests_total{endpoint="/v1/sample",status="400"} 1.0' in text
    assert 'eqm_request_seconds_count{endpoint="/v1/sample"} 4.0' in text
    assert 'eqm_slots{model="bowl"} 32.0' in text
    assert "xxx" not in text
