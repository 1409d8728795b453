"""Native endpoints: each use answers what the field says, and refuses what it cannot do with a sentence."""

import base64
import io

import numpy as np
import pytest
from PIL import Image

SIDE = (8, 8)


def packed(value=128, size=SIDE, mode="L"):
    found = io.BytesIO()
    Image.new(mode, size, value).save(found, "png")
    return base64.b64encode(found.getvalue()).decode()


def halves(left, right):
    """A picture whose left and right halves have these values."""
    values = np.full((8, 8), left, np.uint8)
    values[:, 4:] = right
    found = io.BytesIO()
    Image.fromarray(values).save(found, "png")
    return base64.b64encode(found.getvalue()).decode()


def pixels(text):
    return np.array(Image.open(io.BytesIO(base64.b64decode(text)))).astype(int)


def grey(value):
    """The byte of a value in -1..1."""
    return round((value + 1) * 127.5)


def post(client, use, **ask):
    answer = client.post(f"/v1/{use}", json={"model": "bowl", **ask})
    assert answer.status_code == 200, answer.text
    return answer.json()


def test_samples_end_where_their_class_says(client):
    found = post(client, "sample", labels=["dark", 2, "none"], count=3, seed=7)
    ends = [int(np.median(pixels(each["b64_json"]))) for each in found["samples"]]
    assert ends == [grey(-0.5), grey(0.5), grey(0.25)]
    assert [each["label"] for each in found["samples"]] == ["dark", "light", "none"]
    assert [each["seed"] for each in found["samples"]] == [7, 8, 9]
    assert {each["outcome"] for each in found["samples"]} == {"converged"}
    assert {each["steps"] for each in found["samples"]} == {20}  # 1 / 0.05


def test_a_model_without_classes_takes_no_labels(client):
    found = client.post(
        "/v1/sample", json={"model": "plain", "sampling": {"path_length": 2}}
    ).json()
    assert np.abs(pixels(found["samples"][0]["b64_json"]) - 128).max() <= 1
    refused = client.post("/v1/sample", json={"model": "plain", "labels": "dark"})
    assert refused.status_code == 400
    assert "without classes" in refused.json()["error"]["message"]


def test_changed_settings_are_used(client):
    found = post(client, "sample", sampling={"step_size": 0.1, "path_length": 0.5})
    assert found["samples"][0]["steps"] == 5


def test_a_sample_that_diverges_is_an_answer(client):
    steep = {"step_size": 100.0, "path_length": 10000.0}
    found = post(client, "sample", sampling=steep)["samples"][0]
    assert found["outcome"] == "diverged"
    assert "smaller step size" in found["sentence"]


def test_a_variation_of_strength_0_is_the_picture(client):
    found = post(client, "vary", images=[packed(200), packed(50)], strength=0, count=2)
    values = [pixels(each["b64_json"]) for each in found["samples"]]
    assert [int(each.mean()) for each in values] == [200, 200, 50, 50]
    assert found["samples"][0]["gradient_norm"] is None  # nothing was evaluated


def test_denoising_estimates_its_sigma(client):
    noise = np.random.default_rng(0).normal(128, 25.5, (8, 8)).clip(0, 255).astype(np.uint8)
    file = io.BytesIO()
    Image.fromarray(noise).save(file, "png")
    text = base64.b64encode(file.getvalue()).decode()
    found = post(client, "denoise", images=[text], sigma="estimate", labels="light")
    assert found["sigma"][0] == pytest.approx(0.2, abs=0.1)
    assert np.abs(pixels(found["samples"][0]["b64_json"]) - grey(0.5)).max() < 8


def test_inpainting_keeps_known_pixels_and_draws_the_others(client):
    found = post(
        client,
        "restore",
        images=[packed(200)],
        mask=halves(0, 255),
        operator={"name": "inpaint"},
        count=3,
    )
    for each in found["samples"]:
        assert (pixels(each["b64_json"])[:, :4] == 200).all()
    assert (pixels(found["mean"][0])[:, :4] == 200).all()
    assert (pixels(found["spread"][0])[:, :4] == 0).all()


def test_a_small_picture_is_enlarged(client):
    found = post(
        client,
        "restore",
        images=[packed(200, (4, 4))],
        operator={"name": "downsample", "factor": 2},
    )
    large = pixels(found["samples"][0]["b64_json"])
    assert large.shape == (8, 8)
    assert np.abs(large.reshape(4, 2, 4, 2).mean((1, 3)) - 200).max() <= 1


def test_a_path_begins_and_ends_at_its_pictures(client):
    for through in ("noise", "landscape"):
        found = post(
            client, "interpolate", first=packed(30), last=packed(220), count=4, through=through
        )
        ends = [pixels(found["samples"][k]["b64_json"]) for k in (0, -1)]
        assert [int(end.mean()) for end in ends] == [30, 220]
        assert len(found["samples"]) == 4


def test_a_mask_says_where_a_class_is(client):
    found = post(
        client, "compose", expression="m*light + ~m*dark", masks={"m": halves(255, 0)}, count=2
    )
    for each in found["samples"]:
        values = pixels(each["b64_json"])
        assert np.median(values[:, :4]) == grey(0.5)
        assert np.median(values[:, 4:]) == grey(-0.5)


def test_pictures_may_go_beyond_black_and_white(client):
    noise = np.random.default_rng(0).integers(0, 256, (8, 8), np.uint8)
    found = io.BytesIO()
    Image.fromarray(noise).save(found, "png")
    text = base64.b64encode(found.getvalue()).decode()
    plain = post(client, "denoise", images=[text], sigma="estimate")
    wide = post(client, "denoise", images=[text], sigma="estimate", range=[-3, 3])
    assert wide["sigma"][0] == pytest.approx(3 * plain["sigma"][0], rel=1e-4)

    whole = packed(255), packed(0)
    ask = {"operator": {"name": "inpaint"}, "count": 1, "range": [-2, 0.5]}
    for sent, value in zip(whole, (0.5, -1), strict=True):  # the answer is cut off at -1
        found = post(client, "restore", images=[sent], mask=packed(0), **ask)
        assert set(pixels(found["samples"][0]["b64_json"]).flat) == {grey(value)}
    for wrong in ([1, -1], [0, 0], [0], [0, 99], "wide"):
        body = {"model": "bowl", "images": [text], "range": wrong}
        answer = client.post("/v1/denoise", json=body)
        assert answer.status_code == 400
        assert "range" in answer.json()["error"]["message"]
