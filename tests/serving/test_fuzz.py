"""Random requests over the whole API: nothing fails, nothing hangs, and each refusal says what to change."""

import base64
import copy
import io
import json
import time
from collections import Counter

import pytest
import torch
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from PIL import Image

from eqm.models import MLPConfig, build, save_pretrained
from eqm.tasks import EqmDetector

schemathesis = pytest.importorskip("schemathesis")
pytest.importorskip("fastapi")

PICTURE_FIELDS = ("images", "image", "first", "last", "mask")
ENOUGH = 60.0
"""Seconds after which a request of this tiny model counts as hung."""


@pytest.fixture(scope="module")
def app(tmp_path_factory):
    from eqm.serving.http.app import create_app
    from eqm.serving.http.limits import Limits
    from eqm.serving.models import Models

    folder = tmp_path_factory.mktemp("models") / "tiny"
    network = build(MLPConfig(shape=(1, 8, 8), num_classes=3, width=8, depth=1))
    save_pretrained(network, folder)
    pictures = torch.rand(64, 1, 8, 8, generator=torch.Generator().manual_seed(0)) * 2 - 1
    EqmDetector(network, score="gradient-norm").fit(pictures).save(folder)
    with Models([str(folder)]) as models:
        yield create_app(models, limits=Limits(count=16, steps=100, seconds=5))


def file_of(picture, kind="png", cut=None):
    file = io.BytesIO()
    picture.save(file, kind)
    return file.getvalue()[:cut]


def encoded(content):
    return base64.b64encode(content).decode()


GREY = Image.linear_gradient("L").resize((8, 8))
HOLE = GREY.convert("RGBA")
HOLE.putalpha(Image.radial_gradient("L").resize((8, 8)).point(lambda value: 255 * (value > 99)))
GOOD = (file_of(GREY), file_of(HOLE), file_of(GREY, "jpeg"))
BAD = (
    file_of(GREY.resize((9, 8))),
    file_of(GREY, cut=40),
    file_of(Image.new("1", (20_000, 20_000))),
    b"no picture",
    b"",
)
NO_BASE64 = ("data:image/png;base64,AAAA", "no picture", "")
NUMBERS = st.sampled_from(
    [0, -1, 0.5, 2, 1e-300, 1e9, 1e400, -1e400, float("nan"), 2**70, "1", None, [], True]
)
SAMPLING = st.dictionaries(
    st.sampled_from(
        ["rule", "step_size", "momentum", "path_length", "gradient_ratio", "guidance", "guidance_interval",
         "multistep_coefficients", "stop", "rule_options", "stop_options", "other"]
    ),
    NUMBERS | st.sampled_from(["heun", "langevin", "gradient-norm", [0.1, 0.3], [[1, 0, 0, 0]], [["noise", 1]]]),
    max_size=3,
)  # fmt: skip


@st.composite
def requests(draw, operation, mode):
    """A request that schemathesis makes of the OpenAPI page, often with pictures and settings that fit it
    or nearly do: the page does not say what a picture is."""
    case = draw(operation.as_strategy(generation_mode=mode))
    body = case.body
    if isinstance(body, dict) and draw(st.booleans()):
        body = case.body = copy.copy(body)
        good = draw(st.booleans())
        form = case.media_type == "multipart/form-data"
        picture = st.sampled_from(GOOD if good else GOOD + BAD)
        if not form:
            picture = (
                picture.map(encoded) if good else picture.map(encoded) | st.sampled_from(NO_BASE64)
            )
        for name in PICTURE_FIELDS:
            if name in body:
                several = name == "images"
                body[name] = draw(st.lists(picture, min_size=1, max_size=3) if several else picture)
        if "sampling" in body:
            body["sampling"] = {} if good else draw(SAMPLING)
        if good:
            body.pop("labels", None)
            body.pop("model", None)
            body.update({name: 1 for name in ("count", "n") if name in body})
    return case


def send(client, case):
    """The answer to a request. JSON may have NaN and infinities, as Python clients write them."""
    if case.media_type == "multipart/form-data" and isinstance(case.body, dict):
        files = {
            name: (name, value if isinstance(value, bytes) else str(value))
            if name in PICTURE_FIELDS
            else (None, json.dumps(value) if isinstance(value, dict) else str(value))
            for name, value in case.body.items()
            if value is not None
        }
        return client.request(case.method, case.formatted_path, files=files)
    arguments = case.as_transport_kwargs()
    del arguments["cookies"]  # the server reads none
    if isinstance(arguments.get("data"), bytes):
        arguments["content"] = arguments.pop("data")
    if case.media_type == "application/json" and "json" in arguments:
        arguments["content"] = json.dumps(arguments.pop("json"))
        arguments["headers"] = {**arguments["headers"], "Content-Type": "application/json"}
    return client.request(**arguments)


def fuzz(app, examples, but=()):
    """The statuses of `examples` requests of each kind to each operation, checked one by one."""
    from starlette.testclient import TestClient

    statuses = Counter()
    # as the server would: an error is an answer
    with TestClient(app, "http://127.0.0.1", raise_server_exceptions=False) as client:
        schema = schemathesis.openapi.from_dict(client.get("/openapi.json").json())
        for result in schema.get_all_operations():
            operation = result.ok()
            if operation.path in but:
                continue
            takes = operation.body.items or operation.query.items  # what may be wrong
            for mode in (
                schemathesis.GenerationMode if takes else [schemathesis.GenerationMode.POSITIVE]
            ):

                @given(case=requests(operation, mode))
                @settings(
                    max_examples=examples,
                    database=None,
                    phases=[Phase.generate],
                    suppress_health_check=list(HealthCheck),
                )
                def check(case):
                    label = case.operation.label
                    began = time.perf_counter()
                    answer = send(client, case)
                    assert time.perf_counter() - began < ENOUGH, f"{label} took too long"
                    statuses[label, answer.status_code] += 1
                    check_answer(answer)

                check()
    return statuses


def check_answer(answer):
    body = answer.text
    assert answer.status_code < 500 or answer.status_code == 504, (
        body
    )  # 504 is what a deadline asks for
    for line in (
        body.splitlines() if "event-stream" in answer.headers.get("content-type", "") else ()
    ):
        if line.startswith("data: {") and (error := json.loads(line[6:]).get("error")):
            check_sentence(error["message"])
    if answer.status_code >= 400:
        error = json.loads(body)["error"]
        assert error.keys() == {"message", "type", "param", "code"}, body
        check_sentence(error["message"])


def check_sentence(message):
    """It says what is wrong and what to do, in one line, without the words of Python."""
    assert 15 < len(message) < 1000, message
    assert "\n" not in message, message
    for word in ("Traceback", "object at 0x", "Error(", "NoneType", "Exception", "internal server"):
        assert word not in message, message


def test_random_requests_are_answered_or_refused_in_a_sentence(app):
    statuses = fuzz(app, 6, but=["/studio/landscape"])  # that trains for seconds
    assert sum(statuses.values()) > 100
    for path in ("/v1/sample", "/v1/denoise", "/v1/detect", "/v1/images/generations"):
        found = {status for label, status in statuses if label == f"POST {path}"}
        assert {200, 400} <= found, f"{path} has seen only {found}"


@pytest.mark.slow
def test_many_random_requests_are_answered_or_refused_in_a_sentence(app):
    fuzz(app, 150)
