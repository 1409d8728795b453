"""`/v1/detect` says what the stored detector of the model says."""

import base64
import io

import numpy as np
import pytest
import torch
from PIL import Image

from eqm.serving.models import Models
from eqm.tasks import EqmDetector


@pytest.fixture(scope="module")
def shipped():
    from starlette.testclient import TestClient

    from eqm.serving.http.app import create_app

    with Models(["fashion-mnist"], device="cpu") as models:
        yield TestClient(create_app(models), base_url="http://localhost")


@pytest.fixture(scope="module")
def given():
    """Pictures as bytes (B, H, W): noise, and three that are grey."""
    noise = np.random.default_rng(0).integers(0, 256, (1, 28, 28), np.uint8)
    return np.concatenate(
        [noise, *(np.full((1, 28, 28), value, np.uint8) for value in (0, 90, 255))]
    )


def packed(values):
    found = io.BytesIO()
    Image.fromarray(values).save(found, "png")
    return base64.b64encode(found.getvalue()).decode()


def test_scores_and_p_values_are_those_of_the_detector(shipped, given):
    answer = shipped.post("/v1/detect", json={"images": [packed(each) for each in given]}).json()
    detector = EqmDetector.load("fashion-mnist")
    images = torch.from_numpy(given)[:, None].float() / 127.5 - 1
    scores = detector.score_samples(images)
    rows = answer["results"]
    assert [row["score"] for row in rows] == pytest.approx(scores.tolist(), rel=1e-4)
    assert [row["p_value"] for row in rows] == pytest.approx(detector.p_values(images).tolist())
    assert rows[0]["anomalous"]
    assert rows[0]["p_value"] < 0.01
    assert answer["threshold"] == pytest.approx(detector.threshold(0.05))
    assert "map" not in rows[0] or rows[0]["map"] is None


def test_thresholds_rise_as_fewer_false_alarms_are_allowed(shipped, given):
    answer = shipped.post("/v1/detect", json={"images": [packed(given[0])], "fpr": 0.2}).json()
    assert answer["fpr"] == 0.2
    by_rate = [each["threshold"] for each in answer["thresholds"]]
    assert by_rate == sorted(by_rate, reverse=True)
    assert answer["threshold"] in by_rate
    assert answer["calibrated_on"] > 100


def test_a_map_shows_where_a_picture_is_anomalous(shipped):
    picture = np.zeros((28, 28), np.uint8)
    picture[4:10, 4:10] = np.random.default_rng(0).integers(0, 256, (6, 6))
    answer = shipped.post("/v1/detect", json={"images": [packed(picture)], "maps": True}).json()
    drawn = Image.open(io.BytesIO(base64.b64decode(answer["results"][0]["map"])))
    red = np.array(drawn).astype(int)[:, :, 0] - np.array(drawn).astype(int)[:, :, 1]
    assert drawn.size == (28, 28)
    assert red[4:10, 4:10].mean() > red[15:, 15:].mean() + 20


def test_other_sizes_are_refused_or_resized(shipped, given):
    large = packed(np.kron(given[0], np.ones((2, 2), np.uint8)))
    refused = shipped.post("/v1/detect", json={"images": [large]})
    assert refused.status_code == 400
    assert "28x28 pixels; got 56x56" in refused.json()["error"]["message"]
    assert shipped.post("/v1/detect", json={"images": [large], "resize": True}).status_code == 200


def test_rates_that_the_calibration_cannot_tell_are_refused(shipped, given):
    answer = shipped.post("/v1/detect", json={"images": [packed(given[0])], "fpr": 1e-6})
    assert answer.status_code == 400
    assert "calibrate on more images" in answer.json()["error"]["message"]


def test_a_model_without_a_detector_says_so(client):
    answer = client.post("/v1/detect", json={"model": "bowl", "images": ["x"]})
    assert "no detector" in answer.json()["error"]["message"]
