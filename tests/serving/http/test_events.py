"""Server-sent events: previews, finished samples, the end; slow readers lose previews and nothing else."""

import asyncio
import base64
import io
import json

import pytest
import torch
from PIL import Image

from eqm.serving.http.events import News
from eqm.serving.request import Progress


def packed(value, size=(8, 8)):
    found = io.BytesIO()
    Image.new("L", size, value).save(found, "png")
    return base64.b64encode(found.getvalue()).decode()


def events(client, use, **ask):
    """The events of a stream: pairs of name and data."""
    with client.stream(
        "POST", f"/v1/{use}", json={"model": "bowl", "stream": True, **ask}
    ) as answer:
        assert answer.headers["content-type"].startswith("text/event-stream")
        text = "".join(answer.iter_text())
    blocks = [block.split("\n") for block in text.split("\n\n") if block.startswith("event: ")]
    return [(name.removeprefix("event: "), json.loads(data[6:])) for name, data in blocks]


def test_a_stream_shows_the_way_and_ends_with_the_answer(client):
    found = events(client, "sample", count=3, labels="dark", preview_every=4)
    names = [name for name, _ in found]
    assert names[-1] == "done"
    assert sorted(data["index"] for name, data in found if name == "sample") == [0, 1, 2]
    assert all(data["energy"] < 0 for name, data in found if name == "sample")
    done = found[-1][1]
    assert [each["b64_json"] for each in done["samples"]] == [None] * 3
    assert {each["steps"] for each in done["samples"]} == {20}
    for name, data in found:
        for each in data["samples"] if name == "progress" else ():
            assert each["steps"] % 4 == 0
            assert each["max_steps"] == 20
            assert each["gradient_norm"] > 0
            assert each["energy"] < 0  # it only falls


def test_every_use_streams_its_samples(client):
    picture = packed(60)
    asks = {
        "vary": {"images": [picture], "count": 2},
        "denoise": {"images": [picture, picture]},
        "restore": {"images": [packed(60, (4, 4))], "operator": {"name": "downsample"}, "count": 2},
        "interpolate": {"first": picture, "last": packed(200), "count": 2},
        "compose": {"expression": "dark + light", "count": 2},
    }
    for use, ask in asks.items():
        found = events(client, use, preview_every=1, **ask)
        assert sorted(data["index"] for name, data in found if name == "sample") == [0, 1], use
        assert found[-1][0] == "done"
        if use in ("vary", "denoise", "compose"):  # plain descents
            assert all(data["energy"] < 0 for name, data in found if name == "sample"), use


def test_a_path_through_the_landscape_is_previewed_whole(client):
    found = events(
        client, "interpolate", first=packed(60), last=packed(200), count=5, through="landscape",
        preview_every=5,
    )  # fmt: skip
    for name, data in found:
        if name == "progress":
            assert [each["index"] for each in data["samples"]] == [0, 1, 2, 3, 4]


def test_an_error_on_the_way_is_an_event(client):
    found = events(client, "compose", expression="dark", deadline=1e-6)
    name, data = found[-1]
    assert name == "error"
    assert data["error"]["type"] == "timeout_error"


def test_a_deadline_ends_a_request(client):
    answer = client.post("/v1/sample", json={"model": "bowl", "deadline": 1e-6})
    assert answer.status_code == 504
    assert "later deadline" in answer.json()["error"]["message"]


def test_a_trajectory_begins_with_noise_and_ends_with_the_sample(client):
    answer = client.post(
        "/v1/sample", json={"model": "bowl", "trajectory": 5, "count": 2, "labels": 0}
    )
    for each in answer.json()["samples"]:
        moments = each["trajectory"]
        assert [moment["steps"] for moment in moments] == [0, 4, 8, 12, 16, 20]
        assert moments[-1]["b64_json"] == each["b64_json"]
        energies = [moment["energy"] for moment in moments]
        assert energies == sorted(energies, reverse=True)
        assert energies[0] == 0


def test_news_keeps_one_preview_a_sample():
    async def run():
        news = News(asyncio.get_running_loop())
        for steps in range(10_000):
            news(Progress(steps % 3, torch.zeros(1), steps, 10, 1.0, 0.0))
        await asyncio.wait_for(news.wait(), 1)
        going, ended = news.take()
        assert [each.steps for each in going] == [9999, 9997, 9998]
        assert ended == []
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(news.wait(), 0.01)

    asyncio.run(run())
