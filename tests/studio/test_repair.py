"""The panel that repairs pictures, with the model fashion-mnist."""

import base64
import io
import re

import numpy as np
import pytest
from PIL import Image


@pytest.fixture
def panel(clothes, page):
    page.goto(f"{clothes}/#repair")
    page.get_by_text("A sample of fashion-mnist").wait_for()
    page.get_by_label("Number of answers").fill("3")
    return page


def repair(page):
    page.get_by_role("button", name="Repair", exact=True).click()
    page.get_by_role("status").get_by_text("The answers are ready.").wait_for()


def shown(page, pixels, name):
    return pixels(page.get_by_role("img", name=name))[..., 0].astype(float)


def said(page, name):
    """The number of dB below a picture."""
    text = page.locator(".film").filter(has_text=name).inner_text()
    return float(re.search(r"PSNR ([\d.]+) dB", text)[1])


def psnr(a, b):
    return 10 * np.log10(255**2 / ((a - b) ** 2).mean())


def picture(values):
    found = io.BytesIO()
    Image.fromarray(np.asarray(values, np.uint8)).save(found, "png")
    return found.getvalue()


def test_noise_is_sent_whole_and_answers_are_compared_with_the_original(panel, pixels):
    panel.get_by_label("Noise", exact=True).fill("0.8")
    with panel.expect_request("**/v1/restore") as sent:
        repair(panel)
    body = sent.value.post_data_json
    original = shown(panel, pixels, "Original")[0]
    with Image.open(io.BytesIO(base64.b64decode(body["images"][0]))) as png:
        values = np.asarray(png.convert("L")) / 255 * 2 - 1
    noise = values * body["range"][1] - (original / 127.5 - 1)
    assert body["range"][1] > 2
    assert abs(noise.mean()) < 0.1
    assert noise.std() == pytest.approx(0.8, rel=0.1)
    assert body["noise"] == 0.8

    answers = shown(panel, pixels, re.compile("^answer"))
    assert len(answers) == 3
    for k, answer in enumerate(answers):
        assert said(panel, f"answer {k + 1}") == pytest.approx(psnr(answer, original), abs=0.06)
    mean = shown(panel, pixels, "Mean of the answers")[0]
    assert np.abs(mean - answers.mean(0)).max() <= 0.51
    spread = shown(panel, pixels, "Spread of the answers")[0]
    assert np.abs(spread - (2 * answers.std(0)).clip(max=255)).max() <= 0.51
    assert said(panel, "Least squared error") > said(panel, "Damaged") + 6


def test_unknown_noise_is_estimated(panel):
    panel.get_by_label("Noise", exact=True).fill("0.6")
    panel.get_by_label("The model is not told how much noise there is").check()
    repair(panel)
    text = panel.get_by_text("The noise was estimated").inner_text()
    found = re.search(r"standard deviation ([\d.]+); it is ([\d.]+\d)", text)
    assert float(found[2]) == 0.6
    assert float(found[1]) == pytest.approx(0.6, rel=0.25)


def test_a_dropped_picture_is_resized_and_its_hole_is_filled(panel, pixels):
    values = np.full((60, 100), 255)
    values[15:45, 35:65] = 55
    panel.get_by_label("Drop, choose or paste").set_input_files(
        {"name": "box.png", "mimeType": "image/png", "buffer": picture(values)}
    )
    panel.get_by_text(
        "box.png: 100 × 60 pixels, its middle resized to 28 × 28, in grey."
    ).wait_for()
    panel.get_by_label("Swap light and dark").check()
    panel.get_by_role("button", name="Hole", exact=True).click()
    original = shown(panel, pixels, "Original")[0]
    assert (original[:5] == 0).all()
    assert (original[9:19, 9:19] == 200).all()
    repair(panel)
    answers = shown(panel, pixels, re.compile("^answer"))
    known = np.ones((28, 28), bool)
    known[7:21, 7:21] = False  # the middle, where the hole is at first
    assert np.abs(answers - original)[:, known].max() <= 1
    assert answers.std(0)[~known].mean() > 2


@pytest.mark.parametrize("kind", ["Too small", "Blur"])
def test_the_damage_that_is_shown_is_the_damage_that_is_repaired(panel, pixels, kind):
    panel.get_by_role("button", name=kind, exact=True).click()
    repair(panel)
    original = shown(panel, pixels, "Original")[0]
    damaged = shown(panel, pixels, "Damaged")[0]
    if kind == "Too small":
        assert np.abs(damaged - original.reshape(14, 2, 14, 2).mean((1, 3))).max() <= 0.51
        answers = shown(panel, pixels, re.compile("^answer"))
        assert np.abs(answers.reshape(-1, 14, 2, 14, 2).mean((2, 4)) - damaged).mean() < 1.5
    else:
        bell = np.exp(-((np.arange(-5, 6) / 1.5) ** 2) / 2)
        padded = np.pad(original, 5, "edge")
        for axis in (0, 1):
            padded = np.apply_along_axis(np.convolve, axis, padded, bell / bell.sum(), "valid")
        assert np.abs(damaged - padded).max() <= 0.51


def test_what_cannot_be_repaired_is_said_in_one_sentence(panel):
    drop = panel.get_by_label("Drop, choose or paste")
    drop.set_input_files({"name": "a.txt", "mimeType": "text/plain", "buffer": b"no picture"})
    panel.get_by_text("a.txt is not a picture that this browser can read").wait_for()
    panel.get_by_role("button", name="Hole", exact=True).click()
    panel.get_by_role("button", name="Clear").click()
    panel.get_by_role("button", name="Repair", exact=True).click()
    panel.get_by_text("There is no hole yet: paint what is missing.").wait_for()
